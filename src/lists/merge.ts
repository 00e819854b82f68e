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

/** Their numbers in the order of first addresses, of equal ones the widest first. */
export function inOrder(networks: Networks): Uint32Array {
  const { words, addresses, prefixes } = networks;
  const order = new Uint32Array(prefixes.length);
  for (let at = 0; at < order.length; at++) order[at] = at;
  return order.sort((a, b) => {
    for (let word = 0; word < words; word++) {
      const difference = (addresses[a * words + word] as number) - (addresses[b * words + word] as number);
      if (difference !== 0) return difference;
    }
    return (prefixes[a] as number) - (prefixes[b] as number);
  });
}

/** What became of a network: it was `inside` of one that is kept, or is the second half of it. */
export type Joined = 'inside' | 'half';

/**
 * The fewest networks with exactly these addresses, in their order: what is inside of another goes, and two halves become
 * one, again and again. `order`: as `inOrder` gives it. A joined network keeps the number of its first half, and `prefixes`
 * is changed to what it is then. `join`: hears which network became part of which.
 */
export function merge(
  networks: Networks,
  order: Uint32Array,
  join: (into: number, other: number, how: Joined) => void,
): Uint32Array {
  const { prefixes } = networks;
  const kept = new Uint32Array(order.length);
  let count = 0;
  for (const next of order) {
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
