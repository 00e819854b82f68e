// The way from what a bouncer had to what it is to have, where that is more than changes of the feed: its limits
// were changed, it has a cap, or its cursor is lost. Pure. The rules are answer.ts's: never one value in both
// lists, and an end only for what nothing in the new view bans.

import { announcedAgain, bansOn, everyEnd, fullState, removedSince, stateOf, type Answer } from './answer.ts';
import type { Row } from '../formats/decision.ts';
import type { Mirror } from '../mirror/memory.ts';
import type { Target } from './target.ts';
import { matcher, type View, type Limits } from '../mirror/view.ts';

/** Where a bouncer stood: at a sequence not below `mirror.purgedSequence`, with a basis (null: no limits). */
export interface Standing {
  readonly sequence: number;
  readonly basis: Basis | null;
}

/**
 * From several standings at once, since nobody knows which of the last answers arrived: it is right for each.
 * It may announce what a bouncer has and end what it never had; both are harmless, the opposite is not.
 */
export function transition(mirror: Mirror, target: Target, from: readonly Standing[]): Answer {
  const { view } = target;
  const bansOf = bansOn(mirror, target);
  const state = new Set(stateOf(mirror, target));
  const added = new Set<Row>();
  const ended = new Set<Row>();
  for (const standing of from) {
    const had = whatItHad(mirror, view, standing);
    for (const row of state) if (!had.holds(row)) added.add(row);
    for (const row of had.rows) {
      if (state.has(row)) continue;
      const bans = bansOf(row);
      if (bans.length === 0) ended.add(row);
      for (const ban of announcedAgain(view, row, bans)) added.add(ban);
    }
  }
  return { sequence: mirror.sequence, added: [...added], ended: everyEnd(mirror, view, [...ended]) };
}

/**
 * The full state for a limited bouncer that did not ask for one: nobody knows what it has, which may be all that it
 * had before it was limited. So everything of its view that is not in the target is ended; of tombstones those after
 * `since`, before which it had nothing.
 */
export function fromNothing(mirror: Mirror, target: Target, since: number): Answer {
  const { sequence, added, ended } = fullState(mirror, target, since);
  const rows = [...ended];
  const { view } = target;
  if (view.limits) {
    const bansOf = bansOn(mirror, target);
    const asked = matcher({ ...view, limits: null });
    for (const row of removedSince(mirror, since)) if (asked(row) && bansOf(row).length === 0) rows.push(row);
    for (const row of mirror.byId.values()) if (asked(row) && bansOf(row).length === 0) rows.push(row);
  }
  return { sequence, added, ended: everyEnd(mirror, view, rows) };
}

interface Had {
  /** Rows that the bouncer may have had, those that were removed since among them. */
  readonly rows: readonly Row[];
  /** Whether it had this very row. */
  holds(row: Row): boolean;
}

function whatItHad(mirror: Mirror, view: View, { sequence, basis }: Standing): Had {
  const held = basis?.held ? new Set(basis.held) : null;
  const saw = matcher({ ...view, limits: basis?.limits ?? null });
  // A row keeps its `rowId` when it is renewed. Without a cap rows that came after `sequence` count too: the cursor
  // may be older than what the bouncer was last given.
  const had = (row: Row): boolean => (held ? held.has(row.rowId) : saw(row));
  const rows = removedSince(mirror, sequence).filter(had);
  for (const row of mirror.byId.values()) if (had(row)) rows.push(row);
  return { rows, holds: (row) => row.addedSeq <= sequence && had(row) };
}

export interface Basis {
  /** What it is a basis of: a limited view, or limits without a cap. */
  readonly key: string;
  readonly limits: Limits;
  /** Under a cap: the `rowId`s that the bouncer was left with, ascending. Null: all that the limits let through. */
  readonly held: readonly number[] | null;
}
