// What the allow-list leaves of a range, against each address of it.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { covers, formatNetwork, parseNetwork, type Network } from '../../src/formats/ip.ts';
import {
  createAllowed,
  entryOn,
  notAllowed,
  isAllowedFor,
  readEntry,
  entriesForSomeOn,
  touching,
  fromWhom,
  withoutAllowed,
  withoutGaps,
  type ReadEntry,
} from '../../src/mirror/allowed.ts';

const v4 = fc.record({ last: fc.nat(255), prefixBits: fc.integer({ min: 24, max: 32 }) });
const v6 = fc.record({ last: fc.nat(255), prefixBits: fc.integer({ min: 120, max: 128 }) });
const network = fc.oneof(
  v4.map(({ last, prefixBits }) => read(`192.0.2.${last}/${prefixBits}`)),
  v6.map(({ last, prefixBits }) => read(`2001:db8::${last.toString(16)}/${prefixBits}`)),
);

function read(text: string): Network {
  return parseNetwork(text) as Network;
}

const allowedFrom = (networks: readonly Network[]) =>
  createAllowed(networks.map((each, id) => ({ id, value: formatNetwork(each), expiresMs: null })));

/** Every address of the two /24 that the tests take. */
const addresses = Array.from({ length: 256 }, (_, last) => [
  read(`192.0.2.${last}`),
  read(`2001:db8::${last.toString(16)}`),
]).flat();

test('what is left has each address that is not allowed once, and no other', () => {
  fc.assert(
    fc.property(fc.array(network, { maxLength: 12 }), network, (entries, range) => {
      const allowed = allowedFrom(entries);
      const isAllowed = (address: Network) => entries.some((entry) => covers(entry, address));
      const due = addresses.filter((address) => covers(range, address) && !isAllowed(address));
      const left = [...withoutAllowed(allowed, range)];
      const held = addresses.filter((address) => left.some((part) => covers(part, address)));
      expect(held).toEqual(due);
      expect(left.every((part) => covers(range, part))).toBe(true);
      // In order, and no two of them are the halves of one.
      const texts = left.map(formatNetwork);
      expect(new Set(texts).size).toBe(texts.length);
      for (const [at, part] of left.entries()) {
        const after = left[at + 1];
        const wider = { ...part, prefixBits: part.prefixBits - 1 };
        if (
          after?.prefixBits === part.prefixBits &&
          read(formatNetwork(wider)).bytes.join() === part.bytes.join()
        )
          expect(covers(read(formatNetwork(wider)), after)).toBe(false);
      }
      expect(notAllowed(allowed, range)).toBe(BigInt(due.length));
    }),
    { numRuns: 300 },
  );
});

test('a network is touched if an entry is in it, or it is in an entry', () => {
  fc.assert(
    fc.property(fc.array(network, { maxLength: 12 }), network, (entries, range) => {
      const shares = entries.filter((entry) => covers(entry, range) || covers(range, entry));
      const allowed = allowedFrom(entries);
      const texts = shares.map(formatNetwork);
      const asked = readEntry({ id: 0, value: formatNetwork(range), expiresMs: null }) as ReadEntry;
      expect(touching(allowed, asked).map(({ value }) => value)).toEqual(texts);
      const one = entryOn(allowed, range);
      if (one) expect(texts).toContain(one.value);
      else expect(texts).toEqual([]);
    }),
    { numRuns: 300 },
  );
});

test('entries for some bouncers are found as those for all are, and hold for no others', () => {
  const some = fc.record({ network, bouncers: fc.subarray(['a', 'b', 'c'], { minLength: 1 }) });
  fc.assert(
    fc.property(fc.array(some, { maxLength: 12 }), network, (entries, range) => {
      const allowed = createAllowed(
        entries.map((each, id) => ({ ...each, id, value: formatNetwork(each.network), expiresMs: null })),
      );
      const shares = entries.filter((entry) => covers(entry.network, range) || covers(range, entry.network));
      const found = entriesForSomeOn(allowed, range).map(
        ({ value, bouncers }) => `${value} ${bouncers?.join()}`,
      );
      expect(found.sort()).toEqual(
        shares.map((each) => `${formatNetwork(each.network)} ${each.bouncers.join()}`).sort(),
      );
      const patterns = [...new Set(shares.flatMap(({ bouncers }) => bouncers))].sort();
      const row = { scope: 'Range', canonicalValue: formatNetwork(range) };
      expect(fromWhom(allowed, row) ?? []).toEqual(patterns);
      for (const pattern of ['a', 'b', 'c']) {
        expect(isAllowedFor(allowed, range, [pattern])).toBe(patterns.includes(pattern));
      }
      expect(isAllowedFor(allowed, range, undefined)).toBe(false);
    }),
    { numRuns: 300 },
  );
});

test('one address of the whole internet leaves one range for each bit', () => {
  const left = (allowed: Parameters<typeof withoutAllowed>[0], range: string) =>
    [...withoutAllowed(allowed, read(range))].map(formatNetwork);
  const one = allowedFrom([read('192.0.2.1')]);
  expect(left(one, '0.0.0.0/0')).toHaveLength(32);
  expect(left(one, '192.0.2.0/30')).toEqual(['192.0.2.0', '192.0.2.2/31']);
  expect(left(one, '::/0')).toEqual(['::/0']);
  expect(left(allowedFrom([read('0.0.0.0/0')]), '192.0.2.0/24')).toEqual([]);
});

test('entries side by side are one range', () => {
  const side = Array.from({ length: 256 }, (_, last) => read(`192.0.2.${last}`));
  const { v4 } = withoutGaps(allowedFrom([...side.toReversed(), read('192.0.3.0/24'), read('198.51.100.1')]));
  expect(v4).toHaveLength(2);
  expect(v4[0]!.last - v4[0]!.first).toBe(511n);
});
