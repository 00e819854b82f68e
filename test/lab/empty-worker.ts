// A Worker that does nothing: it answers every request with what an empty poll answers, on the workerd that serves Lapidary.
// What a poll costs beyond it is Lapidary's own.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { atProcessEnd, startChild } from './child.ts';
import { freePort } from './ports.ts';
import { until } from './wait.ts';

const script = `
const headers = new Headers({ 'content-type': 'application/json', 'cache-control': 'no-store, no-transform' });
const init = { headers };
export default { fetch: () => new Response('{"new": [], "deleted": []}', init) };
`;

const wrangler = readFileSync(new URL('../../wrangler.toml', import.meta.url), 'utf8');

const config = `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "empty", worker = .empty)],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "empty")],
);
const empty :Workerd.Worker = (
  compatibilityDate = "${/^compatibility_date = "(.+)"$/m.exec(wrangler)?.[1]}",
  modules = [(name = "worker.js", esModule = embed "worker.js")],
);
`;

export interface EmptyWorker {
  url: string;
  pid: number;
  close(): Promise<void>;
}

export async function startEmptyWorker(): Promise<EmptyWorker> {
  const dir = mkdtempSync(join(tmpdir(), 'empty-worker-'));
  const forgetDir = atProcessEnd(() => rmSync(dir, { recursive: true, force: true }));
  writeFileSync(join(dir, 'worker.js'), script);
  writeFileSync(join(dir, 'config.capnp'), config);
  const address = `127.0.0.1:${await freePort()}`;
  const binary: string = createRequire(import.meta.url)('workerd').default;
  const child = startChild(binary, ['serve', join(dir, 'config.capnp'), `--socket-addr=http=${address}`]);
  const close = async (): Promise<void> => {
    await child.end();
    rmSync(dir, { recursive: true, force: true });
    forgetDir();
  };
  const url = `http://${address}`;
  await until('the empty Worker answers', async (saw) => {
    saw(child.log());
    return (await fetch(url)).ok;
  });
  return { url, pid: child.pid, close };
}
