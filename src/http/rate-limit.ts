// Rate limits: of requests (bouncers, unknown hosts), and of failed attempts (log-ins, tokens). Cloudflare's rate limits
// count where they are bound: each per location, and a little generously. Plain workerd has none, so this isolate counts.

import { sinceMs } from '../runtime/clock.ts';
import { causeOf } from './failure.ts';
import { createGenerations, type Generations } from '../runtime/generations.ts';
import { limitedNetwork } from '../formats/ip.ts';

/** Seconds until a refused client may try again; null: it may go on. */
export type Wait = number | null;

/** The period of the bindings in wrangler.toml. */
const windowMs = 60_000;
/** Keys that one limit counts at least. Beyond twice as many it forgets those that have not asked for longest. */
export const mostCounted = 20_000;

type LimitName = {
  [Name in keyof Env]: Env[Name] extends RateLimit ? Name : never;
}[keyof Env];

export interface Limit {
  /** In wrangler.toml, with the same number; null: this isolate alone counts. */
  readonly binding: LimitName | null;
  readonly perMinute: number;
  /** By key. Each limit has its own, so no other limit drives its keys out. */
  readonly counts: Generations<Count>;
}

/** What counts for one key in the window that began at `startMs`. */
interface Count {
  readonly startMs: number;
  spent: number;
  /** Attempts without an answer yet. Each may fail, so that guessing many at once gains nothing. */
  pending: number;
}

export function createLimit(binding: LimitName | null, perMinute: number): Limit {
  return { binding, perMinute, counts: createGenerations(mostCounted) };
}

/** The count of the present window. */
export function countOf({ counts }: Limit, key: string, nowMs: number): Count {
  let count = counts.get(key);
  if (!count || sinceMs(count.startMs, nowMs) >= windowMs) {
    counts.set(key, (count = { startMs: nowMs, spent: 0, pending: 0 }));
  }
  return count;
}

function secondsLeft({ startMs }: Count, nowMs: number): number {
  return Math.ceil((startMs + windowMs - nowMs) / 1000);
}

/** The rates that a policy may choose. Each is a binding with a number of its own in wrangler.toml. */
export const rateTiers = [10, 60, 600] as const;

export type RateTier = (typeof rateTiers)[number];

const bouncerLimits: Readonly<Record<RateTier, Limit>> = {
  10: createLimit('RATE_LIMIT_10', 10),
  60: createLimit('RATE_LIMIT_60', 60),
  600: createLimit('RATE_LIMIT_600', 600),
};

/** A first boot takes two requests, and a network of hosts may share an address. */
const bootstrapLimit = createLimit('RATE_LIMIT_BOOTSTRAP', 120);

/** Counts one request of a bouncer. `perMinute` null: it has no limit. */
export async function consumeRateLimit(
  env: Partial<Env>,
  bouncerId: number,
  perMinute: RateTier | null,
  nowMs: number,
): Promise<Wait> {
  return perMinute === null ? null : consume(env, bouncerLimits[perMinute], `bouncer ${bouncerId}`, nowMs);
}

/** Counts one request below /bootstrap, for the network of its address. */
export function consumeBootstrapLimit(env: Partial<Env>, address: string, nowMs: number): Promise<Wait> {
  return consume(env, bootstrapLimit, `network ${limitedNetwork(address)}`, nowMs);
}

async function consume(env: Partial<Env>, limit: Limit, key: string, nowMs: number): Promise<Wait> {
  const bound = limit.binding && env[limit.binding];
  // A binding does not say when it lets through again. After a whole window it does.
  if (bound) return (await isWithin(bound, key)) ? null : windowMs / 1000;
  const count = countOf(limit, key, nowMs);
  return ++count.spent <= limit.perMinute ? null : secondsLeft(count, nowMs);
}

/** Counts one more for `key`. A binding that fails lets through: bouncers must get their bans. */
async function isWithin(bound: RateLimit, key: string): Promise<boolean> {
  try {
    return (await bound.limit({ key })).success;
  } catch (error) {
    console.error(`a rate limit does not answer: ${causeOf(error).message}`);
    return true;
  }
}

/** One attempt, as it counts for `key` under a limit of failures. */
export interface Attempt {
  readonly limit: Limit;
  readonly key: string;
  readonly count: Count;
}

/** Every attempt that began has to end (`endAttempts`). */
export function beginAttempt(limit: Limit, key: string, nowMs: number): Attempt {
  const count = countOf(limit, key, nowMs);
  count.pending++;
  return { limit, key, count };
}

/** Counts the failed ones. A binding can only be asked by counting, so it is asked now and not before. */
export async function endAttempts(
  env: Partial<Env>,
  begun: readonly Attempt[],
  failed: readonly Attempt[],
): Promise<void> {
  for (const { count } of begun) count.pending--;
  for (const { count } of failed) count.spent++;
  for (const { limit, key, count } of failed) {
    const bound = limit.binding && env[limit.binding];
    if (bound && !(await isWithin(bound, key))) count.spent = limit.perMinute;
  }
}

/** How long an attempt has to wait. */
export function waitOf(attempt: Attempt, nowMs: number): Wait {
  if (isSpent(attempt)) return secondsLeft(attempt.count, nowMs);
  return waitOfPending(attempt, attempt.count.spent);
}

/** Whether as many failed in this window as may. */
export function isSpent({ limit, count }: Attempt): boolean {
  return count.spent >= limit.perMinute;
}

/** How long an attempt has to wait for those before it, which are answered soon. `failures`: how many count besides. */
export function waitOfPending({ limit, count }: Attempt, failures = 0): Wait {
  return failures + count.pending > limit.perMinute ? 1 : null;
}
