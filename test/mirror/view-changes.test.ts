// What a view makes of a list that was replaced: its bouncers must not each look at all of it.
import { expect, test } from 'vitest';
import type { Row } from '../../src/formats/decision.ts';
import { applyChange, createMirror } from '../../src/mirror/memory.ts';
import { changesSince } from '../../src/stream/delta.ts';
import { everything } from '../support/bouncer.ts';

const listed = 1000;

/** A decision of a community list that counts how often its origin is read. */
function counted(number: number, addedSeq: number): { row: Row; reads: () => number } {
  const value = `2001:db8::${(number + 1).toString(16)}`;
  let reads = 0;
  const row = {
    id: number + 1,
    rowId: number + 1,
    engine: '',
    engineId: number + 1,
    get origin() {
      reads++;
      return 'CAPI';
    },
    scenario: 'list',
    scope: 'Ip',
    type: 'ban',
    value,
    canonicalValue: value,
    untilMs: Number.MAX_SAFE_INTEGER,
    addedSeq,
    removedSeq: 0,
    removedMs: 0,
  };
  return { row, reads: () => reads };
}

test('many bouncers of one origin look once at a list of another one that was replaced', () => {
  const before = Array.from({ length: listed }, (_, at) => counted(at, at + 1));
  const renewed = before.map((_, at) => counted(at, listed + at + 1));
  const nothing = { values: () => [], of: () => [] };
  const mirror = createMirror(
    before.map(({ row }) => row),
    { sequence: listed, purgedSequence: 0 },
    nothing,
  );
  applyChange(mirror, {
    again: [],
    added: renewed.map(({ row }, at) => ({ row, renewed: before[at]?.row as Row })),
    removed: [],
    sequence: 2 * listed,
  });
  const view = { ...everything, origins: ['crowdsec'] };
  for (let bouncer = 0; bouncer < 100; bouncer++) {
    expect(changesSince(mirror, view, listed - (bouncer % 2)).added).toEqual([]);
  }
  expect(Math.max(...renewed.map(({ reads }) => reads()))).toBeLessThanOrEqual(2);
});
