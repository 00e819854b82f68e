// A live look-up finds what a scan of all decisions finds, whatever came and went before.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Mirror } from '../../src/mirror/memory.ts';
import { matcher, type View } from '../../src/mirror/view.ts';
import { canonicalValue } from '../../src/formats/canonical.ts';
import { formatNetwork, parseNetwork, type Network } from '../../src/formats/ip.ts';
import { activeRows } from '../../src/stream/selection.ts';
import { everything } from '../support/bouncer.ts';
import { decision, eachPrefix, mirrorOf, network, spelled, step, take } from '../support/networks.ts';

const covers = (of: Network): View => ({ ...everything, within: { network: of, covering: true } });

/** What a look-up has to find. */
function scan(mirror: Mirror, view: View): number[] {
  return [...mirror.byId.values()]
    .filter(matcher(view))
    .map((row) => row.id)
    .sort((a, b) => a - b);
}

test('a look-up finds what covers the address, in every spelling, after any changes', () => {
  fc.assert(
    fc.property(
      fc.array(decision, { maxLength: 30 }),
      fc.array(step, { maxLength: 30 }),
      fc.array(network, { minLength: 1, maxLength: 10 }),
      (before, steps, asked) => {
        const mirror = mirrorOf(before);
        for (const next of [undefined, ...steps]) {
          if (next) take(mirror, next);
          for (const of of asked) {
            const view = covers(of);
            const found = activeRows(mirror, view).map(({ id }) => id);
            expect(found).toEqual(scan(mirror, view));
          }
        }
        while (mirror.byId.size > 0) take(mirror, { end: 0 });
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
  const texts = ['192.0.2.77', '2001:db8:a:b:c:d:e:f'].flatMap(eachPrefix);
  const mirror = mirrorOf(texts.map((value) => ({ value, scope: 'Range' })));
  for (const text of texts) {
    const view = covers(parseNetwork(text) as Network);
    const found = activeRows(mirror, view).map(({ value }) => value);
    const prefixBits = Number(text.split('/')[1]);
    expect(found).toHaveLength(prefixBits + 1);
    expect(found).toContain(text);
  }
});
