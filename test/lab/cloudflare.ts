// Cloudflare's API as `wrangler deploy` meets it in an account with nothing in it but a database: enough to see what would
// be uploaded, and in what order. Whether Cloudflare takes it only Cloudflare can say.
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Cloudflare {
  /** For wrangler's environment. */
  env: Record<string, string>;
  /** Each change in its order: a statement of D1, or an upload's `metadata`. */
  changes(): Change[];
  /** Statements with this text in them fail from now on. */
  failStatements(text: string): void;
  close(): Promise<void>;
}

export type Change = { kind: 'statement'; database: string; sql: string } | { kind: 'upload'; metadata: any };

const account = 'account';

export async function startCloudflare(): Promise<Cloudflare> {
  const changes: Change[] = [];
  let failing: string | null = null;

  const answer = (method: string, path: string, body: string): { status: number; result: unknown } => {
    const [, database] = /\/d1\/database\/([^/]+)$/.exec(path) ?? [];
    if (database !== undefined) return found({ uuid: `id-of-${database}`, name: database });
    const [, queried] = /\/d1\/database\/([^/]+)\/query$/.exec(path) ?? [];
    if (queried !== undefined) {
      const { sql } = JSON.parse(body);
      if (failing !== null && sql.includes(failing)) return { status: 400, result: null };
      changes.push({ kind: 'statement', database: queried, sql });
      return found([{ results: [], success: true, meta: {} }]);
    }
    if (method === 'PUT' && /\/workers\/scripts\/[^/]+$/.test(path)) {
      const [, metadata] = /name="metadata"[^{]*(\{.*\})\r\n/.exec(body) ?? [];
      changes.push({ kind: 'upload', metadata: JSON.parse(metadata ?? 'null') });
      return found({ id: 'lapidary', deployment_id: 'deployment', startup_time_ms: 1 });
    }
    if (path.endsWith('/workers/subdomain')) return found({ subdomain: 'account' });
    if (/\/workers\/workers\/[^/]+$/.test(path)) return found({ id: 'lapidary', subdomain: {} });
    if (path.endsWith('/deployments')) return found({ deployments: [] });
    if (/\/(secrets|scripts|routes)$/.test(path)) return found([]);
    // There is no Worker yet.
    if (method === 'GET') return { status: 404, result: null };
    return found({});
  };

  const server = createServer((request, response) => {
    void read(request).then((body) => {
      const path = new URL(request.url ?? '/', 'http://cloudflare').pathname;
      const { status, result } = answer(request.method ?? '', path, body);
      const errors = status === 200 ? [] : [{ code: status === 404 ? 10007 : 7500, message: 'refused' }];
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ success: status === 200, errors, messages: [], result }));
    });
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  const { port } = server.address() as AddressInfo;
  return {
    env: {
      CLOUDFLARE_API_BASE_URL: `http://127.0.0.1:${port}/client/v4`,
      CLOUDFLARE_API_TOKEN: 'token-of-the-tests',
      CLOUDFLARE_ACCOUNT_ID: account,
      WRANGLER_SEND_METRICS: 'false',
    },
    changes: () => [...changes],
    failStatements: (text) => void (failing = text),
    close: () =>
      new Promise((closed) => {
        server.close(() => closed());
        server.closeAllConnections();
      }),
  };
}

function found(result: unknown): { status: number; result: unknown } {
  return { status: 200, result };
}

async function read(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('latin1');
}
