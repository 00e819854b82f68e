// How often a bouncer polls, learnt from when it is seen, and whether it is silent. Pure. A bouncer is looked at now and
// then, so what is learnt is the time between two looks at most, or its interval if that is longer.
//
// Our own absence is no silence of theirs: time counts from when we began to look without a pause.

/** What is known of a bouncer. */
export interface Watched {
  readonly seenMs: number;
  /** The newest times between two of its polls, as far as they were seen. */
  readonly gapsMs: readonly number[];
  /** Null: not learnt yet. */
  readonly expectedMs: number | null;
}

const mostGaps = 5;
const leastGaps = 3;

/** What is known once a bouncer was seen at `seenMs`. `expectedMs`: what was learnt before a restart. */
export function seen(
  before: Watched | undefined,
  seenMs: number,
  awakeSinceMs: number,
  expectedMs: number | null = null,
): Watched {
  if (!before) return { seenMs, gapsMs: [], expectedMs };
  if (seenMs <= before.seenMs) return before;
  // It may have polled while nobody looked.
  if (before.seenMs < awakeSinceMs) return { ...before, seenMs };
  const gapsMs = [...before.gapsMs, seenMs - before.seenMs].slice(-mostGaps);
  return { seenMs, gapsMs, expectedMs: gapsMs.length < leastGaps ? before.expectedMs : middleOf(gapsMs) };
}

/** Of an even number the greater: one long pause is no interval. */
function middleOf(gapsMs: readonly number[]): number {
  const sorted = gapsMs.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] as number;
}

const leastPatienceMs = 120_000;

/** How long a bouncer may be silent that polls at this interval. */
export function patienceMs(expectedMs: number): number {
  return Math.max(leastPatienceMs, 3 * expectedMs);
}

/** A client's row is written once a minute: after a restart its bouncer may have been seen so much later than is stored. */
const unwrittenMs = 130_000;

/** Our time awake. */
export interface Awake {
  /** Since when we look without a pause. A restart is none. */
  readonly sinceMs: number;
  /** The first look of this process, and the last one of the process before; null: we are awake since this process began. */
  readonly restart: { readonly atMs: number; readonly lookedMs: number } | null;
}

/**
 * From when a bouncer's silence counts. After a restart one that may have polled just before it has its whole patience again;
 * one that was silent for longer has not, or restarts would hide it.
 */
export function countsFromMs(seenMs: number, { sinceMs, restart }: Awake): number {
  const isUnsure = restart !== null && seenMs >= restart.lookedMs - unwrittenMs;
  return isUnsure ? Math.max(sinceMs, restart.atMs) : sinceMs;
}

/** A bouncer whose newest poll lies ahead, since the clock was set back, is not silent: nobody knows how long ago it was. */
export function isSilent(seenMs: number, afterMs: number, awakeSinceMs: number, nowMs: number): boolean {
  return nowMs - Math.max(seenMs, awakeSinceMs) > afterMs;
}

/** Of a bouncer that was late: whether it may poll, as of `sinceMs`. */
export interface Excuse {
  readonly sinceMs: number;
  readonly mayPoll: boolean;
}

/**
 * Why a bouncer that is late is not silent: it may not poll (paused, without a key), or may again of late. Its silence counts
 * from then on. Null: it is silent.
 */
export function excuseOf(before: Excuse | undefined, mayPoll: boolean, nowMs: number): Excuse | null {
  const isResumed = mayPoll && before?.mayPoll === false;
  return mayPoll && !isResumed ? null : { sinceMs: nowMs, mayPoll };
}

/** Whether what is learnt has to be stored anew. */
export function isNews(storedMs: number | null, expectedMs: number | null): boolean {
  if (expectedMs === null || storedMs === null) return expectedMs !== storedMs;
  return Math.abs(expectedMs - storedMs) > storedMs / 4;
}
