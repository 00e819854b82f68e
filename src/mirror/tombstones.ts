// How many ends the feed remembers. A tombstone tells a bouncer that was away of an unban: one that goes too early
// leaves a ban in every bouncer without a clock of its own, too many of them end the object, again at each wake.

import { sameNetwork, sameText } from '../formats/canonical.ts';
import { contentKey, type Row } from '../formats/decision.ts';
import type { Mirror } from './memory.ts';

/** In workerd some 15 MB, beside 30 MB for 100,000 decisions: a day of one end a second. */
const mostTombstones = 100_000;
/** So many go when there are more: each purge looks at every row in storage. */
const purgedAtOnce = 10_000;

/** Younger ones stay beyond that, so that a list that goes at once is told to whoever polls. */
const youngMs = 10 * 60_000;
/** They take no more room than the decisions that they were. More than this are purged all the same. */
const mostYoungTombstones = 300_000;

/**
 * How many tombstones, young ones too, are left when there are some more: where there is a ceiling, those of a whole list
 * that was replaced.
 */
export function mostAtOnce(maxDecisions: number): number {
  return Math.min(mostYoungTombstones, Math.max(mostTombstones, maxDecisions));
}

/** Of the ends that are told with a younger one of their network no more than this outlast their time. */
const mostWaiting = purgedAtOnce;

/** Where the feed stood, so that what is older than some minutes can be told from what is younger. */
export interface Marks {
  /** What came up to here is not young any more. */
  older: number;
  newer: { readonly sequence: number; readonly atMs: number };
}

/** At a wake: how old things are is not known, so all of them are young. */
export function createMarks({ purgedSequence, sequence }: Mirror, nowMs: number): Marks {
  return { older: purgedSequence, newer: { sequence, atMs: nowMs } };
}

/** The sequence up to which tombstones may go: those that ended before `cutoffMs`, and those that are too many. */
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
  const old = before(kept < 0 ? removed.length : kept);
  const tooMany =
    removed.length <= mostTombstones ? 0 : before(removed.length - mostTombstones + purgedAtOnce);
  const farTooMany = removed.length <= most + purgedAtOnce ? 0 : before(removed.length - most);
  return Math.max(old, Math.min(tooMany, marks.older), farTooMany);
}

/** What is not simply forgotten of the tombstones up to a sequence, one of each content. */
export interface Outlasting {
  /** Their network is banned under another text: nobody needs them before another ban of it ends. */
  readonly keptBack: readonly Row[];
  /** The last end of their network is younger: whoever is told of that is told of them. */
  readonly waiting: readonly Row[];
}

export function outlastingUpTo({ respelled, byCanonicalValue }: Mirror, sequence: number): Outlasting {
  const keptBack: Row[] = [];
  const waiting: Row[] = [];
  for (const [value, ended] of respelled) {
    const old = new Map(
      ended.filter((row) => row.removedSeq <= sequence).map((row) => [contentKey(row), row]),
    );
    const young = ended.filter((row) => row.removedSeq > sequence);
    const active = byCanonicalValue.get(value) ?? [];
    for (const row of old.values()) {
      if (isKeptBack(active, row)) keptBack.push(row);
      else if (isKeptBack([...active, ...young], row)) waiting.push(row);
    }
  }
  waiting.sort((a, b) => a.removedSeq - b.removedSeq);
  return { keptBack, waiting: waiting.slice(-mostWaiting) };
}

/** Whether an end is told with one of these, and with none of the same content. */
export function isKeptBack(others: readonly Row[], row: Row): boolean {
  return (
    others.some((other) => sameNetwork(other, row) && !sameText(other, row)) &&
    !others.some((other) => contentKey(other) === contentKey(row))
  );
}

function moveMarks({ sequence }: Mirror, marks: Marks, nowMs: number): void {
  const ageMs = nowMs - marks.newer.atMs;
  if (ageMs >= 0 && ageMs < youngMs) return;
  // After a clock that went back the count of minutes begins anew.
  if (ageMs >= youngMs) marks.older = marks.newer.sequence;
  marks.newer = { sequence, atMs: nowMs };
}
