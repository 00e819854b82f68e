// Which decisions a view selects now: the longest of each value, the best under a cap, those on a network. Pure.

import { sameNetwork } from '../formats/canonical.ts';
import { sameText, type Decision, type Row } from '../formats/decision.ts';
import { covering } from '../mirror/covering.ts';
import { isAllowedFor } from '../mirror/allowed.ts';
import type { Mirror } from '../mirror/memory.ts';
import { matcher, passing, type Matches, type View } from '../mirror/view.ts';

/** What a bouncer is to have: the decisions of a view, or some of them under a cap. */
export interface Selection {
  readonly view: View;
  /** Under a cap: the selected decisions by `keyOf`. Null: all decisions of the view. */
  readonly capped: ReadonlyMap<string, Row> | null;
}

/** Whether an engine or an operator made it. All other decisions come from community lists or blocklists. */
export function isOwn({ origin }: Decision): boolean {
  return origin !== 'CAPI' && !origin.startsWith('lists');
}

/**
 * The `most` decisions for a device with a small table: own ones first, then those that last longest. They are ordered by
 * their ends, so the choice changes with the decisions and never with the clock.
 */
export function chosen(rows: readonly Row[], most: number): Row[] {
  if (rows.length <= most) return [...rows];
  const own = rows.filter(isOwn);
  if (own.length >= most) return longestLasting(own, most);
  const others = rows.filter((row) => !isOwn(row));
  return [...own, ...longestLasting(others, most - own.length)];
}

/** Finds the least end by a fast numeric sort, so that only few of 100,000 rows are sorted by a comparison. */
function longestLasting(rows: readonly Row[], most: number): Row[] {
  const ends = Float64Array.from(rows, (row) => row.untilMs).sort();
  const least = ends[ends.length - most] as number;
  return rows
    .filter((row) => row.untilMs >= least)
    .sort((a, b) => b.untilMs - a.untilMs || a.rowId - b.rowId)
    .slice(0, most);
}

/** Every decision of the selection. */
export function selectedRows(mirror: Mirror, { view, capped }: Selection): Row[] {
  if (capped) return [...capped.values()];
  const matches = matcher(view);
  const rows: Row[] = [];
  for (const row of mirror.byId.values()) {
    if (matches(row) && (!view.dedup || longest(mirror, row, matches) === row)) rows.push(row);
  }
  return rows;
}

const none: readonly Row[] = [];

/**
 * Finds the selected decisions on a row's network: the longest one for each spelling. None: the selection does not ban
 * the network.
 */
export function bansOn(mirror: Mirror, { view, capped }: Selection): (row: Row) => readonly Row[] {
  const byValue = capped
    ? Map.groupBy(capped.values(), ({ canonicalValue }) => canonicalValue)
    : mirror.byCanonicalValue;
  const matches = capped ? () => true : matcher(view);
  return (of) => {
    const siblings = byValue.get(of.canonicalValue);
    if (!siblings) return none;
    const found: Row[] = [];
    for (const row of siblings) {
      if (!sameNetwork(row, of) || !matches(row)) continue;
      const at = found.findIndex((other) => sameText(other, row));
      if (at < 0) found.push(row);
      else if (outlives(row, found[at] as Row)) found[at] = row;
    }
    return found;
  };
}

/**
 * Active decisions for `GET /v1/decisions`, by id and within the bouncer's cap. LAPI neither deduplicates nor orders them.
 */
export function activeRows(mirror: Mirror, view: View): Row[] {
  const lookUp = view.within?.covering ? view.within : undefined;
  const candidates = lookUp ? covering(mirror, lookUp.network) : mirror.byId.values();
  const rows: Row[] = [];
  // All that cover an allowed address are withheld.
  if (lookUp && isAllowedFor(mirror.allowed, lookUp.network, view.patterns)) return rows;
  // Those that cover the address need not be matched with it again. A range that is withheld since another address of it is
  // allowed covers this one all the same.
  const matches = lookUp ? passing({ ...view, within: null }) : matcher(view);
  for (const row of candidates) if (matches(row)) rows.push(row);
  const most = view.limits?.maxDecisions ?? Infinity;
  return (rows.length > most ? chosen(rows, most) : rows).sort((a, b) => a.id - b.id);
}

/** Clients read only the first decision on an address: it is the strictest one that lasts longest. */
export function byStrictness(a: Row, b: Row): number {
  return Number(b.type === 'ban') - Number(a.type === 'ban') || b.untilMs - a.untilMs;
}

/** The active decision of the row's (scope, type, value) that lasts longest in the view; ties: the lowest id. */
export function longest(mirror: Mirror, of: Row, matches: Matches): Row | undefined {
  let winner: Row | undefined;
  for (const row of mirror.byCanonicalValue.get(of.canonicalValue) ?? []) {
    if (sameText(row, of) && matches(row) && (!winner || outlives(row, winner))) winner = row;
  }
  return winner;
}

export function outlives(row: Row, other: Row): boolean {
  return row.untilMs > other.untilMs || (row.untilMs === other.untilMs && row.id < other.id);
}

export function keyOf(row: Row): string {
  return `${row.scope}\n${row.type}\n${row.value}`;
}
