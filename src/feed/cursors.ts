// The cursors of the clients that an isolate answers by itself.

import { createGenerations, type Entries, type Generations } from '../runtime/generations.ts';
import { createPackedMap } from '../runtime/packed-map.ts';
import type { PlainCursor } from '../stream/cursor.ts';

/** By client and view. `most`: those that were asked for last are kept, twice as many at the most. */
export function createCursors(most: number): Generations<PlainCursor> {
  return createGenerations(most, () => 1, createPacked);
}

function createPacked(): Entries<PlainCursor> {
  const packed = createPackedMap();
  const cursorOf = (entry: number): PlainCursor => ({
    baseline: packed.numberOf(entry, 0),
    beforeSequence: packed.numberOf(entry, 1),
    lastSequence: packed.numberOf(entry, 2),
  });
  return {
    get(key) {
      const entry = packed.find(key);
      return entry === undefined ? undefined : cursorOf(entry);
    },
    set(key, { baseline, beforeSequence, lastSequence }) {
      packed.set(key, [baseline, beforeSequence, lastSequence]);
    },
    delete(key) {
      const entry = packed.find(key);
      if (entry !== undefined) packed.delete(entry);
    },
    values: () => packed.entries().map(cursorOf),
  };
}
