// Limits that count what failed, and not what was asked: whoever is good may ask as often as they like. Each isolate
// counts. Cloudflare's rate limits, where they are bound, add up what fails in all isolates of a location; they can be
// asked only by counting, hence afterwards.

import { sinceMs } from '../runtime/clock.ts';
import { createGenerations, type Generations } from '../runtime/generations.ts';
import { letsThrough, mostCounted, windowMs, type LimitName, type Wait } from './rate-limit.ts';

export interface FailureLimit {
  /** In wrangler.toml, with the same number; null: this isolate alone counts. */
  readonly binding: LimitName | null;
  readonly perMinute: number;
  readonly counts: Generations<Count>;
}

/** In the window that began at `startMs`. What is not answered yet may fail: guesses at once are no way around. */
interface Count {
  readonly startMs: number;
  failures: number;
  pending: number;
}

/** One try, as it counts for `key`. */
export interface Try {
  readonly limit: FailureLimit;
  readonly key: string;
  readonly count: Count;
}

export function createFailureLimit(binding: LimitName | null, perMinute: number): FailureLimit {
  return { binding, perMinute, counts: createGenerations(mostCounted) };
}

/** Every try that was entered has to be left. */
export function enterTry(limit: FailureLimit, key: string, nowMs: number): Try {
  let count = limit.counts.get(key);
  if (!count || sinceMs(count.startMs, nowMs) >= windowMs) {
    limit.counts.set(key, (count = { startMs: nowMs, failures: 0, pending: 0 }));
  }
  count.pending++;
  return { limit, key, count };
}

export async function leaveTries(
  env: Partial<Env>,
  entered: readonly Try[],
  failed: readonly Try[],
): Promise<void> {
  for (const { count } of entered) count.pending--;
  for (const { count } of failed) count.failures++;
  for (const { limit, key, count } of failed) {
    const bound = limit.binding === null ? undefined : env[limit.binding];
    if (!(await letsThrough(bound, key))) count.failures = limit.perMinute;
  }
}

export function waitOf(one: Try, nowMs: number): Wait {
  const { startMs, failures } = one.count;
  if (isSpent(one)) return Math.ceil((startMs + windowMs - nowMs) / 1000);
  return waitOfPending(one, failures);
}

/** Whether so much failed in its window as may. */
export function isSpent({ limit, count }: Try): boolean {
  return count.failures >= limit.perMinute;
}

/** Those before it are answered soon, and leave their places if they are good. */
export function waitOfPending({ limit, count }: Try, failures = 0): Wait {
  return failures + count.pending > limit.perMinute ? 1 : null;
}
