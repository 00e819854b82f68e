// Which addresses are never banned: the entries of the allow-list, and what they leave of a range. A decision that touches
// one is withheld: no bouncer that the entry is for is served it. A mistake here bans an address that an operator exempted,
// or frees another. Pure.

import { isOfAddresses } from '../formats/canonical.ts';
import type { Row, Withheld } from '../formats/decision.ts';
import { parseNetwork, type Network } from '../formats/ip.ts';
import { samePatterns } from './patterns.ts';

export interface AllowedEntry {
  /** Below 0: it is an engine's. */
  readonly id: number;
  /** An address or a CIDR range, as `formatNetwork` writes it. */
  readonly value: string;
  /** Null: it does not end. */
  readonly expiresMs: number | null;
  /** Whose it is; absent: operators made it here. */
  readonly from?: EngineList | undefined;
  /** For which bouncers it is: patterns of their names (patterns.ts), sorted and each once. Absent: for all. */
  readonly bouncers?: readonly string[] | undefined;
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

/** Some entries, in the order of their addresses, and of those with the same first one the widest before the others. */
interface Nested {
  readonly entries: readonly ReadEntry[];
  /** The place of the narrowest other entry that holds each; -1: none does. */
  readonly around: readonly number[];
  /** The patterns of each and of all that hold it. */
  readonly unions: readonly (readonly string[])[];
  /** What was found for networks with entries in them, by their places. Equal lists are one: there may be 100,000 rows. */
  readonly byPlaces: Map<string, readonly string[]>;
  readonly byText: Map<string, readonly string[]>;
}

/** Where the entries are that share an address with a network. */
interface Places {
  /** The narrowest one that begins before the network and holds it; -1: none does. */
  readonly holder: number;
  /** Those that begin in it: from `first` up to `end`, without that. They hold it or are in it. */
  readonly first: number;
  readonly end: number;
}

/** Some entries: all of them, those for all bouncers as ranges, and the others, which are for some. */
export interface Allowed extends Ranges {
  readonly entries: readonly ReadEntry[];
  readonly some: { readonly v4: Nested; readonly v6: Nested };
}

const noneNested: Nested = {
  entries: [],
  around: [],
  unions: [],
  byPlaces: new Map(),
  byText: new Map(),
};
const noneForSome: Allowed['some'] = { v4: noneNested, v6: noneNested };
export const noneAllowed: Allowed = { entries: [], v4: [], v6: [], some: noneForSome };

/** What is read of values, by them: to read one takes some microseconds, and a list may have 10,000. */
export type ReadValues = ReadonlyMap<string, ReadEntry>;

export function readValues({ entries }: Allowed): Map<string, ReadEntry> {
  return new Map(entries.map((entry) => [entry.value, entry]));
}

/** Undefined: its value is no network. */
export function readEntry(entry: AllowedEntry, known?: ReadValues): ReadEntry | undefined {
  const { id, value, expiresMs, from, bouncers } = entry;
  const read = known?.get(value);
  if (read) return { ...read, id, expiresMs, from, bouncers };
  const network = parseNetwork(value);
  return network && { id, value, expiresMs, from, bouncers, network, ...boundsOf(network) };
}

/** `known`: what is read of their values already. */
export function createAllowed(entries: readonly AllowedEntry[], known?: ReadValues): Allowed {
  const read = entries.map((entry) => readEntry(entry, known)).filter((entry) => entry !== undefined);
  const forSome = read.filter(({ bouncers }) => bouncers);
  if (forSome.length === 0) return { entries: read, ...rangesOf(read), some: noneForSome };
  const forAll = read.filter(({ bouncers }) => !bouncers);
  return { entries: read, ...rangesOf(forAll), some: { v4: nested(forSome, 4), v6: nested(forSome, 16) } };
}

/** What is allowed for a bouncer whose name fits these patterns. */
export function rangesFor(allowed: Allowed, patterns: readonly string[] | undefined): Ranges {
  const { v4, v6, some } = allowed;
  if (!patterns) return { v4, v6 };
  const fitting = new Set(patterns);
  const own = [...some.v4.entries, ...some.v6.entries].filter((entry) => isForAny(entry, fitting));
  return rangesOf([...v4, ...v6, ...own]);
}

function isForAny({ bouncers }: AllowedEntry, patterns: ReadonlySet<string>): boolean {
  return bouncers?.some((pattern) => patterns.has(pattern)) ?? true;
}

export function rangesOf(entries: readonly ReadEntry[]): Ranges {
  const outermost = (length: 4 | 16): ReadEntry[] => {
    const outer: ReadEntry[] = [];
    for (const entry of inOrder(entries, length)) {
      if (entry.last > (outer.at(-1)?.last ?? -1n)) outer.push(entry);
    }
    return outer;
  };
  return { v4: outermost(4), v6: outermost(16) };
}

/** Those of one family. Of two networks one holds the other, or they share nothing: what holds one comes before it. */
function inOrder(entries: readonly ReadEntry[], length: 4 | 16): ReadEntry[] {
  return entries
    .filter(({ network }) => network.bytes.length === length)
    .sort((a, b) => order(a.first, b.first) || order(b.last, a.last));
}

function nested(all: readonly ReadEntry[], length: 4 | 16): Nested {
  const entries = inOrder(all, length);
  const around: number[] = [];
  const unions: (readonly string[])[] = [];
  const byText = new Map<string, readonly string[]>();
  for (const { last, bouncers = [] } of entries) {
    let place = around.length - 1;
    while (place >= 0 && (entries[place] as ReadEntry).last < last) place = around[place] as number;
    around.push(place);
    const held = unions[place] ?? [];
    const isHeld = bouncers.every((pattern) => held.includes(pattern));
    unions.push(isHeld ? held : shared(byText, held.length === 0 ? bouncers : unionOf([held, bouncers])));
  }
  return { entries, around, unions, byPlaces: new Map(), byText };
}

/** The one list of all that are equal. */
function shared(byText: Map<string, readonly string[]>, list: readonly string[]): readonly string[] {
  const text = list.join();
  const known = byText.get(text) ?? list;
  byText.set(text, known);
  return known;
}

/** An entry that shares an address with a network: of several the widest one, or the one with the lowest addresses. */
export function entryOn({ v4, v6 }: Ranges, network: Network): ReadEntry | undefined {
  const ranges = network.bytes.length === 4 ? v4 : v6;
  if (ranges.length === 0) return undefined;
  const { first, last } = boundsOf(network);
  const next = ranges[firstEndingFrom(ranges, first)];
  return next && next.first <= last ? next : undefined;
}

/** The entries for some bouncers that share an address with a network. */
export function entriesForSomeOn({ some }: Allowed, network: Network): ReadEntry[] {
  const of = nestedFor(some, network);
  return entriesAt(of, placesOn(of, network));
}

function nestedFor({ v4, v6 }: Allowed['some'], { bytes }: Network): Nested {
  return bytes.length === 4 ? v4 : v6;
}

function placesOn({ entries, around }: Nested, network: Network): Places {
  const bounds = boundsOf(network);
  const first = firstWhere(entries, (entry) => entry.first >= bounds.first);
  const end = firstWhere(entries, (entry) => entry.first > bounds.last);
  let holder = first - 1;
  while (holder >= 0 && (entries[holder] as ReadEntry).last < bounds.last) holder = around[holder] as number;
  return { holder, first, end };
}

function entriesAt({ entries, around }: Nested, { holder, first, end }: Places): ReadEntry[] {
  const found = entries.slice(first, end);
  for (let place = holder; place >= 0; place = around[place] as number)
    found.push(entries[place] as ReadEntry);
  return found;
}

/** The patterns of the entries for some bouncers that share an address with a network: the same list for the same patterns. */
function patternsOn(of: Nested, network: Network): readonly string[] {
  if (of.entries.length === 0) return [];
  const places = placesOn(of, network);
  const { holder, first, end } = places;
  if (first === end) return of.unions[holder] ?? [];
  // Where one alone begins in it.
  if (first + 1 === end) return of.unions[first] as readonly string[];
  const key = `${first} ${end}`;
  const known = of.byPlaces.get(key);
  if (known) return known;
  const list = shared(of.byText, unionOf(of.unions.slice(first, end)));
  of.byPlaces.set(key, list);
  return list;
}

/** Whether some address of a network is allowed for a bouncer whose name fits these patterns. */
export function isAllowedFor(
  allowed: Allowed,
  network: Network,
  patterns: readonly string[] | undefined,
): boolean {
  if (entryOn(allowed, network)) return true;
  if (!patterns) return false;
  const fitting = new Set(patterns);
  return entriesForSomeOn(allowed, network).some((entry) => isForAny(entry, fitting));
}

/** From whom a decision is to be withheld. Undefined: from nobody. */
export function fromWhom(allowed: Allowed, row: Pick<Row, 'scope' | 'canonicalValue'>): Withheld | undefined {
  if (allowed.entries.length === 0 || !isOfAddresses(row.scope)) return undefined;
  const network = parseNetwork(row.canonicalValue);
  if (!network) return undefined;
  if (entryOn(allowed, network)) return true;
  const patterns = patternsOn(nestedFor(allowed.some, network), network);
  return patterns.length === 0 ? undefined : patterns;
}

/** Whether it is withheld from the same bouncers. */
export function sameWithheld(a: Withheld | undefined, b: Withheld | undefined): boolean {
  return typeof a === 'object' && typeof b === 'object' ? samePatterns(a, b) : a === b;
}

/** All patterns of some lists, sorted and each once. */
export function unionOf(lists: Iterable<Withheld | undefined>): string[] {
  const patterns = new Set<string>();
  for (const list of new Set(lists)) {
    if (typeof list === 'object') for (const pattern of list) patterns.add(pattern);
  }
  return [...patterns].sort();
}

/** The patterns of all entries. */
export function patternsOf({ some: { v4, v6 } }: Allowed): string[] {
  return unionOf([...v4.entries, ...v6.entries].map(({ bouncers }) => bouncers));
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
  return firstWhere(ranges, ({ last }) => last >= address);
}

/** The place of the first one for which something holds that holds for all after it. */
function firstWhere<T>(all: readonly T[], holds: (one: T) => boolean): number {
  let low = 0;
  let high = all.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (holds(all[middle] as T)) high = middle;
    else low = middle + 1;
  }
  return low;
}
