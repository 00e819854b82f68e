// Which addresses are never banned: the entries of the allow-list, and what they leave of a range. A decision that touches
// one is withheld: no bouncer is served it. A mistake here bans an address that an operator exempted, or frees another. Pure.

import { isOfAddresses } from '../formats/canonical.ts';
import type { Row } from '../formats/decision.ts';
import { parseNetwork, type Network } from '../formats/ip.ts';

/** An entry for every bouncer. */
export interface AllowedEntry {
  /** Below 0: it is an engine's. */
  readonly id: number;
  /** An address or a CIDR range, as `formatNetwork` writes it. */
  readonly value: string;
  /** Null: it does not end. */
  readonly expiresMs: number | null;
  /** Whose it is; absent: operators made it here. */
  readonly from?: EngineList | undefined;
}

/** One of the allow-lists of an engine, which is named by its handle. */
export interface EngineList {
  readonly engine: string;
  readonly list: string;
}

/** The first and the last address of a network, as numbers. */
interface Bounds {
  readonly first: bigint;
  readonly last: bigint;
}

/** Some addresses, in order. */
interface Addresses {
  readonly v4: readonly Bounds[];
  readonly v6: readonly Bounds[];
}

/** An entry and its addresses. */
export interface ReadEntry extends AllowedEntry, Bounds {
  readonly network: Network;
}

/** Some entries, without those whose addresses others hold, in the order of their addresses. */
export interface Ranges {
  readonly v4: readonly ReadEntry[];
  readonly v6: readonly ReadEntry[];
}

/** Some entries: all of them, and as ranges. */
export interface Allowed extends Ranges {
  readonly entries: readonly ReadEntry[];
}

export const noneAllowed: Allowed = { entries: [], v4: [], v6: [] };

/** What is read of values, by them: to read one takes some microseconds, and a list may have 10,000. */
export type ReadValues = ReadonlyMap<string, ReadEntry>;

export function readValues({ entries }: Allowed): Map<string, ReadEntry> {
  return new Map(entries.map((entry) => [entry.value, entry]));
}

/** Undefined: its value is no network. */
export function readEntry(entry: AllowedEntry, known?: ReadValues): ReadEntry | undefined {
  const { id, value, expiresMs, from } = entry;
  const read = known?.get(value);
  if (read) return { ...read, id, expiresMs, from };
  const network = parseNetwork(value);
  return network && { id, value, expiresMs, from, network, ...boundsOf(network) };
}

/** `known`: what is read of their values already. */
export function createAllowed(entries: readonly AllowedEntry[], known?: ReadValues): Allowed {
  const read = entries.map((entry) => readEntry(entry, known)).filter((entry) => entry !== undefined);
  return { entries: read, ...rangesOf(read) };
}

export function rangesOf(entries: readonly ReadEntry[]): Ranges {
  const outermost = (length: number): ReadEntry[] => {
    const all = entries.filter(({ network }) => network.bytes.length === length);
    all.sort((a, b) => order(a.first, b.first) || order(b.last, a.last));
    const outer: ReadEntry[] = [];
    // Of two networks one holds the other, or they share nothing.
    for (const entry of all) if (entry.last > (outer.at(-1)?.last ?? -1n)) outer.push(entry);
    return outer;
  };
  return { v4: outermost(4), v6: outermost(16) };
}

/** An entry that shares an address with a network: of several the widest one, or the one with the lowest addresses. */
export function entryOn({ v4, v6 }: Ranges, network: Network): ReadEntry | undefined {
  const ranges = network.bytes.length === 4 ? v4 : v6;
  if (ranges.length === 0) return undefined;
  const { first, last } = boundsOf(network);
  const next = ranges[firstEndingFrom(ranges, first)];
  return next && next.first <= last ? next : undefined;
}

/** Whether a decision is to be withheld. */
export function isWithheld(allowed: Ranges, row: Pick<Row, 'scope' | 'canonicalValue'>): boolean {
  if (allowed.v4.length + allowed.v6.length === 0 || !isOfAddresses(row.scope)) return false;
  const network = parseNetwork(row.canonicalValue);
  return network !== undefined && entryOn(allowed, network) !== undefined;
}

/** The entries that share an address with one. */
export function touching({ entries }: Allowed, { network, first, last }: ReadEntry): ReadEntry[] {
  const { length } = network.bytes;
  return entries.filter(
    (entry) => entry.network.bytes.length === length && entry.first <= last && entry.last >= first,
  );
}

/** How many addresses of a network are not allowed. */
export function notAllowed({ v4, v6 }: Ranges, network: Network): bigint {
  const { first, last } = boundsOf(network);
  let count = last - first + 1n;
  const ranges = network.bytes.length === 4 ? v4 : v6;
  for (let at = firstEndingFrom(ranges, first); at < ranges.length; at++) {
    const range = ranges[at] as Bounds;
    if (range.first > last) break;
    const from = range.first > first ? range.first : first;
    const to = range.last < last ? range.last : last;
    count -= to - from + 1n;
  }
  return count;
}

/** The addresses that are allowed, with entries side by side as one: between two of these some address is not allowed. */
export function withoutGaps({ v4, v6 }: Ranges): Addresses {
  const join = (ranges: readonly Bounds[]): Bounds[] => {
    const wider: Bounds[] = [];
    for (const { first, last } of ranges) {
      const before = wider.at(-1);
      if (before && first === before.last + 1n) wider[wider.length - 1] = { first: before.first, last };
      else wider.push({ first, last });
    }
    return wider;
  };
  return { v4: join(v4), v6: join(v6) };
}

/** What is left of a network without the allowed addresses: the fewest networks, in order. */
export function* withoutAllowed({ v4, v6 }: Addresses, network: Network): Generator<Network> {
  const ranges = network.bytes.length === 4 ? v4 : v6;
  const waiting = [network];
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const { bytes, prefixBits } = next;
    const { first, last } = boundsOf(next);
    const range = ranges[firstEndingFrom(ranges, first)];
    if (range === undefined || range.first > last) yield next;
    else if (range.first > first || range.last < last) {
      const upper = [...bytes];
      upper[prefixBits >> 3] = (bytes[prefixBits >> 3] as number) | (128 >> (prefixBits & 7));
      waiting.push({ bytes: upper, prefixBits: prefixBits + 1 }, { bytes, prefixBits: prefixBits + 1 });
    }
  }
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
