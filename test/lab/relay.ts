// Run inside a network namespace: `relay.ts PORT SOCKET` passes connections to 127.0.0.1:PORT on to a unix
// socket, which, unlike a loopback address, can be reached from another namespace.
import { connect, createServer } from 'node:net';

const [port, socket] = process.argv.slice(2);
if (port === undefined || socket === undefined) throw new Error('usage: relay.ts PORT SOCKET');

createServer((inward) => {
  const outward = connect(socket);
  inward.pipe(outward).pipe(inward);
  inward.on('error', () => outward.destroy());
  outward.on('error', () => inward.destroy());
  outward.on('close', () => inward.destroy());
}).listen(Number(port), '127.0.0.1', () => console.log('listening'));
