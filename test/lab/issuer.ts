// An OIDC issuer on loopback: a real server for its key set, which can go away and come back.
import { createServer, type Server } from 'node:http';
import { createIssuer, type TestIssuer } from '../support/issuer.ts';
import { atProcessEnd } from './child.ts';
import { freePort } from './ports.ts';

export interface IssuerServer extends TestIssuer {
  /** The paths that were asked for. */
  readonly asked: string[];
  start(): Promise<void>;
  /** Nobody listens any more; connections are cut. */
  stop(): Promise<void>;
}

export async function startIssuer(audience: string): Promise<IssuerServer> {
  const port = await freePort();
  const issuer = createIssuer(`http://127.0.0.1:${port}`, audience);
  const asked: string[] = [];
  let server: Server | undefined;
  const started: IssuerServer = {
    ...issuer,
    asked,
    start: () =>
      new Promise((resolve, reject) => {
        server = createServer((request, response) => {
          asked.push(request.url ?? '');
          response.setHeader('content-type', 'application/json');
          response.statusCode = request.url === '/.well-known/jwks.json' ? 200 : 404;
          response.end(JSON.stringify(response.statusCode === 200 ? issuer.jwks() : {}));
        });
        server.once('error', reject);
        server.listen(port, '127.0.0.1', resolve);
      }),
    stop: () =>
      new Promise((resolve) => {
        if (!server) return resolve();
        server.close(() => resolve());
        server.closeAllConnections();
        server = undefined;
      }),
  };
  await started.start();
  atProcessEnd(() => server?.closeAllConnections());
  return started;
}
