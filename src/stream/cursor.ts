// What a bouncer was delivered. Nobody can know that an answer arrived (a 1.3 MB body counts as sent after the client
// read 76 bytes), so every change goes out in two successive answers: an answer starts before the one that was last given.
// Losing a cursor costs repeats, never a change. Pure.

import type { Row } from '../formats/decision.ts';

/** A removal that no answer had room for, and in how many answers it still has to go out. */
export interface PendingRemoval {
  readonly row: Row;
  readonly times: number;
}

/** What one answer brings a bouncer to. `baseline`: the id of the one that it was limited to; 0: none. */
export interface Position {
  readonly sequence: number;
  readonly baseline: number;
}

/** The positions of the newest answer (`last`) and of the one before it. */
export interface Cursor {
  readonly beforeSequence: number;
  readonly beforeBaseline: number;
  readonly lastSequence: number;
  readonly lastBaseline: number;
  /** Other baselines that an answer since `beforeSequence` may have brought the bouncer to. */
  readonly others: readonly number[];
  /** A cursor with pending removals, or with `others`, is not stored: after a restart the full state has them. */
  readonly pending: readonly PendingRemoval[];
}

/**
 * A cursor that changes alone lead on from: the limits are the same as ever, and no removal is pending. An isolate may
 * answer its client. Each isolate has its own, and any of them is right, however old: what was given twice before
 * `beforeSequence` the bouncer has.
 */
export interface PlainCursor {
  readonly baseline: number;
  readonly beforeSequence: number;
  readonly lastSequence: number;
}

/** Null: only the feed's object knows how to go on. */
export function plainOf(cursor: Cursor): PlainCursor | null {
  const { beforeSequence, beforeBaseline, lastSequence, lastBaseline, others, pending } = cursor;
  const isPlain = beforeSequence >= 0 && beforeBaseline === lastBaseline;
  return isPlain && others.length === 0 && pending.length === 0
    ? { baseline: lastBaseline, beforeSequence, lastSequence }
    : null;
}

/** A cursor with what an isolate has given the client meanwhile. It never moves back. */
export function merge(cursor: Cursor, given: PlainCursor): Cursor {
  const own = plainOf(cursor);
  if (own?.baseline !== given.baseline) return cursor;
  const beforeSequence = Math.max(own.beforeSequence, given.beforeSequence);
  const lastSequence = Math.max(own.lastSequence, given.lastSequence);
  const moved = beforeSequence > own.beforeSequence || lastSequence > own.lastSequence;
  return moved ? { ...cursor, beforeSequence, lastSequence } : cursor;
}

interface Delivering {
  readonly startup: boolean;
  readonly again?: boolean;
  /** `laterBaselines`. */
  readonly later: readonly number[];
  /** No change beyond it counts as delivered (settled.ts). */
  readonly settled: number;
}

/**
 * The cursor after an answer that brings the bouncer to `now`. `from`: the cursor that it had, usable or not. `again`: the
 * answer replaces one that may be lost, so it starts where that one started; but it may have arrived, or never been made.
 *
 * A start-up is not repeated: bouncers ask for it until they have it, and one that was seen to be cut off loses its cursor
 * (poll.ts). A full state for a bouncer that asked for changes is repeated, since it would not ask again: -1 is below
 * every purge, so the next answer is a full state too.
 */
export function advance(
  from: Cursor | undefined,
  now: Position,
  { startup, again = false, later, settled }: Delivering,
  pending: readonly PendingRemoval[],
): Cursor {
  const last = { lastSequence: now.sequence, lastBaseline: now.baseline, others: [], pending };
  const upTo = (sequence: number): number => Math.min(sequence, settled);
  if (startup) return { beforeSequence: upTo(now.sequence), beforeBaseline: now.baseline, ...last };
  if (!from) return { beforeSequence: -1, beforeBaseline: 0, ...last };
  const before = again
    ? { beforeSequence: from.beforeSequence, beforeBaseline: from.beforeBaseline }
    : { beforeSequence: upTo(from.lastSequence), beforeBaseline: from.lastBaseline };
  return withOthers({ ...before, ...last }, again ? [...from.others, from.lastBaseline, ...later] : later);
}

/** With other baselines that the bouncer may have been brought to since `beforeSequence`. */
export function withOthers(cursor: Cursor, ids: readonly number[]): Cursor {
  const others = new Set([...cursor.others, ...ids]);
  // Of that one everything since is gone over as it is.
  others.delete(cursor.beforeBaseline);
  return { ...cursor, others: [...others] };
}

/** A cursor that only the full state leads on from, given twice. It knows what the bouncer was limited to. */
export function lostAt({ lastBaseline }: Cursor): Cursor {
  return {
    beforeSequence: -1,
    beforeBaseline: lastBaseline,
    lastSequence: -1,
    lastBaseline,
    others: [],
    pending: [],
  };
}

/** The cursor after an answer of an isolate. One of the object may have brought the client further than the isolate knows. */
export function advancePlain(
  { baseline, lastSequence }: PlainCursor,
  sequence: number,
  settled: number,
): PlainCursor {
  return {
    baseline,
    beforeSequence: Math.min(lastSequence, sequence, settled),
    lastSequence: Math.max(lastSequence, sequence),
  };
}

/** Whether the bouncer was given every change up to `now` twice. Nothing goes out until the feed or its limits change. */
export function isUpToDate(cursor: Cursor, { sequence, baseline }: Position): boolean {
  return (
    cursor.pending.length === 0 &&
    cursor.others.length === 0 &&
    cursor.lastSequence === sequence &&
    cursor.lastBaseline === baseline &&
    cursor.beforeSequence === sequence &&
    cursor.beforeBaseline === baseline
  );
}

export function samePlainCursor(a: PlainCursor | undefined, b: PlainCursor): boolean {
  return (
    a?.baseline === b.baseline && a.beforeSequence === b.beforeSequence && a.lastSequence === b.lastSequence
  );
}

export function sameCursor(a: Cursor, b: Cursor): boolean {
  const nothingPending = a.pending.length === 0 && b.pending.length === 0;
  return (
    a.lastSequence === b.lastSequence &&
    a.lastBaseline === b.lastBaseline &&
    a.beforeSequence === b.beforeSequence &&
    a.beforeBaseline === b.beforeBaseline &&
    a.others.join() === b.others.join() &&
    (nothingPending || a.pending === b.pending)
  );
}
