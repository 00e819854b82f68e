// What one poll must carry: the full state of a view, or what changed in it since a sequence. Pure. What changes
// with the view itself is transition.ts's.
// The rules that keep a bouncer's set equal to the view: a value is announced again when the decision that
// outlived its winner is taken away, is reported as ended only when nothing bans it any more, and is never in
// both lists (half of the bouncers apply `new` first, half `deleted`).

import type { Row } from './decision.ts';
import { isActive, networksOf, type Mirror } from './mirror.ts';
import { chosen, type Target } from './target.ts';
import { matcher, type Matches, type View } from './view.ts';

export interface Answer {
  /** The change counter that this answer brings a bouncer to. */
  readonly sequence: number;
  readonly added: readonly Row[];
  readonly ended: readonly Row[];
}

/** Every decision of the target, and the tombstones of what nothing bans any more. */
export function fullState(mirror: Mirror, target: Target): Answer {
  const { view } = target;
  const matches = matcher(view);
  const winnerOf = winners(mirror, target);
  const unbanned = mirror.removed.filter((row) => matches(row) && !winnerOf(row));
  return {
    sequence: mirror.sequence,
    added: stateOf(mirror, target),
    ended: view.dedup ? lastOfEach(unbanned) : unbanned,
  };
}

/** What a bouncer with this target has when it has everything. */
export function stateOf(mirror: Mirror, { view, kept }: Target): Row[] {
  if (kept) return [...kept.values()];
  const matches = matcher(view);
  const rows: Row[] = [];
  for (const row of mirror.byId.values()) {
    if (matches(row) && (!view.dedup || longest(mirror, row, matches) === row)) rows.push(row);
  }
  return rows;
}

/** From a row to the decision of the target that stands for its (scope, type, value). */
export function winners(mirror: Mirror, { view, kept }: Target): (row: Row) => Row | undefined {
  if (kept) return (row) => kept.get(keyOf(row));
  const matches = matcher(view);
  return (row) => longest(mirror, row, matches);
}

/**
 * What changed in the view after `since`. The caller has made sure that `since` is not below
 * `mirror.purgedSequence`.
 */
export function changesSince(mirror: Mirror, view: View, since: number): Answer {
  const matches = matcher(view);
  const touched = mirror.added.slice(firstAfter(mirror.added, since, (row) => row.addedSeq));
  const removed = removedSince(mirror, since).filter(matches);

  const added = new Set<Row>();
  for (const row of touched) {
    if (!isActive(mirror, row) || !matches(row)) continue;
    if (!view.dedup || longest(mirror, row, matches) === row) added.add(row);
  }
  const unbanned: Row[] = [];
  for (const row of removed) {
    const winner = longest(mirror, row, matches);
    if (!winner) unbanned.push(row);
    else if (row.untilMs > winner.untilMs) added.add(winner);
  }
  const ended = view.dedup ? lastOfEach(unbanned) : everyTombstone(mirror, unbanned, matches);
  return { sequence: mirror.sequence, added: [...added], ended };
}

/** Active decisions for `GET /v1/decisions`, at most so many as the bouncer may have: neither deduplicated nor ordered by LAPI; here by id. */
export function activeRows(mirror: Mirror, view: View): Row[] {
  const lookUp = view.within?.covering;
  const candidates =
    lookUp && view.within ? networksOf(mirror).covering(view.within.network) : mirror.byId.values();
  const rows: Row[] = [];
  // The index has matched the address already.
  const matches = matcher(lookUp ? { ...view, within: null } : view);
  for (const row of candidates) if (matches(row)) rows.push(row);
  const most = view.limits?.maxDecisions ?? Infinity;
  return (rows.length > most ? chosen(rows, most) : rows).sort((a, b) => a.id - b.id);
}

/** The active decision of the row's (scope, type, value) that lasts longest in the view; ties: the lowest id. */
function longest(mirror: Mirror, of: Row, matches: Matches): Row | undefined {
  let winner: Row | undefined;
  for (const row of mirror.byValue.get(of.value) ?? []) {
    if (row.scope !== of.scope || row.type !== of.type || !matches(row)) continue;
    if (!winner || row.untilMs > winner.untilMs || (row.untilMs === winner.untilMs && row.id < winner.id)) {
      winner = row;
    }
  }
  return winner;
}

export function keyOf(row: Row): string {
  return `${row.scope}\n${row.type}\n${row.value}`;
}

export function lastOfEach(tombstones: readonly Row[]): Row[] {
  return [...new Map(tombstones.map((row) => [keyOf(row), row])).values()];
}

/**
 * Without dedup a client may hold several ids of one value. While one of them lives the others' ends are kept
 * back, since most clients would unban by value; so the last end reports all of them.
 */
export function everyTombstone(mirror: Mirror, unbanned: readonly Row[], matches: Matches): Row[] {
  if (unbanned.length === 0) return [];
  const keys = new Set(unbanned.map(keyOf));
  return mirror.removed.filter((row) => matches(row) && keys.has(keyOf(row)));
}

/** The tombstones after a sequence. */
export function removedSince(mirror: Mirror, since: number): Row[] {
  return mirror.removed.slice(firstAfter(mirror.removed, since, (row) => row.removedSeq));
}

function firstAfter(rows: readonly Row[], since: number, sequenceOf: (row: Row) => number): number {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sequenceOf(rows[middle] as Row) > since) high = middle;
    else low = middle + 1;
  }
  return low;
}
