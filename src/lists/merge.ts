// Networks of one family in columns: their order, and the fewest that have exactly the same addresses. Pure. A mistake here
// bans an address that nobody banned, or frees one.

/** 5 bytes for a network of IPv4, 17 for one of IPv6. */
export interface Networks {
  /** Words of 32 bits in an address: 1 for IPv4, 4 for IPv6. */
  readonly words: 1 | 4;
  /** First addresses, one behind the other. */
  readonly addresses: Uint32Array;
  readonly prefixes: Uint8Array;
}

export function createNetworks(words: 1 | 4, count: number): Networks {
  return { words, addresses: new Uint32Array(words * count), prefixes: new Uint8Array(count) };
}

/** `bytes`: the first address. */
export function setNetwork(
  { words, addresses, prefixes }: Networks,
  at: number,
  bytes: readonly number[],
  prefixBits: number,
): void {
  for (let word = 0; word < words; word++) {
    const [a, b, c, d] = bytes.slice(4 * word, 4 * word + 4) as [number, number, number, number];
    addresses[at * words + word] = (a << 24) | (b << 16) | (c << 8) | d;
  }
  prefixes[at] = prefixBits;
}

/** The words of its first address. */
export function addressAt({ words, addresses }: Networks, at: number): Uint32Array {
  return addresses.subarray(at * words, (at + 1) * words);
}

/**
 * The numbers of the first `count` in the order of first addresses, of equal ones the widest first, of equal networks as they
 * are. By digits of 16 bits from the last to the first: a comparing sort of 100,000 is one turn of 60 ms.
 */
export async function inOrder(
  { words, addresses, prefixes }: Networks,
  count: number,
  pause: () => Promise<void>,
): Promise<Uint32Array> {
  let order = Uint32Array.from({ length: count }, (_, at) => at);
  let sorted = new Uint32Array(count);
  const ends = new Uint32Array(65_536);
  const sortBy = (digitOf: (at: number) => number): void => {
    ends.fill(0);
    for (const at of order) (ends[digitOf(at)] as number)++;
    for (let digit = 1, end = ends[0] as number; digit < ends.length; digit++) {
      ends[digit] = end += ends[digit] as number;
    }
    for (let from = count - 1; from >= 0; from--) {
      const at = order[from] as number;
      const digit = digitOf(at);
      sorted[(ends[digit] = (ends[digit] as number) - 1)] = at;
    }
    [order, sorted] = [sorted, order];
  };
  sortBy((at) => prefixes[at] as number);
  for (let word = words - 1; word >= 0; word--) {
    for (const shift of [0, 16]) {
      await pause();
      sortBy((at) => ((addresses[at * words + word] as number) >>> shift) & 0xffff);
    }
  }
  return order;
}

/** Networks that are looked at in one turn: some milliseconds. */
const sliceNetworks = 8_000;

/** Of equal networks the first. `join`: hears of the others. `order`: as `inOrder` gives it. */
export async function distinct(
  networks: Networks,
  order: Uint32Array,
  join: (into: number, other: number) => void,
  pause: () => Promise<void>,
): Promise<Uint32Array> {
  const { prefixes } = networks;
  const kept = new Uint32Array(order.length);
  let count = 0;
  for (const [at, next] of order.entries()) {
    if (at % sliceNetworks === sliceNetworks - 1) await pause();
    const last = kept[count - 1];
    const isEqual = last !== undefined && prefixes[last] === prefixes[next] && holds(networks, last, next);
    if (isEqual) join(last, next);
    else kept[count++] = next;
  }
  return kept.slice(0, count);
}

/** What became of a network: it was `inside` of one that is kept, or is the second half of it. */
export type Joined = 'inside' | 'half';

/**
 * The fewest networks with exactly these addresses, in their order: what is inside of another goes, and two halves become
 * one, again and again. `order`: as `inOrder` gives it. A joined network keeps the number of its first half, and `prefixes`
 * is changed to what it is then. `join`: hears which network became part of which.
 */
export async function merge(
  networks: Networks,
  order: Uint32Array,
  join: (into: number, other: number, how: Joined) => void,
  pause: () => Promise<void>,
): Promise<Uint32Array> {
  const { prefixes } = networks;
  const kept = new Uint32Array(order.length);
  let count = 0;
  for (const [at, next] of order.entries()) {
    if (at % sliceNetworks === sliceNetworks - 1) await pause();
    // Networks are disjoint or one inside the other, so only the last one can hold this one.
    if (count > 0 && holds(networks, kept[count - 1] as number, next)) {
      join(kept[count - 1] as number, next, 'inside');
      continue;
    }
    kept[count++] = next;
    while (count > 1) {
      const [first, second] = [kept[count - 2] as number, kept[count - 1] as number];
      if (!areHalves(networks, first, second)) break;
      count--;
      join(first, second, 'half');
      prefixes[first] = (prefixes[first] as number) - 1;
    }
  }
  return kept.slice(0, count);
}

function holds(networks: Networks, outer: number, inner: number): boolean {
  const prefixBits = networks.prefixes[outer] as number;
  return prefixBits <= (networks.prefixes[inner] as number) && isShared(networks, outer, inner, prefixBits);
}

/** Of two networks of which neither holds the other. */
function areHalves(networks: Networks, first: number, second: number): boolean {
  const prefixBits = networks.prefixes[first] as number;
  return prefixBits === networks.prefixes[second] && isShared(networks, first, second, prefixBits - 1);
}

/** Whether two addresses begin with the same bits. */
function isShared({ words, addresses }: Networks, a: number, b: number, bits: number): boolean {
  for (let word = 0, left = bits; left > 0; word++, left -= 32) {
    const differing = (addresses[a * words + word] as number) ^ (addresses[b * words + word] as number);
    if (differing >>> Math.max(0, 32 - left) !== 0) return false;
  }
  return true;
}
