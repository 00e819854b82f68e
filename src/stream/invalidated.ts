// Cursors that isolates must forget. An isolate that follows the feed answers clients from cursors of its own, and any of
// them is right as long as the bouncer has what the cursor says and its limits are the same. The feed's object learns first
// when that ends, and each isolate learns it with its next question. Pure.

/** An isolate answers from what it asked for at most so long ago. */
export const mostAgeMs = 4_000;
/** So long the object reckons with it: an answer takes some time. */
export const oldAnswersMs = mostAgeMs + 1_000;

/** How much of this an isolate knows. */
export interface Mark {
  /** The object since it woke: its memory, and the history that its sequences are of. */
  readonly instance: string;
  readonly count: number;
}

export interface Invalidated {
  readonly instance: string;
  count: number;
  /** The clients (`clientName`) that the last counts were for. */
  readonly names: string[];
}

/** An isolate that has missed more of them forgets all cursors. */
const mostNames = 1_000;

export function createInvalidated(): Invalidated {
  return { instance: crypto.randomUUID(), count: 0, names: [] };
}

export function invalidate(invalidated: Invalidated, name: string): void {
  const { names } = invalidated;
  invalidated.count++;
  names.push(name);
  if (names.length > 2 * mostNames) names.splice(0, mostNames);
}

export function invalidateAll(invalidated: Invalidated): void {
  invalidated.count++;
  invalidated.names.length = 0;
}

export function markOf({ instance, count }: Invalidated): Mark {
  return { instance, count };
}

/** The clients whose cursors an isolate has to forget. */
export function invalidatedSince({ instance, count, names }: Invalidated, mark: Mark): string[] | 'all' {
  const missed = count - mark.count;
  if (mark.instance !== instance || missed > names.length) return 'all';
  return names.slice(names.length - missed);
}
