// What a bouncer is to have now: a view and, under a cap, which of its decisions. Pure.

import type { Decision, Row } from '../formats/decision.ts';
import type { View } from '../mirror/view.ts';

export interface Target {
  readonly view: View;
  /** Under a cap: what is left of the view, by (scope, type, value). Null: all of it. */
  readonly kept: ReadonlyMap<string, Row> | null;
}

/** What an engine, or an operator here, decided on what happened to it; the rest came from a list of others. */
export function isOwn({ origin }: Decision): boolean {
  return origin !== 'CAPI' && !origin.startsWith('lists');
}

/**
 * The `most` decisions that a small device is to have: those of local origin first, then those that last longest.
 * Remaining time orders as its end does, so the choice changes with the decisions and never with the clock.
 */
export function chosen(rows: readonly Row[], most: number): Row[] {
  if (rows.length <= most) return [...rows];
  const own = rows.filter(isOwn);
  if (own.length >= most) return longestOf(own, most);
  const others = rows.filter((row) => !isOwn(row));
  return [...own, ...longestOf(others, most - own.length)];
}

/** Only those at or above the last place are sorted with a comparison: of 100,000 few are. */
function longestOf(rows: readonly Row[], most: number): Row[] {
  const ends = Float64Array.from(rows, (row) => row.untilMs).sort();
  const least = ends[ends.length - most] as number;
  return rows
    .filter((row) => row.untilMs >= least)
    .sort((a, b) => b.untilMs - a.untilMs || a.rowId - b.rowId)
    .slice(0, most);
}
