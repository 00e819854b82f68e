// The house: who may import whom. A floor imports from the floors below it only, and no files import each other in a
// circle.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { expect, test } from 'vitest';
import { version } from '../../src/config/version.ts';

/** From the top floor down; docs/architecture.md says what each is. */
const floors = [
  ['index.ts'],
  ['app.ts'],
  ['console'],
  ['api.ts'],
  ['lapi', 'decisions', 'allowlist', 'metrics', 'webhooks'],
  ['hosts'],
  ['machines'],
  ['operators'],
  ['bouncers'],
  ['operations'],
  ['feed'],
  ['events'],
  ['writer'],
  ['engines'],
  ['lists'],
  ['stream'],
  ['counters'],
  ['mirror'],
  ['store', 'env.ts'],
  ['crypto'],
  ['http'],
  ['config'],
  ['formats'],
  ['runtime'],
];

const source = new URL('../../src/', import.meta.url).pathname;
const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((name) =>
  /\.tsx?$/.test(name),
);
const imports = new Map(files.map((file) => [file, importsOf(file)]));

function importsOf(file: string): string[] {
  const text = readFileSync(join(source, file), 'utf8');
  return [...text.matchAll(/^(?:import|export)\b[^;]*? from '(\.[^']+)';/gm)].map((match) =>
    normalize(join(dirname(file), match[1]!)),
  );
}

function floorOf(file: string): number {
  const room = file.split('/')[0]!;
  return floors.findIndex((rooms) => rooms.includes(room));
}

/** The files that can be reached from this one by imports. */
function reachedFrom(file: string, reached = new Set<string>()): Set<string> {
  for (const next of imports.get(file) ?? []) {
    if (!reached.has(next)) reachedFrom(next, reached.add(next));
  }
  return reached;
}

test('every file stands on a floor', () => {
  expect(files.length).toBeGreaterThan(50);
  expect(files.filter((file) => floorOf(file) === -1)).toEqual([]);
});

test('no import leads up, or across a floor', () => {
  const wrong = files.flatMap((file) =>
    imports
      .get(file)!
      .filter((to) => file.split('/')[0] !== to.split('/')[0] && floorOf(to) <= floorOf(file))
      .map((to) => `${file} → ${to}`),
  );
  expect(wrong).toEqual([]);
});

test('no files import each other in a circle', () => {
  expect(files.filter((file) => reachedFrom(file).has(file))).toEqual([]);
});

test('no file is longer than 400 lines', () => {
  const long = files.filter((file) => readFileSync(join(source, file), 'utf8').split('\n').length > 401);
  expect(long).toEqual([]);
});

test('the version is that of the package', () => {
  const { version: packaged } = JSON.parse(readFileSync(join(source, '../package.json'), 'utf8'));
  expect(version).toBe(packaged);
});
