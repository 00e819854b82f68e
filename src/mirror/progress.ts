// How far the rounds with one engine have come: what a round needs to know of the rounds before it, and when the next
// full list is due. Pure. It is written in the transaction of the changes that belong to it, since the object may be gone
// before the next round. A mistake here asks an engine for its whole list all the time, or never again.

import { sinceMs } from '../runtime/clock.ts';

/**
 * `waiting-for-key`: there is no key to ask the engine with. `cold`: it was not asked yet. `refused`: it does not accept
 * the key. `failing`: something else went wrong in the newest round.
 */
export const linkStates = ['waiting-for-key', 'cold', 'ok', 'failing', 'refused'] as const;
export type LinkState = (typeof linkStates)[number];

export interface Link {
  readonly state: LinkState;
  readonly error: string | null;
}

/** How urgent an extra full list is. `spared`: soon, but nine tenths of the engine's time stay free. */
export const urgencies = ['none', 'spared', 'now'] as const;
export type Urgency = (typeof urgencies)[number];

export interface Progress {
  /** When a round last began; 0: never. */
  readonly roundMs: number;
  /** The start of the digest of the key whose cursor in the engine's stream is set; empty: none. */
  readonly cursorOf: string;
  /** A delta was asked for and its answer is not in the mirror. No later delta has the same changes. */
  readonly deltaOpen: boolean;
  /** When the newest delta was whole; 0: never. */
  readonly deltaMs: number;
  /** Deltas in a row that timed out. */
  readonly lateDeltas: number;
  /** The oldest write of a machine that no round has looked for; null: there is none. */
  readonly writtenMs: number | null;
  /** A write may be in no delta and no tail: a full list is needed as soon as the engine can stand one. */
  readonly listOwed: boolean;
  // Apart: a good delta does not mend a full list that failed or needs confirmation.
  readonly delta: Link;
  readonly full: Link;
  /** When the newest attempt at a full list ended (0: never), and how long it took. */
  readonly listMs: number;
  readonly listTookMs: number;
  /** Full lists in a row that failed, and that timed out. */
  readonly failures: number;
  readonly lateLists: number;
  /** Full lists in a row that another one has to confirm. */
  readonly doubts: number;
  readonly urgency: Urgency;
  /** When a full list last had a decision that no delta and no tail had shown; 0: never. */
  readonly missedMs: number;
  readonly tail: Tail;
  /** Unreadable elements in the newest full list and the deltas since, and what is wrong with one of them. */
  readonly skipped: { readonly count: number; readonly sample: string | null };
  /** Decisions of the newest full list and the deltas since for which there is no room. */
  readonly leftOut: number;
  /**
   * Of a source that is no engine: when its newest pull began or failed (0: never), and how long after that the next one is due.
   * `from`: the start of the digest of the address and the key that it was asked with.
   */
  readonly pull: { readonly atMs: number; readonly waitMs: number; readonly from?: string };
  /** Of its newest accepted picture; null: it has none. */
  readonly known: KnownPicture | null;
}

/** By what a server tells whether a text has changed. */
export interface Validators {
  readonly etag: string | null;
  readonly modified: string | null;
}

export interface KnownPicture extends Validators {
  /** Of the settings that it was read by: with others the same text says something else. */
  readonly settings: string;
  /** How many decisions it has. If the mirror has others, the text has to be read again. */
  readonly decisions: number;
}

/** A tail: a request for the decisions above an id. Cheap for an engine that knows `id_gt` (from 1.5 on). */
export interface Tail {
  readonly endMs: number;
  readonly tookMs: number;
  /** When one last had a decision that no delta had shown; 0: never. */
  readonly foundMs: number;
  /** When the engine was last seen to ignore `id_gt`; 0: never. */
  readonly ignoredMs: number;
  /** The highest known id at some moments, the oldest first; empty before the first full list. */
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
  pull: { atMs: 0, waitMs: 0 },
  known: null,
};

/** The sequence and the engine's highest id at the last accepted full list. Newer rows may be another database's. */
export interface Trusted {
  readonly sequence: number;
  readonly highestId: number;
}

export interface Intervals {
  readonly syncIntervalMs: number;
  readonly resyncIntervalMs: number;
  readonly tailIntervalMs: number;
}

/** Heavy reads that nobody asked for take at most this part (a tenth) of the engine's time. */
const engineShare = 10;
/** A shorter read is not heavy: at the shortest interval, a second, it takes no more than a tenth. */
const lightMs = 100;
/** A list that takes this part of a sync interval is cheap. On an engine without `id_gt` it replaces the tail. */
const cheapShare = 100;
/** For so long after a lost change was found, each sync looks for more. */
const watchfulMs = 600_000;
const longestPatienceMs = 300_000;
/** With more patience, a round that hangs would notice too late that the engine is back. */
const mostDeltaPatience = 3;
/** An engine that ignored `id_gt` may be a newer one by now. */
const ignoredForMs = 86_400_000;
/** Engines give out ids before they commit the rows, so a tail starts this far back. */
const tailOverlapMs = 30_000;
const markStepMs = 5_000;

