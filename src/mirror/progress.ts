// How far the rounds with one engine have come: all that a round needs of the one before it, and when the next heavy
// one is due. Pure. It is in storage, written with the commit of what it tells of, since the object may be gone between
// two rounds. A mistake here asks an engine for its whole list without end, or never again.

import { sinceMs } from '../runtime/clock.ts';

/**
 * `waiting-for-key`: there is nothing to ask the engine with. `refused`: it answers as to a key that it does not know.
 * `failing`: anything else went wrong in the newest round.
 */
export const linkStates = ['waiting-for-key', 'cold', 'ok', 'failing', 'refused'] as const;
export type LinkState = (typeof linkStates)[number];

export interface Link {
  readonly state: LinkState;
  readonly error: string | null;
}

/** How badly a full list is needed besides the regular ones: `spared` leaves the engine nine parts in ten of its time. */
export const urgencies = ['none', 'spared', 'now'] as const;
export type Urgency = (typeof urgencies)[number];

export interface Progress {
  /** When a round last began; 0: never. */
  readonly roundMs: number;
  /** The key whose place in the engine's stream is ours, as the head of its digest; empty: none. */
  readonly cursorOf: string;
  /** A delta was asked for and its answer is not in the mirror: what it carried is in no later one. */
  readonly deltaOpen: boolean;
  /** When the newest delta was whole; 0: never. */
  readonly deltaMs: number;
  /** Deltas in a row that took longer than they were waited for. */
  readonly lateDeltas: number;
  /** Since when machines have written what no round has looked for; null: there is nothing. */
  readonly writtenMs: number | null;
  /** A write may be in no delta and in no tail: the full list has it, when the engine can stand one. */
  readonly listOwed: boolean;
  // Of deltas and of full lists apart: a good delta does not mend a full list that failed or is doubted.
  readonly delta: Link;
  readonly full: Link;
  /** The newest attempt at a full list: when it ended (0: never), and how long it took. */
  readonly listMs: number;
  readonly listTookMs: number;
  /** Attempts in a row that failed, and those that took longer than they were waited for. */
  readonly failures: number;
  readonly lateLists: number;
  /** Lists in a row that were doubted. */
  readonly doubts: number;
  readonly urgency: Urgency;
  /** When a full list last had a decision that no delta and no tail had shown; 0: never. */
  readonly missedMs: number;
  readonly tail: Tail;
  /** Elements that could not be read: how many in the newest full list and the deltas since, and one of them. */
  readonly skipped: { readonly count: number; readonly sample: string | null };
  /** Decisions of the newest full list and the deltas since for which there was no room. */
  readonly leftOut: number;
}

/** Questions for what is above an id: cheap where the engine knows `id_gt` (1.5 on). */
export interface Tail {
  readonly endMs: number;
  readonly tookMs: number;
  /** When one last had a decision that no delta had shown; 0: never. */
  readonly foundMs: number;
  /** When the engine was last seen to ignore `id_gt`; 0: never. */
  readonly ignoredMs: number;
  /** The highest id that was known at some moments, the oldest first; empty before the first full list. */
  readonly marks: readonly Mark[];
}

export type Mark = readonly [atMs: number, highestId: number];

export const firstProgress: Progress = {
  roundMs: 0,
  cursorOf: '',
  deltaOpen: false,
  deltaMs: 0,
  lateDeltas: 0,
  writtenMs: null,
  listOwed: false,
  delta: { state: 'cold', error: null },
  full: { state: 'ok', error: null },
  listMs: 0,
  listTookMs: 0,
  failures: 0,
  lateLists: 0,
  doubts: 0,
  urgency: 'none',
  missedMs: 0,
  tail: { endMs: 0, tookMs: 0, foundMs: 0, ignoredMs: 0, marks: [] },
  skipped: { count: 0, sample: null },
  leftOut: 0,
};

export interface Intervals {
  readonly syncIntervalMs: number;
  readonly resyncIntervalMs: number;
  readonly tailIntervalMs: number;
}

/** Heavy reads that nobody asked for take at most one part in this many of the engine's time. */
const engineShare = 10;
/** A read of up to this is not heavy: once a second, which is the shortest interval, it takes no more than that part. */
const lightMs = 100;
/** A list that takes this part of a sync interval is no burden: on an engine without `id_gt` it stands in for the tail. */
const cheapShare = 100;
/** How long a loss that was seen makes its like be looked for beside each sync. */
const watchfulMs = 600_000;
const longestPatienceMs = 300_000;
/** More would make a round that hangs late to see that the engine is back. */
const mostDeltaPatience = 3;
/** An engine that ignored `id_gt` may be a newer one by now. */
const ignoredForMs = 86_400_000;
/** Ids are given out before their rows are committed: by so much a tail goes back. */
const tailOverlapMs = 30_000;
const markStepMs = 5_000;

