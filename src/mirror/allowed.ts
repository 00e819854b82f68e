// Which addresses are never banned: the entries of the allow-list, and what they leave of a range. A decision that touches
// one is withheld: no bouncer is served it. A mistake here bans an address that an operator exempted, or frees another. Pure.

import { isOfAddresses } from '../formats/canonical.ts';
import type { Row } from '../formats/decision.ts';
import { covers, parseNetwork, type Network } from '../formats/ip.ts';

/** An entry for every bouncer. */
export interface AllowedEntry {
  readonly id: number;
  /** An address or a CIDR range, as `formatNetwork` writes it. */
  readonly value: string;
  /** Null: it does not end. */
  readonly expiresMs: number | null;
}

/** The first and the last address of a network, as numbers. */
interface Bounds {
  readonly first: bigint;
  readonly last: bigint;
}

/** Some networks, without those that others hold, in order. */
export interface Ranges {
  readonly v4: readonly Bounds[];
  readonly v6: readonly Bounds[];
}

/** Some entries, and their networks. */
export interface Allowed extends Ranges {
  readonly entries: readonly AllowedEntry[];
  /** The networks of the entries, each at its place. */
  readonly networks: readonly (Network | undefined)[];
}

export const noneAllowed: Allowed = { entries: [], networks: [], v4: [], v6: [] };

export function createAllowed(entries: readonly AllowedEntry[]): Allowed {
  const networks = entries.map(({ value }) => parseNetwork(value));
  return { entries, networks, ...rangesOf(networks.filter((network) => network !== undefined)) };
}

export function rangesOf(networks: readonly Network[]): Ranges {
  const outermost = (length: number): Bounds[] => {
    const all = networks.filter(({ bytes }) => bytes.length === length).map(boundsOf);
    all.sort((a, b) => order(a.first, b.first) || order(b.last, a.last));
    const outer: Bounds[] = [];
    // Of two networks one holds the other, or they share nothing.
    for (const bounds of all) if (bounds.last > (outer.at(-1)?.last ?? -1n)) outer.push(bounds);
    return outer;
  };
  return { v4: outermost(4), v6: outermost(16) };
}

export function networksOf(values: readonly { readonly value: string }[]): Network[] {
  return values.map(({ value }) => parseNetwork(value)).filter((network) => network !== undefined);
}

/** Whether some address of a network is allowed. */
export function touches({ v4, v6 }: Ranges, network: Network): boolean {
  const ranges = network.bytes.length === 4 ? v4 : v6;
  if (ranges.length === 0) return false;
  const { first, last } = boundsOf(network);
  const next = ranges[firstEndingFrom(ranges, first)];
  return next !== undefined && next.first <= last;
}

/** Whether a decision is withheld. */
export function isWithheld(allowed: Ranges, row: Pick<Row, 'scope' | 'canonicalValue'>): boolean {
  if (allowed.v4.length + allowed.v6.length === 0 || !isOfAddresses(row.scope)) return false;
  const network = parseNetwork(row.canonicalValue);
  return network !== undefined && touches(allowed, network);
}

/** A row as it is served: withheld or not. */
export function withheldBy<Of extends Row>(allowed: Ranges, row: Of): Of {
  return isWithheld(allowed, row) ? { ...row, withheld: true } : row;
}

/** The entries that share an address with a network. */
export function touching({ entries, networks }: Allowed, network: Network): AllowedEntry[] {
  return entries.filter((_, at) => isShared(networks[at], network));
}

/** The first of them. */
export function firstTouching({ entries, networks }: Allowed, network: Network): AllowedEntry | undefined {
  return entries[networks.findIndex((own) => isShared(own, network))];
}

function isShared(own: Network | undefined, network: Network): boolean {
  return own !== undefined && (covers(own, network) || covers(network, own));
}

/** How many addresses of a network are not allowed. */
export function notAllowed({ v4, v6 }: Ranges, network: Network): bigint {
  const { first, last } = boundsOf(network);
  let count = last - first + 1n;
  for (const range of network.bytes.length === 4 ? v4 : v6) {
    const from = range.first > first ? range.first : first;
    const to = range.last < last ? range.last : last;
    if (to >= from) count -= to - from + 1n;
  }
  return count;
}

/** What is left of a network without the allowed addresses: the fewest networks, in order. */
export function withoutAllowed(allowed: Ranges, network: Network): Network[] {
  if (!touches(allowed, network)) return [network];
  const { bytes, prefixBits } = network;
  const { first, last } = boundsOf(network);
  const ranges = bytes.length === 4 ? allowed.v4 : allowed.v6;
  const next = ranges[firstEndingFrom(ranges, first)] as Bounds;
  if (next.first <= first && next.last >= last) return [];
  const upper = [...bytes];
  upper[prefixBits >> 3] = (bytes[prefixBits >> 3] as number) | (128 >> (prefixBits & 7));
  return [bytes, upper].flatMap((half) =>
    withoutAllowed(allowed, { bytes: half, prefixBits: prefixBits + 1 }),
  );
}

function boundsOf({ bytes, prefixBits }: Network): Bounds {
  const first = bytes.reduce((number, byte) => (number << 8n) | BigInt(byte), 0n);
  return { first, last: first | ((1n << BigInt(bytes.length * 8 - prefixBits)) - 1n) };
}

function order(a: bigint, b: bigint): number {
  return a < b ? -1 : Number(a > b);
}

/** The place of the first range that ends at an address or after it. */
function firstEndingFrom(ranges: readonly Bounds[], address: bigint): number {
  let low = 0;
  let high = ranges.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ranges[middle] as Bounds).last >= address) high = middle;
    else low = middle + 1;
  }
  return low;
}
