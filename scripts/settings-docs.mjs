// Makes what operators read of the settings from the table in src/config/settings.ts: the table of docs/configuration.md,
// between its two marks, and nix/modules/settings.json. With `--check` it writes nothing and fails where one is out of
// date. It needs what scripts/build.mjs has built.

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as prettier from 'prettier';
import { experimental_readRawConfig as readConfig } from 'wrangler';
import { settings } from '../dist/settings.js';

const path = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const marks = ['<!-- settings: made by scripts/settings-docs.mjs -->', '<!-- /settings -->'];
const { vars } = readConfig({ config: path('wrangler.toml') }).rawConfig;
const meanings = readMeanings();
const rows = Object.entries(settings).map(([name, schema]) => ({
  name,
  meaning: meanings.get(name),
  secret: schema.meta()?.secret === true,
  default: schema.def.type === 'prefault' ? schema.def.defaultValue : null,
}));

let outOfDate = false;
const document = readFileSync(path('docs/configuration.md'), 'utf8');
const [before, , after] = document.split(new RegExp(`(${marks[0]}.*?${marks[1]})`, 's'));
if (after === undefined)
  throw new Error(`docs/configuration.md must have the two marks ${marks.join(' … ')}`);
await write('docs/configuration.md', `${before}${marks[0]}\n\n${table()}\n\n${marks[1]}${after}`);
const named = rows.map(({ name, ...row }) => [name, row]);
await write('nix/modules/settings.json', JSON.stringify(Object.fromEntries(named), null, 2));
process.exitCode = outOfDate ? 1 : 0;

/** The comment above each line of the table. */
function readMeanings() {
  const source = readFileSync(path('src/config/settings.ts'), 'utf8');
  const found = source.matchAll(/\/\*\*((?:(?!\*\/).)*)\*\/\n  ([A-Z][A-Z0-9_]*): /gs);
  return new Map([...found].map(([, comment, name]) => [name, comment.replace(/\s+(\* )?/g, ' ').trim()]));
}

function table() {
  const lines = rows.map(({ name, meaning, secret, default: standard }) => {
    const shown = [standard === null ? 'none' : `\`${standard}\``];
    if (vars[name] && vars[name] !== standard) shown.push(`\`${vars[name]}\` on Cloudflare`);
    if (secret) shown.push('secret');
    return `| \`${name}\` | ${shown.join('; ')} | ${meaning} |`;
  });
  return ['| name | default | meaning |', '| --- | --- | --- |', ...lines].join('\n');
}

async function write(name, text) {
  const options = await prettier.resolveConfig(path(name));
  const made = await prettier.format(text, { ...options, filepath: path(name) });
  if (made === readFileSync(path(name), 'utf8')) return;
  if (!process.argv.includes('--check')) return writeFileSync(path(name), made);
  console.error(`${name} is not what src/config/settings.ts says: run npm run docs`);
  outOfDate = true;
}
