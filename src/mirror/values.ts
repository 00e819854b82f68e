// Active decisions by what they are about, as operators read them: each address, range, country or AS once, with all decisions on
// it, in pages by one of several orders. A page costs one look at all decisions, in slices, so that polls are answered meanwhile.

import { isOfAddresses } from '../formats/canonical.ts';
import type { Row } from '../formats/decision.ts';
import { concerning, listed, passesOf, type Listed, type ListFilter } from './listing.ts';
import type { Store } from './mirror.ts';

/** By what the values are sorted; the least first. Numbers, so that a place in the list is two numbers. */
const orders = {
  /** What was added or renewed last comes first. */
  newest: (rows: readonly Row[]): number => -mostOf(rows, ({ addedSeq }) => addedSeq),
  'ends-first': (rows: readonly Row[]): number => mostOf(rows, ({ untilMs }) => untilMs),
  'ends-last': (rows: readonly Row[]): number => -mostOf(rows, ({ untilMs }) => untilMs),
  'most-decisions': (rows: readonly Row[]): number => -rows.length,
};

export type ValueOrder = keyof typeof orders;
export const valueOrders = Object.keys(orders) as [ValueOrder, ...ValueOrder[]];

/** A place in a list: what the order goes by, then the lowest id of a value's decisions. */
export interface Place {
  readonly key: number;
  readonly id: number;
}

export interface ValuesAsk {
  readonly filter: ListFilter;
  readonly order: ValueOrder;
  /** Null begins. */
  readonly after: Place | null;
  readonly limit: number;
}

/** How many decisions have one origin. `engine` as `Listed` has it. */
export interface OriginCount {
  readonly origin: string;
  readonly engine: string | null;
  readonly decisions: number;
}

/** One address, range, country, AS or other value. */
export interface ListedValue {
  /** How many there are of it. */
  readonly total: number;
  readonly origins: readonly OriginCount[];
  /** Those that were made here, then those that end last: `mostShown` at most. */
  readonly decisions: readonly Listed[];
}

export interface ValuesPage {
  readonly values: readonly ListedValue[];
  /** Of all that fit, not of this page alone. */
  readonly totals: { readonly values: number; readonly decisions: number; readonly madeHere: number };
  /** Null: this was the last page. */
  readonly next: Place | null;
}

/** Of one value. Each engine may have any number on it. */
export const mostShown = 10;
/** Of one value: an engine may make up any number of origins. */
const mostOrigins = 20;
const sliceValues = 10_000;

interface Found extends Place {
  readonly rows: readonly Row[];
}

/** Null: there is and was no engine of the name in the filter. */
export async function pageOfValues(
  store: Store,
  { filter, order, after, limit }: ValuesAsk,
  pause: () => Promise<unknown>,
): Promise<ValuesPage | null> {
  const passes = passesOf(store, filter);
  if (!passes) return null;
  const { mirror } = store;
  const all =
    filter.value === undefined
      ? [...mirror.byCanonicalValue.values()]
      : [[...concerning(mirror, filter.value)]];
  const totals = { values: 0, decisions: 0, madeHere: 0 };
  const keyOf = orders[order];
  // One more than the page, which says whether there is another.
  let first: Found[] = [];
  for (const [index, rows] of all.entries()) {
    if (index > 0 && index % sliceValues === 0) await pause();
    for (const own of byValue(rows.filter((row) => row.removedSeq === 0 && passes(row)))) {
      totals.values++;
      totals.decisions += own.length;
      totals.madeHere += own.filter(({ engine }) => engine === '').length;
      const found = { key: keyOf(own), id: -mostOf(own, ({ id }) => -id), rows: own };
      if (after === null || compare(found, after) > 0) first.push(found);
      if (first.length > 2 * limit + 1) first = first.sort(compare).slice(0, limit + 1);
    }
  }
  first = first.sort(compare).slice(0, limit + 1);
  const shown = first.slice(0, limit);
  const { key, id } = shown.at(-1) ?? { key: 0, id: 0 };
  return {
    values: shown.map(({ rows }) => listedValue(store, rows)),
    totals,
    next: first.length > limit ? { key, id } : null,
  };
}

function compare(a: Place, b: Place): number {
  return a.key - b.key || a.id - b.id;
}

/** Rows of one canonical value, or of several, by what they are about. Mostly there is one. */
function byValue(rows: readonly Row[]): Iterable<readonly Row[]> {
  if (rows.length === 0) return [];
  if (rows.length === 1) return [rows];
  const nameOf = ({ scope, canonicalValue }: Row): string => {
    return `${isOfAddresses(scope) ? 'Ip' : scope}\n${canonicalValue}`;
  };
  return Map.groupBy(rows, nameOf).values();
}

/** What is decided here first, then what ends last. */
function listedValue(store: Store, rows: readonly Row[]): ListedValue {
  const sorted = rows.toSorted(
    (a, b) => Number(b.engine === '') - Number(a.engine === '') || b.untilMs - a.untilMs,
  );
  const origins = Map.groupBy(listed(store, sorted), ({ origin, engine }) =>
    JSON.stringify([origin, engine]),
  );
  const counts = [...origins.values()].map((own): OriginCount => {
    const { origin, engine } = own[0] as Listed;
    return { origin, engine, decisions: own.length };
  });
  return {
    total: rows.length,
    origins: counts.slice(0, mostOrigins),
    decisions: listed(store, sorted.slice(0, mostShown)),
  };
}

function mostOf(rows: readonly Row[], of: (row: Row) => number): number {
  let most = -Infinity;
  for (const row of rows) most = Math.max(most, of(row));
  return most;
}
