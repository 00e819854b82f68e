// How many ends the feed remembers. A tombstone tells a bouncer that was away of an unban: one that goes too early
// leaves a ban in every bouncer without a clock of its own, too many of them end the object, again at each wake.

import { lastOfEach } from './answer.ts';
import { sameNetwork, sameText } from './canonical.ts';
import type { Row } from './decision.ts';
import type { Mirror } from './mirror.ts';

/** In workerd some 15 MB, beside 30 MB for 100,000 decisions: a day of one end a second. */
export const mostTombstones = 100_000;
/** So many are left when there are more: each purge looks at every row in storage. */
const leftTombstones = 90_000;

/** Younger ones stay beyond that, so that a list that goes at once is told to whoever polls. */
const youngMs = 10 * 60_000;
/** They take no more room than the decisions that they were. More than this are purged all the same. */
export const mostYoungTombstones = 300_000;

/** Ends that are kept back outlast all this, since nobody was told of them yet. Of more than these the oldest go. */
const mostKeptBack = 5_000;

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
export function forgettable(mirror: Mirror, marks: Marks, cutoffMs: number, nowMs: number): number {
  moveMarks(mirror, marks, nowMs);
  const { removed, purgedSequence } = mirror;
  const before = (count: number): number => removed[count - 1]?.removedSeq ?? purgedSequence;
  const kept = removed.findIndex((row) => row.removedMs >= cutoffMs);
  const old = before(kept < 0 ? removed.length : kept);
  const tooMany = removed.length <= mostTombstones ? 0 : before(removed.length - leftTombstones);
  return Math.max(old, Math.min(tooMany, marks.older), before(removed.length - mostYoungTombstones));
}

/**
 * The tombstones up to a sequence that stay, one of each text: their network is banned under another text, or its last
 * end is younger and they are told with it.
 */
export function keptBackUpTo({ respelled, byCanonicalValue }: Mirror, sequence: number): Row[] {
  const stay: Row[] = [];
  for (const [value, ended] of respelled) {
    const old = ended.filter((row) => row.removedSeq <= sequence);
    const young = ended.filter((row) => row.removedSeq > sequence);
    const others = [...(byCanonicalValue.get(value) ?? []), ...young];
    const isKeptBack = (row: Row): boolean =>
      others.some((other) => sameNetwork(other, row)) && !others.some((other) => sameText(other, row));
    stay.push(...lastOfEach(old).filter(isKeptBack));
  }
  return stay.sort((a, b) => a.removedSeq - b.removedSeq).slice(-mostKeptBack);
}

function moveMarks({ sequence }: Mirror, marks: Marks, nowMs: number): void {
  const ageMs = nowMs - marks.newer.atMs;
  if (ageMs >= 0 && ageMs < youngMs) return;
  // After a clock that went back the count of minutes begins anew.
  if (ageMs >= youngMs) marks.older = marks.newer.sequence;
  marks.newer = { sequence, atMs: nowMs };
}
