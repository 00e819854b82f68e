// Builds what `npm start` runs into dist/: the Worker, the parts of it that the start uses too, the
// migrations, and workerd's configuration.

import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { build } from 'esbuild';

const root = new URL('../', import.meta.url);
const dist = new URL('dist/', root);

const source = (name) => new URL(`src/${name}`, root).pathname;

await mkdir(dist, { recursive: true });
await build({
  entryPoints: {
    worker: source('index.ts'),
    settings: source('config/settings.ts'),
    mint: source('crypto/mint.ts'),
    'public-url': source('config/public-url.ts'),
  },
  outdir: dist.pathname,
  bundle: true,
  format: 'esm',
  target: 'es2024',
  external: ['cloudflare:*', 'node:*'],
  logLevel: 'warning',
});

const { settingNames } = await import(new URL('settings.js', dist).href);
await writeFile(new URL('d1.js', dist), await readFile(new URL('scripts/d1.mjs', root)));
await writeFile(
  new URL('migrations.js', dist),
  `export default ${JSON.stringify(await migrations(), null, 2)};\n`,
);
await writeFile(new URL('config.capnp', dist), await configuration(settingNames));

/** Every migration in order, as its statements. */
async function migrations() {
  const folder = new URL('migrations/', root);
  const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort();
  return Promise.all(
    names.map(async (name) => {
      const sql = await readFile(new URL(name, folder), 'utf8');
      return { name, statements: sql.split('--> statement-breakpoint').map((part) => part.trim()) };
    }),
  );
}

/** One compatibility date for Cloudflare and for here, and the same flags: wrangler.toml's. */
async function configuration(settingNames) {
  const wrangler = await readFile(new URL('wrangler.toml', root), 'utf8');
  const date = /^compatibility_date = "(.+)"$/m.exec(wrangler)[1];
  const flags = /^compatibility_flags = (\[.+\])$/m.exec(wrangler)[1];
  const variables = settingNames
    .map((name) => `      (name = "${name}", fromEnvironment = "${name}"),`)
    .join('\n');
  return `# Made by scripts/build.mjs.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "lapidary", worker = .lapidary),
    (name = "d1", worker = .d1),
    # The engine may be anywhere, this machine included.
    (name = "internet", network = (allow = ["public", "private", "local"], tlsOptions = (trustBrowserCas = true))),
    # The receivers of webhooks, whatever their names resolve to: no private address, and not this machine.
    (name = "webhooks", network = (allow = ["public"], tlsOptions = (trustBrowserCas = true))),
    (name = "feed-data", disk = (path = "feed", writable = true)),
    (name = "d1-data", disk = (path = "d1", writable = true)),
  ],
  sockets = [(name = "http", address = "127.0.0.1:8787", http = (), service = "lapidary")],
);

const lapidary :Workerd.Worker = (
  compatibilityDate = "${date}",
  compatibilityFlags = ${flags},
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  bindings = [
${variables}
      (name = "WEBHOOK_NETWORK", service = "webhooks"),
      (name = "DECISION_FEED", durableObjectNamespace = "DecisionFeed"),
      # The binding that Cloudflare's own D1 has, over the store below instead of their service.
      (name = "DB", wrapped = (
        moduleName = "cloudflare-internal:d1-api",
        innerBindings = [(name = "fetcher", service = "d1")])),
  ],
  durableObjectNamespaces = [(className = "DecisionFeed", uniqueKey = "lapidary-decision-feed", enableSql = true)],
  durableObjectStorage = (localDisk = "feed-data"),
);

const d1 :Workerd.Worker = (
  compatibilityDate = "${date}",
  modules = [
    (name = "d1.js", esModule = embed "d1.js"),
    (name = "migrations.js", esModule = embed "migrations.js"),
  ],
  bindings = [(name = "STORE", durableObjectNamespace = "D1Store")],
  durableObjectNamespaces = [(className = "D1Store", uniqueKey = "lapidary-d1", enableSql = true)],
  durableObjectStorage = (localDisk = "d1-data"),
);
`;
}
