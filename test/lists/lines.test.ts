// Lists are made one after the other, and devices that ask for the same share one, however fast the feed changes.
import { expect, test } from 'vitest';
import { createLists } from '../../src/lists/lines.ts';
import { listView } from '../../src/lists/entries.ts';
import { readListName } from '../../src/lists/names.ts';
import { readListOptions } from '../../src/lists/options.ts';
import { createMirror } from '../../src/mirror/memory.ts';

test('a list that waits for its turn is the same for all that ask meanwhile', async () => {
  const keptBack = { values: () => [], of: () => [] };
  const mirror = createMirror([], { sequence: 1, purgedSequence: 0 }, keptBack);
  const lists = createLists();
  const ask = (name: string) => {
    const options = readListOptions(readListName(name)!, '', null);
    if (!options.ok) throw new Error('these options can not be read');
    const conditions = { ifNoneMatch: null, ifModifiedSince: null };
    const asked = { options: options.value, conditions, gzip: false, head: true };
    return lists(mirror, listView(null), asked, Date.now());
  };
  const first = ask('plain');
  const waiting = [];
  for (let at = 0; at < 50; at++) {
    mirror.sequence++;
    waiting.push(ask('cidr'));
  }
  const kinds = (await Promise.all([first, ...waiting])).map(({ kind }) => kind);
  expect(new Set(kinds)).toEqual(new Set(['lines']));
});
