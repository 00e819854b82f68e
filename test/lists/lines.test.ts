// Lists are made one after the other, and devices that ask for the same share one, however fast the feed changes.
import { expect, test } from 'vitest';
import { createLists } from '../../src/lists/lines.ts';
import { listView } from '../../src/lists/entries.ts';
import { readListName } from '../../src/lists/names.ts';
import { readListOptions } from '../../src/lists/options.ts';
import { createRow } from '../../src/mirror/decisions.sql.ts';
import { createMirror, insert } from '../../src/mirror/memory.ts';

function setUp() {
  const keptBack = { values: () => [], of: () => [] };
  const mirror = createMirror([], { sequence: 1, purgedSequence: 0 }, keptBack);
  const lists = createLists();
  const ask = (name: string, search = '', view = listView(null)) => {
    const options = readListOptions(readListName(name)!, search, null);
    if (!options.ok) throw new Error('these options can not be read');
    const conditions = { ifNoneMatch: null, ifModifiedSince: null };
    const asked = { options: options.value, conditions, gzip: false, head: true };
    return lists(mirror, view, asked, Date.now());
  };
  return { mirror, ask };
}

test('a hundred different ones wait for their turns; one more is not kept waiting, and is made when they are', async () => {
  const { ask } = setUp();
  const asked = Array.from({ length: 101 }, (_, at) => ask('plain', `limit=${at + 1}`));
  const kinds = (await Promise.all(asked)).map(({ kind }) => kind);
  expect(kinds.filter((kind) => kind === 'lines')).toHaveLength(100);
  expect(kinds.at(-1)).toBe('busy');
  expect((await ask('plain', 'limit=101')).kind).toBe('lines');
});

test('one that waits is the same for all that ask for it, however many others are made before', async () => {
  const { mirror, ask } = setUp();
  let looks = 0;
  const { values } = mirror.byCanonicalValue;
  mirror.byCanonicalValue.values = () => (looks++, values.call(mirror.byCanonicalValue));
  const asked = Array.from({ length: 60 }, (_, at) => ask('plain', `limit=${at + 1}`));
  await asked[0];
  const again = Array.from({ length: 60 }, (_, at) => ask('plain', `limit=${at + 1}`));
  await Promise.all([...asked, ...again]);
  // The first of all was kept, since it was made.
  expect(looks).toBe(60);
});

test('one that waits is made anew where other addresses were allowed for its bouncer meanwhile', async () => {
  const { mirror, ask } = setUp();
  const row = { rowId: 1, engine: 'default', engineId: 1 };
  const said = { id: 1, origin: 'CAPI', scenario: 'x', scope: 'Ip', type: 'ban', value: '192.0.2.1' };
  const banned = { ...createRow(row, { ...said, untilMs: Date.now() + 3_600_000 }, 1), withheld: ['web-1'] };
  insert(mirror, banned);
  mirror.patterns = ['web-*'];
  const waiting = [ask('cidr'), ask('plain', '', { ...listView(null), bouncer: 'web-1' })];
  mirror.patterns = ['web-1'];
  const [, list] = await Promise.all(waiting);
  expect(list).toMatchObject({ kind: 'lines', bytes: 0 });
});

test('a list that waits for its turn is the same for all that ask meanwhile', async () => {
  const { mirror, ask } = setUp();
  const first = ask('plain');
  const waiting = [];
  for (let at = 0; at < 50; at++) {
    mirror.sequence++;
    waiting.push(ask('cidr'));
  }
  const kinds = (await Promise.all([first, ...waiting])).map(({ kind }) => kind);
  expect(new Set(kinds)).toEqual(new Set(['lines']));
});
