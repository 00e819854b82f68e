// How far every isolate has come that may still answer. Two isolates follow the feed at different moments, so a bouncer may be
// answered by one that is behind after one that is ahead, and take back what it was just given. So a change goes out again
// until each of them has it: no cursor counts as delivered beyond the sequence here. Pure.

import { sinceMs } from '../runtime/clock.ts';
import { oldAnswersMs } from './invalidated.ts';

interface FollowedTo {
  readonly sequence: number;
  readonly atMs: number;
  /** How many polls waited in it for a change. */
  readonly waiting: number;
}

/** Isolate → the sequence that it was last brought to, and when. */
export type Settled = Map<string, FollowedTo>;

/** Notes that an isolate has followed the feed. */
export function noteFollowed(
  settled: Settled,
  isolate: string,
  sequence: number,
  nowMs: number,
  waiting = 0,
): void {
  settled.set(isolate, { sequence, atMs: nowMs, waiting });
}

/** How many polls wait in all isolates: each that has some follows the feed once a second. */
export function waitingIn(settled: Settled, nowMs: number): number {
  let sum = 0;
  for (const { atMs, waiting } of settled.values()) if (sinceMs(atMs, nowMs) <= oldAnswersMs) sum += waiting;
  return sum;
}

/**
 * The sequence that every isolate has that may still answer. Forgets those that may not. `asking`: the isolate that the
 * answer goes through does not count, since it learns from it where the client stands.
 */
export function settledAt(settled: Settled, sequence: number, nowMs: number, asking?: string): number {
  let least = sequence;
  for (const [isolate, followed] of settled) {
    if (sinceMs(followed.atMs, nowMs) > oldAnswersMs) settled.delete(isolate);
    else if (isolate !== asking) least = Math.min(least, followed.sequence);
  }
  return least;
}
