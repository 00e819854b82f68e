// Merging, held against sets of addresses: of a small space every address is looked at.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatNetwork, parseNetwork, type Network } from '../../src/formats/ip.ts';
import { createNetworks, distinct, inOrder, merge, setNetwork, type Joined } from '../../src/lists/merge.ts';

function columnsOf(networks: readonly Network[]) {
  const columns = createNetworks(networks[0]?.bytes.length === 16 ? 4 : 1, networks.length);
  networks.forEach(({ bytes, prefixBits }, at) => setNetwork(columns, at, bytes, prefixBits));
  return columns;
}

const inPlace = async () => {};

async function mergedOf(networks: readonly Network[]) {
  const columns = columnsOf(networks);
  const joined: [number, number, Joined][] = [];
  const order = await inOrder(columns, networks.length, inPlace);
  const kept = await merge(columns, order, (...join) => joined.push(join), inPlace);
  const texts = [...kept].map((at) =>
    formatNetwork({ bytes: networks[at].bytes, prefixBits: columns.prefixes[at] }),
  );
  return { texts, joined };
}

const merged = async (...texts: string[]) => (await mergedOf(texts.map((text) => parseNetwork(text)!))).texts;

/** Bits of host in the space of a property: 64 addresses. */
const spaceBits = 6;

/** A network in the last 64 addresses of a space. `before`: the first bytes of each address. */
const inSpace = (before: readonly number[]) =>
  fc.tuple(fc.nat(63), fc.nat(spaceBits)).map(([last, hostBits]): Network => {
    const bits = 8 * (before.length + 1);
    return { bytes: [...before, 192 + ((last >> hostBits) << hostBits)], prefixBits: bits - hostBits };
  });

const spaces = [
  ['IPv4', [192, 0, 2]],
  ['IPv4, with the highest bit', [203, 0, 113]],
  ['IPv6', [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
] as const;

function addressesOf({ bytes, prefixBits }: Network): number[] {
  const first = bytes.at(-1)!;
  return Array.from({ length: 2 ** (8 * bytes.length - prefixBits) }, (_, at) => first + at);
}

const setOf = (networks: readonly Network[]) => [...new Set(networks.flatMap(addressesOf))].sort();

/** The fewest networks that cover a set of addresses: halve, and look. */
function fewest(addresses: ReadonlySet<number>, first: number, hostBits: number): number {
  const all = Array.from({ length: 2 ** hostBits }, (_, at) => addresses.has(first + at));
  if (all.every(Boolean)) return 1;
  if (!all.some(Boolean)) return 0;
  const half = 2 ** (hostBits - 1);
  return fewest(addresses, first, hostBits - 1) + fewest(addresses, first + half, hostBits - 1);
}

test.each(spaces)('%s: never an address more or less, and no list is shorter', async (_, before) => {
  await fc.assert(
    fc.asyncProperty(fc.array(inSpace(before), { minLength: 1, maxLength: 40 }), async (networks) => {
      const { texts } = await mergedOf(networks);
      const left = texts.map((text) => parseNetwork(text)!);
      expect(setOf(left)).toEqual(setOf(networks));
      expect(left).toHaveLength(fewest(new Set(networks.flatMap(addressesOf)), 192, spaceBits));
    }),
    { numRuns: 300 },
  );
});

test.each(spaces)('%s: what is joined is told once, into what is there at that time', async (_, before) => {
  await fc.assert(
    fc.asyncProperty(fc.array(inSpace(before), { minLength: 1, maxLength: 40 }), async (networks) => {
      const { texts, joined } = await mergedOf(networks);
      const gone = new Set<number>();
      for (const [into, other] of joined) {
        expect([gone.has(into), gone.has(other)]).toEqual([false, false]);
        gone.add(other);
      }
      expect(texts).toHaveLength(networks.length - gone.size);
    }),
  );
});

test('in the order of addresses, whatever order they come in', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(inSpace([192, 0, 2]), { minLength: 1 }), async (networks) => {
      const turned = await mergedOf(networks.toReversed());
      expect(turned.texts).toEqual((await mergedOf(networks)).texts);
    }),
  );
});

/** Of any addresses, some of them close to one another. */
const anywhere = (length: number) =>
  fc
    .tuple(
      fc.array(fc.constantFrom(0, 1, 127, 128, 255), { minLength: length, maxLength: length }),
      fc.nat(8 * length),
    )
    .map(([bytes, prefixBits]) =>
      parseNetwork(`${formatNetwork({ bytes, prefixBits: 8 * length })}/${prefixBits}`)!,
    )
    .filter(({ bytes }) => bytes.length === length);

test.each([4, 16])(
  'sorted by first address, then the widest, then as they come; equal ones once',
  async (length) => {
    await fc.assert(
      fc.asyncProperty(fc.array(anywhere(length), { minLength: 1 }), async (networks) => {
        const columns = columnsOf(networks);
        const order = await inOrder(columns, networks.length, inPlace);
        const key = (at: number) =>
          [...networks[at].bytes, networks[at].prefixBits, at]
            .map((part) => String(part).padStart(4, '0'))
            .join();
        const keys = networks.map((_, at) => key(at));
        expect([...order].map(key)).toEqual(keys.toSorted());
        const gone: number[] = [];
        const join = (into: number, other: number) => {
          expect(networks[other]).toEqual(networks[into]);
          gone.push(other);
        };
        const kept = await distinct(columns, order, join, inPlace);
        const texts = networks.map(formatNetwork);
        expect([...kept].map((at) => texts[at])).toEqual([...new Set([...order].map((at) => texts[at]))]);
        expect([...kept, ...gone].sort((a, b) => a - b)).toEqual(networks.map((_, at) => at));
      }),
    );
  },
);

test('two halves only when both are there', async () => {
  expect(await merged('192.0.2.0', '192.0.2.1')).toEqual(['192.0.2.0/31']);
  expect(await merged('192.0.2.1', '192.0.2.2')).toEqual(['192.0.2.1', '192.0.2.2']);
  expect(await merged('192.0.2.0/25', '192.0.2.128/26', '192.0.2.192/26')).toEqual(['192.0.2.0/24']);
});

test('addresses in a listed range vanish', async () => {
  expect(await merged('192.0.2.7', '192.0.2.0/24', '192.0.2.0', '198.51.100.1')).toEqual([
    '192.0.2.0/24',
    '198.51.100.1',
  ]);
  expect(await merged('2001:db8::/32', '2001:db8::1', '2001:db8:ffff::/48')).toEqual(['2001:db8::/32']);
});

test('over word borders, and up to everything', async () => {
  expect(await merged('2001:db8::/33', '2001:db8:8000::/33')).toEqual(['2001:db8::/32']);
  expect(await merged('2001:db8::/97', '2001:db8::8000:0/97')).toEqual(['2001:db8::/96']);
  expect(await merged('0.0.0.0/1', '128.0.0.0/1')).toEqual(['0.0.0.0/0']);
  expect(await merged('::/1', '8000::/1')).toEqual(['::/0']);
  expect(await merged('0.0.0.0/0', '192.0.2.1')).toEqual(['0.0.0.0/0']);
});
