// How often a bouncer or an unknown host may ask; machines that log in are logins.ts's. Cloudflare's rate limits where
// they are bound: each counts per location and lets a little more through. Plain workerd has none: there this isolate
// counts.

import { sinceMs } from '../runtime/clock.ts';
import { causeOf } from './failure.ts';
import { createGenerations, type Generations } from '../runtime/generations.ts';
import { limitedNetwork } from '../formats/ip.ts';

/** Seconds after which a refused client may try again, or null: it may go on. */
export type Wait = number | null;

/** As the bindings in wrangler.toml have it. */
export const windowMs = 60_000;
/** Of one limit, at least: beyond twice as many those who have not asked for longest are forgotten. */
export const mostCounted = 20_000;

interface Limit {
  /** In wrangler.toml, with the same number. */
  readonly binding: LimitName;
  readonly perMinute: number;
  /** Who asks → requests in the window that began at `startMs`. Of this limit alone: no other drives them out. */
  readonly counts: Generations<{ readonly startMs: number; requests: number }>;
}

export type LimitName = {
  [Name in keyof Env]: Env[Name] extends RateLimit ? Name : never;
}[keyof Env];

function createLimit(binding: LimitName, perMinute: number): Limit {
  return { binding, perMinute, counts: createGenerations(mostCounted) };
}

const bouncerLimits: Readonly<Record<RateTier, Limit>> = {
  10: createLimit('RATE_LIMIT_10', 10),
  60: createLimit('RATE_LIMIT_60', 60),
  600: createLimit('RATE_LIMIT_600', 600),
};

/** A first boot takes two requests, and a network of hosts may share an address. */
const bootstrapLimit = createLimit('RATE_LIMIT_BOOTSTRAP', 120);

export async function takeTurn(
  env: Partial<Env>,
  bouncerId: number,
  perMinute: RateTier | null,
  nowMs: number,
): Promise<Wait> {
  return perMinute === null ? null : turn(env, bouncerLimits[perMinute], `bouncer ${bouncerId}`, nowMs);
}

/** A request below /bootstrap of this address: its network's, as every limit by address. */
export function takeBootstrapTurn(env: Partial<Env>, address: string, nowMs: number): Promise<Wait> {
  return turn(env, bootstrapLimit, `network ${limitedNetwork(address)}`, nowMs);
}

async function turn(env: Partial<Env>, limit: Limit, key: string, nowMs: number): Promise<Wait> {
  const bound = env[limit.binding];
  if (!bound) return countTurn(limit, key, nowMs);
  // It does not tell when it will let through again; after a whole period it does.
  return (await letsThrough(bound, key)) ? null : windowMs / 1000;
}

/** Counts one more for `key`. A limit that is not there lets through, as one that fails: it must not keep bans back. */
export async function letsThrough(bound: RateLimit | undefined, key: string): Promise<boolean> {
  try {
    return (await bound?.limit({ key }))?.success ?? true;
  } catch (error) {
    console.error(`a rate limit does not answer: ${causeOf(error).message}`);
    return true;
  }
}

function countTurn({ counts, perMinute }: Limit, key: string, nowMs: number): Wait {
  let count = counts.get(key);
  if (!count || sinceMs(count.startMs, nowMs) >= windowMs) {
    counts.set(key, (count = { startMs: nowMs, requests: 0 }));
  }
  count.requests++;
  return count.requests <= perMinute ? null : Math.ceil((count.startMs + windowMs - nowMs) / 1000);
}

/**
 * The rates there are. A rate limit of Cloudflare's is a binding with a number of its own (wrangler.toml), so only
 * what is bound can be offered.
 */
export const rateTiers = [10, 60, 600] as const;

export type RateTier = (typeof rateTiers)[number];
