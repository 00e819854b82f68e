// The filter by which an isolate knows that nothing bans an address: it has every active row, and hardly anything else.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatNetwork, parseNetwork, type Network } from '../../src/formats/ip.ts';
import { createLookupFilter, extend, isFull, mayCover } from '../../src/mirror/lookup-filter.ts';
import type { Mirror } from '../../src/mirror/memory.ts';
import { activeRows } from '../../src/stream/selection.ts';
import { everything } from '../support/bouncer.ts';
import { decision, eachPrefix, mirrorOf, network, step, take, type Spelled } from '../support/networks.ts';

function found(mirror: Mirror, of: Network): number {
  return activeRows(mirror, { ...everything, scopes: null, within: { network: of, covering: true } }).length;
}

function complete(mirror: Mirror, slice = 1_000) {
  const filter = createLookupFilter(mirror.byId.size);
  while (!extend(filter, mirror, slice));
  return filter;
}

test('what it does not have nothing bans, whatever changes while it is made and afterwards', () => {
  fc.assert(
    fc.property(
      fc.array(decision, { maxLength: 30 }),
      fc.array(step, { maxLength: 40 }),
      fc.array(network, { minLength: 1, maxLength: 10 }),
      fc.integer({ min: 1, max: 8 }),
      (before, steps, asked, slice) => {
        const mirror = mirrorOf(before);
        const filter = createLookupFilter(0);
        for (const next of steps) {
          const isComplete = extend(filter, mirror, slice);
          expect(isComplete).toBe(filter.sequence === mirror.sequence);
          const banned = isComplete ? asked.filter((of) => found(mirror, of) > 0) : [];
          expect(banned.filter((of) => !mayCover(filter, of))).toEqual([]);
          take(mirror, next);
        }
        while (!extend(filter, mirror, slice));
        const banned = asked.filter((of) => found(mirror, of) > 0);
        expect(banned.filter((of) => !mayCover(filter, of))).toEqual([]);
      },
    ),
    { numRuns: 1_000 },
  );
});

test.each(['192.0.2.77', '2001:db8:a:b:c:d:e:f'])(
  'every prefix length of %s is one of its own',
  (address) => {
    const networks = eachPrefix(address).map((text) => parseNetwork(text) as Network);
    for (const banned of networks) {
      const filter = complete(mirrorOf([{ value: formatNetwork(banned), scope: 'Range' }]));
      expect(networks.filter((of) => mayCover(filter, of))).toEqual(
        networks.filter(({ prefixBits }) => prefixBits >= banned.prefixBits),
      );
      // The address beside it, which differs in the last bit of the prefix.
      const last = banned.prefixBits - 1;
      const bytes = banned.bytes.map((byte, at) => (at === last >> 3 ? byte ^ (128 >> (last & 7)) : byte));
      if (last >= 0) expect(mayCover(filter, { bytes, prefixBits: bytes.length * 8 })).toBe(false);
    }
  },
);

test('of other addresses hardly one has to be asked about', () => {
  const text = (at: number): string => `2001:db8::${(at >> 16).toString(16)}:${(at & 0xffff).toString(16)}`;
  const rows: Spelled[] = Array.from({ length: 20_000 }, (_, at) => ({ value: text(at), scope: 'Ip' }));
  const mirror = mirrorOf(rows);
  const filter = complete(mirror);
  const asked = Array.from({ length: 20_000 }, (_, at) => parseNetwork(text(at + 100_000)) as Network);
  expect(asked.filter((of) => mayCover(filter, of)).length).toBeLessThan(60);
  expect(asked.filter((of) => mayCover(filter, parseNetwork(`192.0.2.${of.bytes[15]}`) as Network))).toEqual(
    [],
  );
});

test('it is full when a third more rows have come, and not before', () => {
  const mirror = mirrorOf(Array.from({ length: 20_000 }, () => ({ value: '192.0.2.1', scope: 'Ip' })));
  const filter = complete(mirror);
  const ban = (count: number): void => {
    for (let times = 0; times < count; times++) take(mirror, { add: { value: '192.0.2.1', scope: 'Ip' } });
    while (!extend(filter, mirror, 1_000));
  };
  ban(6_000);
  expect(isFull(filter)).toBe(false);
  ban(1_000);
  expect(isFull(filter)).toBe(true);
});