/** How often the full list is compared: as set, or less often if the engine takes long for one. */
export function listIntervalMs(
  { listTookMs }: Progress,
  { resyncIntervalMs }: Pick<Intervals, 'resyncIntervalMs'>,
): number {
  return Math.max(resyncIntervalMs, engineShare * listTookMs);
}

/**
 * How long until a full list is due; 0: now. `known`: one was accepted before. The first list and one that confirms the
 * one before it wait only after a failure.
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

/** How long the engine is left alone after a read that took `tookMs`. */
function restAfterMs(tookMs: number): number {
  return tookMs <= lightMs ? 0 : (engineShare - 1) * tookMs;
}

/** How long until the engine can stand a full list that a write needs. */
export function restLeftMs({ listMs, listTookMs }: Progress, nowMs: number): number {
  return Math.max(0, restAfterMs(listTookMs) - sinceMs(listMs, nowMs));
}

function standsInForTail(progress: Progress, { syncIntervalMs }: Intervals, nowMs: number): boolean {
  if (knowsTail(progress.tail, nowMs)) return false;
  const cheap = cheapShare * progress.listTookMs <= syncIntervalMs;
  return cheap || sinceMs(progress.missedMs, nowMs) < watchfulMs;
}

/** How long to wait for the first byte of a full list: longer after each timeout. */
export function listPatienceMs({ listTookMs, lateLists }: Progress, timeoutMs: number): number {
  const longestMs = Math.max(timeoutMs, longestPatienceMs);
  return Math.min(longestMs, Math.max(3 * timeoutMs * 2 ** lateLists, 3 * listTookMs));
}

export function deltaPatienceMs({ lateDeltas }: Progress, timeoutMs: number): number {
  return timeoutMs * Math.min(mostDeltaPatience, 2 ** lateDeltas);
}

/** Whether the engine is worth a tail. One that ignores `id_gt` answers with the whole list. */
export function knowsTail({ ignoredMs }: Tail, nowMs: number): boolean {
  return ignoredMs === 0 || sinceMs(ignoredMs, nowMs) >= ignoredForMs;
}

/**
 * The id to ask from in a tail now; null: none is due. Each sync has one if a tail has just found something, or if a
 * machine has just `written` something.
 */
export function tailFrom(tail: Tail, intervals: Intervals, written: boolean, nowMs: number): number | null {
  const base = tailBase(tail, nowMs);
  if (base === undefined || !knowsTail(tail, nowMs)) return null;
  const watchful = written || sinceMs(tail.foundMs, nowMs) < watchfulMs;
  const waitMs = watchful ? 0 : intervals.tailIntervalMs;
  // Half an interval early is good enough: alarms come a little early or late.
  const early = Math.min(waitMs, intervals.syncIntervalMs / 2);
  if (sinceMs(tail.endMs, nowMs) < Math.max(waitMs - early, restAfterMs(tail.tookMs))) return null;
  return base[1];
}

/** Whether a tail now has everything written from `writtenMs` on. Engines give out ids in order. */
export function tailReaches(tail: Tail, writtenMs: number, nowMs: number): boolean {
  const base = tailBase(tail, nowMs);
  return base !== undefined && knowsTail(tail, nowMs) && base[0] < writtenMs;
}

/** The newest mark that is old enough, otherwise the oldest. */
function tailBase({ marks }: Tail, nowMs: number): Mark | undefined {
  return marks.findLast(([atMs]) => sinceMs(atMs, nowMs) >= tailOverlapMs) ?? marks[0];
}

/** Notes the highest known id. Marks that no tail will start from any more are dropped. */
export function marked(tail: Tail, highestId: number, nowMs: number): Tail {
  const base = tailBase(tail, nowMs);
  const marks = tail.marks.filter((mark) => base === undefined || mark[0] >= base[0]);
  const newest = marks.at(-1);
  // Lower than before: another database, whose ids start again.
  if (newest && newest[1] > highestId) return { ...tail, marks: [[nowMs, highestId]] };
  if (newest && sinceMs(newest[0], nowMs) < markStepMs) return { ...tail, marks };
  return { ...tail, marks: [...marks, [nowMs, highestId]] };
}

/** The stronger of two. */
export function urgent(a: Urgency, b: Urgency): Urgency {
  return urgencies.indexOf(a) >= urgencies.indexOf(b) ? a : b;
}
