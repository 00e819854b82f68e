// Free loopback ports for servers that must come back on the same port after a stop.
import { createServer } from 'node:net';

// Below the kernel's ephemeral range (32768 and up): while a server is down, no outgoing connection of
// another process can be given its port, as could happen to one that listening on 0 chose.
const lowest = 20_000;
const highest = 32_000;

export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const port = lowest + Math.floor(Math.random() * (highest - lowest));
    if (await canListen(port)) return port;
  }
  throw new Error(`found no free port from ${lowest} to ${highest}`);
}

function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
