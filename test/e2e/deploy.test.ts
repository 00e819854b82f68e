// `npm run deploy`: what it would bring to Cloudflare, and in what order.
import { readdirSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Checkout, copyCheckout } from '../lab/checkout.ts';
import { startChild } from '../lab/child.ts';
import { type Cloudflare, startCloudflare } from '../lab/cloudflare.ts';
import { settingNames } from '../../src/config/settings.ts';

let checkout: Checkout;
let cloudflare: Cloudflare;
beforeEach(async () => {
  checkout = await copyCheckout();
  cloudflare = await startCloudflare();
});
afterEach(async () => {
  await cloudflare.close();
  await checkout.remove();
});

/** With such a lapidary.toml. */
async function deploy(mine: string): Promise<{ status: number | string; log: string }> {
  if (mine !== '') await writeFile(join(checkout.dir, 'lapidary.toml'), mine);
  const { PATH = '' } = process.env;
  // HOME: wrangler keeps its log there.
  const env = { ...cloudflare.env, PATH, HOME: checkout.dir };
  const child = startChild('npm', ['run', 'deploy'], { cwd: checkout.dir, env });
  return { status: await child.exit, log: child.log() };
}

const uploads = () => cloudflare.changes().filter((change) => change.kind === 'upload');
const migrations = readdirSync('migrations').filter((name) => name.endsWith('.sql'));

test('all migrations are applied, to the database of its name, and then it is uploaded', async () => {
  const before = readFileSync(join(checkout.dir, 'wrangler.toml'), 'utf8');
  const { status, log } = await deploy(
    'name = "lapidary-trial"\n[vars]\nUPSTREAM_URL = "https://lapi.example.net"\n',
  );
  expect(status, log).toBe(0);
  const changes = cloudflare.changes();
  const applied = changes.flatMap((change) => {
    if (change.kind !== 'statement') return [];
    expect(change.database).toBe('id-of-lapidary-trial');
    return migrations.filter((name) => change.sql.includes(`('${name}')`));
  });
  expect(applied).toEqual(migrations.sort());
  expect(changes.map(({ kind }) => kind).indexOf('upload')).toBe(changes.length - 1);
  const { bindings } = uploads()[0].metadata;
  expect(bindings).toContainEqual({ type: 'd1', name: 'DB', id: 'id-of-lapidary-trial' });
  // What is not in lapidary.toml is as wrangler.toml has it.
  const text = (name: string) => bindings.find((binding: { name: string }) => binding.name === name)?.text;
  expect(text('UPSTREAM_URL')).toBe('https://lapi.example.net');
  expect(text('MAX_DECISIONS')).toBe('90000');
  expect(readFileSync(join(checkout.dir, 'wrangler.toml'), 'utf8')).toBe(before);
});

test('a migration that fails keeps the new code back', async () => {
  cloudflare.failStatements(`('${migrations.at(-1)}')`);
  const { status } = await deploy('');
  expect(status).not.toBe(0);
  expect(uploads()).toEqual([]);
});

test.each([
  ['[vars]\nUPSTREM_URL = "https://lapi.example.net"\n', 'there is no setting UPSTREM_URL'],
  ['[vars]\nSYNC_INTERVAL_SECONDS = "never"\n', 'SYNC_INTERVAL_SECONDS must be'],
  ['[vars]\nMAX_DECISIONS = 90000\n', 'MAX_DECISIONS must be a text'],
  ['[vars\n', 'lapidary.toml can not be read'],
])('%j changes nothing, and is said to be wrong', async (mine, says) => {
  const { status, log } = await deploy(mine);
  expect(status).toBe(1);
  expect(log).toContain(says);
  expect(cloudflare.changes()).toEqual([]);
});

test('what the button asks for is what there is', () => {
  const { cloudflare: button } = JSON.parse(readFileSync('package.json', 'utf8'));
  const secrets = readFileSync('.dev.vars.example', 'utf8').match(/^\w+(?==$)/gm) ?? [];
  const vars = Object.keys(button.bindings).filter((name) => name !== 'DB');
  expect(settingNames).toEqual(expect.arrayContaining([...secrets, ...vars]));
  expect(vars).toEqual(expect.arrayContaining(secrets));
  expect(secrets.length).toBeGreaterThan(0);
});
