// How many removals the feed remembers. A tombstone brings an unban to a bouncer that was away. One that is deleted too
// early leaves a ban in every bouncer that has no clock of its own. Too many use up the object's memory at every start.

import { sameNetwork } from '../formats/canonical.ts';
import { contentKey, sameText, type Row } from '../formats/decision.ts';
import type { Mirror } from './memory.ts';

/** In workerd some 15 MB, beside 30 MB for 100,000 decisions. It is a day of one removal a second. */
const mostTombstones = 100_000;
/** So many are deleted at once, since each purge looks at every row in storage. */
const purgedAtOnce = 10_000;

/** Younger tombstones stay beyond that, so that pollers get the removals of a whole list. */
const youngMs = 10 * 60_000;
/** Beyond this young ones are deleted too. They take no more room than their decisions did. */
const mostYoungTombstones = 300_000;

/** How many tombstones may stay, young ones included: with a ceiling, those of a whole list that was replaced. */
export function mostAtOnce(maxDecisions: number): number {
  return Math.min(mostYoungTombstones, Math.max(mostTombstones, maxDecisions));
}

/** At most so many tombstones stay since a younger removal of their network has to go out with them. */
const mostWaiting = purgedAtOnce;

/** Two sequences of the past, that separate old tombstones from young ones. */
export interface Marks {
  /** Tombstones up to here are not young any more. */
  older: number;
  newer: { readonly sequence: number; readonly atMs: number };
}

/** At a start the age of tombstones is not known, so all count as young. */
export function createMarks({ purgedSequence, sequence }: Mirror, nowMs: number): Marks {
  return { older: purgedSequence, newer: { sequence, atMs: nowMs } };
}

/** The sequence up to which tombstones may be deleted: those from before `cutoffMs`, and those that are too many. */
export function forgettable(
  mirror: Mirror,
  marks: Marks,
  { most, cutoffMs }: { readonly most: number; readonly cutoffMs: number },
  nowMs: number,
): number {
  moveMarks(mirror, marks, nowMs);
  const { removed, purgedSequence } = mirror;
  const before = (count: number): number => removed[count - 1]?.removedSeq ?? purgedSequence;
  const kept = removed.findIndex((row) => row.removedMs >= cutoffMs);
  const expired = before(kept < 0 ? removed.length : kept);
  const tooMany =
    removed.length <= mostTombstones ? 0 : before(removed.length - mostTombstones + purgedAtOnce);
  const farTooMany = removed.length <= most + purgedAtOnce ? 0 : before(removed.length - most);
  return Math.max(expired, Math.min(tooMany, marks.older), farTooMany);
}

/**
 * The tombstones up to a sequence that must not be lost, one of each content. `keptBack`: their network is banned under
 * another spelling, so they are needed when that ban is removed. `waiting`: the last removal of their network is younger,
 * and they go out with it.
 */
export function outlastingUpTo({ respelled, byCanonicalValue }: Mirror, sequence: number) {
  const keptBack: Row[] = [];
  const waiting: Row[] = [];
  for (const [value, ended] of respelled) {
    const old = new Map(
      ended.filter((row) => row.removedSeq <= sequence).map((row) => [contentKey(row), row]),
    );
    const young = ended.filter((row) => row.removedSeq > sequence);
    const active = (byCanonicalValue.get(value) ?? []).filter(({ withheld }) => withheld !== true);
    for (const row of old.values()) {
      if (isKeptBack(active, row)) keptBack.push(row);
      else if (isKeptBack([...active, ...young], row)) waiting.push(row);
    }
  }
  waiting.sort((a, b) => a.removedSeq - b.removedSeq);
  return { keptBack, waiting: waiting.slice(-mostWaiting) };
}

/** Whether a removal has to wait for one of these rows: same network, other spelling, and none with the same content. */
export function isKeptBack(others: readonly Row[], row: Row): boolean {
  return (
    others.some((other) => sameNetwork(other, row) && !sameText(other, row)) &&
    !others.some((other) => contentKey(other) === contentKey(row))
  );
}

function moveMarks({ sequence }: Mirror, marks: Marks, nowMs: number): void {
  const ageMs = nowMs - marks.newer.atMs;
  if (ageMs >= 0 && ageMs < youngMs) return;
  // After the clock was set back the minutes are counted anew.
  if (ageMs >= youngMs) marks.older = marks.newer.sequence;
  marks.newer = { sequence, atMs: nowMs };
}
