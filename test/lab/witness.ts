// A reverse proxy on loopback that notes what each key was answered: whether a bouncer was ever refused is not for the
// bouncer's own log to say.
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { atProcessEnd } from './child.ts';

export interface Witnessed {
  key: string;
  method: string;
  path: string;
  /** 0: the connection broke before an answer. */
  status: number;
}

export interface Witness {
  url: string;
  /** Every request so far, in the order of the answers. */
  seen(): readonly Witnessed[];
  close(): Promise<void>;
}

export async function startWitness(target: string): Promise<Witness> {
  const seen: Witnessed[] = [];
  const server = createServer((inward, answer) => {
    const { method = '', url: path = '', headers } = inward;
    const note = (status: number) => seen.push({ key: String(headers['x-api-key']), method, path, status });
    const outward = request(new URL(path, target), { method, headers }, (reply) => {
      const status = reply.statusCode ?? 0;
      note(status);
      answer.writeHead(status, reply.headers);
      reply.pipe(answer);
    });
    outward.on('error', () => {
      note(0);
      answer.destroy();
    });
    inward.pipe(outward);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const stop = () => {
    server.close();
    server.closeAllConnections();
  };
  const forget = atProcessEnd(stop);
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen: () => seen,
    async close() {
      stop();
      forget();
    },
  };
}