/** How often the full list is compared: the setting, or rarer where the engine takes long for one. */
export function listIntervalMs({ listTookMs }: Progress, { resyncIntervalMs }: Intervals): number {
  return Math.max(resyncIntervalMs, engineShare * listTookMs);
}

/**
 * How long until a full list is due; 0: now. `known`: one was believed before. The first list and the one that confirms
 * a doubt wait for nothing but a failure before them.
 */
export function listDueInMs(progress: Progress, intervals: Intervals, known: boolean, nowMs: number): number {
  const { failures, urgency, listMs, listTookMs } = progress;
  const intervalMs = listIntervalMs(progress, intervals);
  const sparedMs = Math.min(intervalMs, restAfterMs(listTookMs));
  const backoffMs = failures === 0 ? 0 : Math.min(intervalMs, intervals.syncIntervalMs * 2 ** (failures - 1));
  const sought = urgency === 'spared' || standsInForTail(progress, intervals, nowMs);
  const waitMs = !known || urgency === 'now' ? 0 : sought ? sparedMs : intervalMs;
  return Math.max(0, Math.max(waitMs, backoffMs) - sinceMs(listMs, nowMs));
}

/** How long the engine is left alone after a read that took so long. */
function restAfterMs(tookMs: number): number {
  return tookMs <= lightMs ? 0 : (engineShare - 1) * tookMs;
}

/** How long the engine is spared a full list that a write asks for. */
export function owedInMs({ listMs, listTookMs }: Progress, nowMs: number): number {
  return Math.max(0, restAfterMs(listTookMs) - sinceMs(listMs, nowMs));
}

function standsInForTail(progress: Progress, { syncIntervalMs }: Intervals, nowMs: number): boolean {
  if (knowsTail(progress.tail, nowMs)) return false;
  const cheap = cheapShare * progress.listTookMs <= syncIntervalMs;
  return cheap || sinceMs(progress.missedMs, nowMs) < watchfulMs;
}

/** How long the first byte of a full list is waited for: longer after each that did not come. */
export function listPatienceMs({ listTookMs, lateLists }: Progress, timeoutMs: number): number {
  const longestMs = Math.max(timeoutMs, longestPatienceMs);
  return Math.min(longestMs, Math.max(3 * timeoutMs * 2 ** lateLists, 3 * listTookMs));
}

export function deltaPatienceMs({ lateDeltas }: Progress, timeoutMs: number): number {
  return timeoutMs * Math.min(mostDeltaPatience, 2 ** lateDeltas);
}

/** Whether the engine is worth a tail: it is not known to answer with the whole list. */
export function knowsTail({ ignoredMs }: Tail, nowMs: number): boolean {
  return ignoredMs === 0 || sinceMs(ignoredMs, nowMs) >= ignoredForMs;
}

/**
 * The id to ask from in a tail now; null: none is due. Beside each sync where one has just found something,
 * `written`: or where a machine has just written something.
 */
export function tailFrom(tail: Tail, intervals: Intervals, written: boolean, nowMs: number): number | null {
  const base = tailBase(tail, nowMs);
  if (base === undefined || !knowsTail(tail, nowMs)) return null;
  const watchful = written || sinceMs(tail.foundMs, nowMs) < watchfulMs;
  const waitMs = watchful ? 0 : intervals.tailIntervalMs;
  // Half an interval: rounds come by the clock of an alarm, which is a little early or late.
  const early = Math.min(waitMs, intervals.syncIntervalMs / 2);
  if (sinceMs(tail.endMs, nowMs) < Math.max(waitMs - early, restAfterMs(tail.tookMs))) return null;
  return base[1];
}

/** Whether a tail now has all that was written from `writtenMs` on: ids are given out in order. */
export function tailReaches(tail: Tail, writtenMs: number, nowMs: number): boolean {
  const base = tailBase(tail, nowMs);
  return base !== undefined && knowsTail(tail, nowMs) && base[0] < writtenMs;
}

/** The newest mark that is old enough, or else the oldest. */
function tailBase({ marks }: Tail, nowMs: number): Mark | undefined {
  return marks.findLast(([atMs]) => sinceMs(atMs, nowMs) >= tailOverlapMs) ?? marks[0];
}

/** Notes the highest id that is known; what no tail will ask from any more goes. */
export function marked(tail: Tail, highestId: number, nowMs: number): Tail {
  const base = tailBase(tail, nowMs);
  const marks = tail.marks.filter((mark) => base === undefined || mark[0] >= base[0]);
  const newest = marks.at(-1);
  // Lower than before: another database, whose ids begin anew.
  if (newest && newest[1] > highestId) return { ...tail, marks: [[nowMs, highestId]] };
  if (newest && sinceMs(newest[0], nowMs) < markStepMs) return { ...tail, marks };
  return { ...tail, marks: [...marks, [nowMs, highestId]] };
}

/** The stronger of two. */
export function urgent(a: Urgency, b: Urgency): Urgency {
  return urgencies.indexOf(a) >= urgencies.indexOf(b) ? a : b;
}
