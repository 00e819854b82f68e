// What one poll must carry: the full state of a view, or what changed in it since a sequence. Pure. What changes
// with the view itself is transition.ts's.
// The rules that keep a bouncer's set equal to the view: a value is announced again when the decision that
// outlived its winner is taken away, is reported as ended only when nothing bans it any more, and is never in
// both lists (half of the bouncers apply `new` first, half `deleted`).
// Most bouncers compare texts, kernel sets networks. So `new` has a winner for each text, and an end is kept back
// while its network is banned under any text: the last end tells them all.

import { sameNetwork, sameText } from '../formats/canonical.ts';
import type { Row } from '../formats/decision.ts';
import { isActive, networksOf, type Mirror } from '../mirror/memory.ts';
import { chosen, type Target } from './target.ts';
import { matcher, type Matches, type View } from '../mirror/view.ts';

export interface Answer {
  /** The change counter that this answer brings a bouncer to. */
  readonly sequence: number;
  readonly added: readonly Row[];
  readonly ended: readonly Row[];
}

/** Every decision of the target, and the tombstones after `since` of what nothing bans any more. */
export function fullState(mirror: Mirror, target: Target, since: number): Answer {
  const { view } = target;
  const matches = matcher(view);
  const bansOf = bansOn(mirror, target);
  const unbanned = removedSince(mirror, since).filter((row) => matches(row) && bansOf(row).length === 0);
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

const none: readonly Row[] = [];

/**
 * From a row to the decisions of the target on its network: that which stands for each text of it. None: the network is
 * free.
 */
export function bansOn(mirror: Mirror, { view, kept }: Target): (row: Row) => readonly Row[] {
  const byValue = kept
    ? Map.groupBy(kept.values(), ({ canonicalValue }) => canonicalValue)
    : mirror.byCanonicalValue;
  const matches = kept ? () => true : matcher(view);
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

/** Which of the bans that a row leaves on its network are to be announced again. */
export function announcedAgain({ dedup }: View, row: Row, bans: readonly Row[]): readonly Row[] {
  const winner = dedup ? bans.find((other) => sameText(other, row)) : undefined;
  // Its end is kept back, but a kernel's set may have taken its time.
  if (!winner) return bans;
  // The text stays, but not for so long.
  return row.untilMs > winner.untilMs ? [winner] : none;
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
  const bansOf = bansOn(mirror, { view, kept: null });
  const unbanned: Row[] = [];
  for (const row of removed) {
    const bans = bansOf(row);
    if (bans.length === 0) unbanned.push(row);
    for (const ban of announcedAgain(view, row, bans)) added.add(ban);
  }
  return { sequence: mirror.sequence, added: [...added], ended: everyEnd(mirror, view, unbanned) };
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

/** Of the decisions on one address clients read the first: the strictest, which lasts longest. */
export function byStrictness(a: Row, b: Row): number {
  return Number(b.type === 'ban') - Number(a.type === 'ban') || b.untilMs - a.untilMs;
}

/** The active decision of the row's (scope, type, value) that lasts longest in the view; ties: the lowest id. */
function longest(mirror: Mirror, of: Row, matches: Matches): Row | undefined {
  let winner: Row | undefined;
  for (const row of mirror.byCanonicalValue.get(of.canonicalValue) ?? []) {
    if (sameText(row, of) && matches(row) && (!winner || outlives(row, winner))) winner = row;
  }
  return winner;
}

function outlives(row: Row, other: Row): boolean {
  return row.untilMs > other.untilMs || (row.untilMs === other.untilMs && row.id < other.id);
}

export function keyOf(row: Row): string {
  return `${row.scope}\n${row.type}\n${row.value}`;
}

function lastOfEach(rows: readonly Row[]): Row[] {
  return [...new Map(rows.map((row) => [keyOf(row), row])).values()];
}

/**
 * What is to be told when these rows' networks are free: their own ends and those that were kept back, which are of
 * other texts and, without dedup, of other ids. A client without a clock would keep them for ever. The newest first.
 */
export function everyEnd(mirror: Mirror, view: View, unbanned: readonly Row[]): Row[] {
  const several = view.dedup
    ? unbanned.filter(({ canonicalValue }) => mirror.respelled.has(canonicalValue))
    : unbanned;
  const rows = [...(several.length === 0 ? [] : keptBack(mirror, view, several)), ...unbanned];
  return (view.dedup ? lastOfEach(rows) : [...new Set(rows)]).toReversed();
}

/** A bouncer may have had them before its limits were changed: those that are outside count, too. */
function keptBack(mirror: Mirror, view: View, unbanned: readonly Row[]): Row[] {
  const asked = matcher({ ...view, limits: null });
  const byValue = Map.groupBy(unbanned, ({ canonicalValue }) => canonicalValue);
  const isKeptBack = (row: Row): boolean => {
    const freed = byValue.get(row.canonicalValue);
    return freed !== undefined && freed.some((other) => sameNetwork(other, row)) && asked(row);
  };
  const values = [...byValue.keys()];
  const active = values.flatMap((value) => mirror.byCanonicalValue.get(value) ?? []);
  // Without dedup a network of one text has ends that were kept back, too.
  const ended = view.dedup ? values.flatMap((value) => mirror.respelled.get(value) ?? []) : mirror.removed;
  const stored = values.flatMap((value) => (mirror.respelled.has(value) ? mirror.keptBack.of(value) : []));
  return [...stored, ...active, ...ended].filter(isKeptBack);
}

/** The tombstones after a sequence. */
export function removedSince(mirror: Mirror, since: number): Row[] {
  return mirror.removed.slice(firstAfter(mirror.removed, since, (row) => row.removedSeq));
}

/** The newest tombstone up to a sequence, by its own; 0: there is none. Equal where the tombstones after it are. */
export function removedUpTo(mirror: Mirror, sequence: number): number {
  const after = firstAfter(mirror.removed, sequence, (row) => row.removedSeq);
  return mirror.removed[after - 1]?.removedSeq ?? 0;
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
