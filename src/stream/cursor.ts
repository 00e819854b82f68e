// Where a bouncer stands. Nobody can know that an answer arrived (a 1.3 MB body counts as sent after the
// client read 76 bytes), so every change goes out in two successive answers: an answer starts from the
// position before the one last answered. Losing a cursor costs a repeat, never a change. Pure.

import type { Owed } from './owed.ts';

/** What one answer brought a bouncer to: the feed's sequence, and the basis it was limited to (basis.ts; 0: none). */
export interface Position {
  readonly sequence: number;
  readonly basis: number;
}

/** `last`: the position the newest answer brought the bouncer to; `before`: the one the answer before it did. */
export interface Cursor {
  readonly before: Position;
  readonly last: Position;
  /** Ends that no answer had room for. A cursor with such is not stored: after a restart the full state has them. */
  readonly owed: readonly Owed[];
}

/** The cursor when a delta can start from it; undefined: only the full state is safe. */
export function usable(cursor: Cursor | undefined, purgedSequence: number): Cursor | undefined {
  return cursor && cursor.before.sequence >= purgedSequence ? cursor : undefined;
}

/** A `before` that no purge has reached: the answer after it is the full state once more. */
const beforeEverything: Position = { sequence: -1, basis: 0 };

/**
 * The cursor after an answer that brings the bouncer to `now`; `from` is the one that it had, usable or not.
 * A start-up leaves nothing to repeat, since bouncers ask for it until they have it, and one that was seen to
 * be cut off loses its cursor (feed.ts). A full state given to one that asked for a delta is repeated as any
 * change is: it would not ask again. An answer that takes the place of one that was lost counts for nothing more than
 * that one: it starts where it would have started.
 */
export function advance(
  from: Cursor | undefined,
  now: Position,
  { startup, again = false }: { readonly startup: boolean; readonly again?: boolean },
  owed: readonly Owed[],
): Cursor {
  if (startup) return { before: now, last: now, owed };
  if (again && from) return { before: from.before, last: now, owed };
  return { before: from?.last ?? beforeEverything, last: now, owed };
}

/** Whether the bouncer has had every change up to `now` twice: nothing is owed until the feed or its limits move. */
export function isSettled({ before, last, owed }: Cursor, now: Position): boolean {
  return owed.length === 0 && samePosition(before, now) && samePosition(last, now);
}

export function sameCursor(a: Cursor | undefined, b: Cursor | undefined): boolean {
  if (!a || !b) return a === b;
  return samePosition(a.before, b.before) && samePosition(a.last, b.last) && a.owed === b.owed;
}

function samePosition(a: Position, b: Position): boolean {
  return a.sequence === b.sequence && a.basis === b.basis;
}
