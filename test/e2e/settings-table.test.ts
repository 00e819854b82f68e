// Everything that names settings names those that there are: the table of src/config/settings.ts.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { experimental_readRawConfig as readConfig } from 'wrangler';
import { settings } from '../../src/config/settings.ts';

const names = Object.keys(settings);
const isSecret = (name: string) => settings[name as keyof typeof settings].meta()?.secret === true;
const secrets = names.filter(isSecret);
const plain = names.filter((name) => !isSecret(name));
const wrangler = readFileSync('wrangler.toml', 'utf8');

test('docs/configuration.md and the Nix options are what scripts/settings-docs.mjs makes of them', () => {
  const args = ['scripts/settings-docs.mjs', '--check'];
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  expect([stderr, status]).toEqual(['', 0]);
});

test('wrangler.toml sets each that is no secret, to its default or to what is said of Cloudflare', () => {
  const { vars } = readConfig({ config: 'wrangler.toml' }).rawConfig;
  const onCloudflare = { MAX_DECISIONS: '90000', CLIENT_ADDRESS_HEADER: 'cf-connecting-ip' };
  const standard = plain.map((name) => {
    const { def } = settings[name as keyof typeof settings];
    return [name, def.type === 'prefault' ? def.defaultValue : ''];
  });
  expect(vars).toEqual({ ...Object.fromEntries(standard), ...onCloudflare });
  expect(Object.keys(vars ?? {})).toEqual(plain);
});

test('wrangler.toml names each secret one in its comment', () => {
  const comment = /^# The secret ones \(([^)]*)\)/m.exec(wrangler)?.[1] ?? '';
  expect(comment.match(/\w+/g)).toEqual(secrets);
});

test('the bindings of the Worker have each that wrangler.toml sets', () => {
  const bindings = readFileSync('types/bindings.d.ts', 'utf8');
  expect([...bindings.matchAll(/^\t([A-Z\d_]+): string;$/gm)].map(([, name]) => name)).toEqual(plain);
});

test('each says what it does, in a sentence or two that end with a full stop', () => {
  const known = JSON.parse(readFileSync('nix/modules/settings.json', 'utf8'));
  expect(Object.keys(known)).toEqual(names);
  for (const name of names) expect(known[name].meaning, name).toMatch(/^[A-Z`].{15,}\.$/);
});
