// A live look-up finds what a scan of all decisions finds, whatever came and went before.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { applyChange, createMirror, type Mirror } from '../../src/mirror/memory.ts';
import { matcher, type View } from '../../src/mirror/view.ts';
import { canonicalValue } from '../../src/formats/canonical.ts';
import { formatNetwork, parseNetwork, type Network } from '../../src/formats/ip.ts';
import type { Row } from '../../src/formats/decision.ts';
import { activeRows } from '../../src/stream/selection.ts';
import { everything } from '../support/bouncer.ts';
import { rowOf, scope, spelled } from '../support/networks.ts';

const decision = fc.record({ value: spelled, scope });
const network = spelled.map(parseNetwork).filter((read) => read !== undefined);
type Step = { add: { value: string; scope: string } } | { end: number } | { renew: number };
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ add: decision }) },
  fc.record({ end: fc.nat(99) }),
  fc.record({ renew: fc.nat(99) }),
);

const covers = (of: Network): View => ({ ...everything, within: { network: of, covering: true } });

function scan(mirror: Mirror, view: View): number[] {
  return [...mirror.byId.values()]
    .filter(matcher(view))
    .map((row) => row.id)
    .sort((a, b) => a - b);
}

function take(mirror: Mirror, step: Step): void {
  const active = [...mirror.byId.values()];
  const change = { again: [], added: [], removed: [] };
  const sequence = mirror.sequence + 1;
  if ('add' in step) {
    const added = [{ row: rowOf(sequence, step.add) }];
    return applyChange(mirror, { ...change, added, sequence });
  }
  if (active.length === 0) return;
  const row = active[('end' in step ? step.end : step.renew) % active.length] as Row;
  if ('end' in step) {
    return applyChange(mirror, { ...change, removed: [{ row, seq: sequence, atMs: 1 }], sequence });
  }
  const added = [{ row: { ...row, addedSeq: sequence }, renewed: row }];
  applyChange(mirror, { ...change, added, sequence });
}

test('a look-up finds what covers the address, in every spelling, after any changes', () => {
  fc.assert(
    fc.property(
      fc.array(decision, { maxLength: 30 }),
      fc.array(step, { maxLength: 30 }),
      fc.array(network, { minLength: 1, maxLength: 10 }),
      (before, steps, asked) => {
        const rows = before.map((each, index) => rowOf(index + 1, each));
        const keptBack = { values: () => [], of: () => [] };
        const mirror = createMirror(rows, { sequence: rows.length, purgedSequence: 0 }, keptBack);
        for (const next of [undefined, ...steps]) {
          if (next) take(mirror, next);
          for (const of of asked) {
            const view = covers(of);
            const found = activeRows(mirror, view).map(({ id }) => id);
            expect(found).toEqual(scan(mirror, view));
          }
        }
        for (const row of [...mirror.byId.values()]) {
          applyChange(mirror, {
            again: [],
            added: [],
            removed: [{ row, seq: mirror.sequence + 1, atMs: 1 }],
            sequence: mirror.sequence + 1,
          });
        }
        expect([...mirror.prefixes.v4, ...mirror.prefixes.v6]).toEqual([]);
      },
    ),
    { numRuns: 500 },
  );
});

test('all spellings of a network have the same canonical value', () => {
  fc.assert(
    fc.property(spelled, (value) => {
      const read = parseNetwork(value);
      expect(canonicalValue('Ip', value)).toBe(read ? formatNetwork(read) : value);
    }),
    { numRuns: 5_000 },
  );
});

test('every prefix length is found, of both families', () => {
  const addresses = ['192.0.2.77', '2001:db8:a:b:c:d:e:f'];
  const texts = addresses.flatMap((address) => {
    const bits = address.includes(':') ? 128 : 32;
    return Array.from({ length: bits + 1 }, (_, prefixBits) => `${address}/${prefixBits}`);
  });
  const rows = texts.map((value, index) => rowOf(index + 1, { value, scope: 'Range' }));
  const keptBack = { values: () => [], of: () => [] };
  const mirror = createMirror(rows, { sequence: rows.length, purgedSequence: 0 }, keptBack);
  for (const text of texts) {
    const view = covers(parseNetwork(text) as Network);
    const found = activeRows(mirror, view).map(({ value }) => value);
    const prefixBits = Number(text.split('/')[1]);
    expect(found).toHaveLength(prefixBits + 1);
    expect(found).toContain(text);
  }
});
