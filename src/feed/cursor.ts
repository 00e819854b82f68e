// Where a bouncer stands. Nobody can know that an answer arrived (a 1.3 MB body counts as sent after the
// client read 76 bytes), so every change goes out in two successive answers: an answer starts from the
// sequence before the one last answered. Losing a cursor costs a repeat, never a change. Pure.

/** `last`: the sequence the newest answer brought the bouncer to; `before`: the one the answer before it did. */
export interface Cursor {
  readonly before: number;
  readonly last: number;
}

/** The sequence that the next delta starts from; undefined: only the full state is safe. */
export function startOf(cursor: Cursor | undefined, purgedSequence: number): number | undefined {
  return cursor && cursor.before >= purgedSequence ? cursor.before : undefined;
}

/** A `before` that no purge has reached: the answer after it is the full state once more. */
const beforeEverything = -1;

/**
 * The cursor after an answer that brings the bouncer to `sequence` from `since` (undefined: from nothing).
 * A start-up leaves nothing to repeat, since bouncers ask for it until they have it, and one that was seen to
 * be cut off loses its cursor (feed.ts). A full state given to one that asked for a delta is repeated as any
 * change is: it would not ask again.
 */
export function advance(
  cursor: Cursor | undefined,
  sequence: number,
  since: number | undefined,
  startup: boolean,
): Cursor {
  if (startup) return { before: sequence, last: sequence };
  return { before: since === undefined || !cursor ? beforeEverything : cursor.last, last: sequence };
}

/** Whether the bouncer has had every change up to `sequence` twice: nothing is owed until the feed moves. */
export function isSettled(cursor: Cursor, sequence: number): boolean {
  return cursor.before === sequence && cursor.last === sequence;
}
