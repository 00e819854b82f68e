// How often a bouncer may ask. Cloudflare's rate limits where they are bound: one per tier, each counts per
// location and lets a little more through. Plain workerd has none: there this isolate counts.

import type { RateTier } from '../broker/policy.ts';

/** Seconds after which a refused bouncer may try again, or null: it may go on. */
export type Wait = number | null;

const windowMs = 60_000;
const mostCounted = 20_000;

/** Bouncer → requests in the window that began at `startMs`. */
const counts = new Map<number, { readonly startMs: number; requests: number }>();

export async function takeTurn(
  env: Env,
  bouncerId: number,
  perMinute: RateTier | null,
  nowMs: number,
): Promise<Wait> {
  if (perMinute === null) return null;
  const limit = bound(env, perMinute);
  if (!limit) return countTurn(bouncerId, perMinute, nowMs);
  const { success } = await limit.limit({ key: String(bouncerId) });
  // It does not tell when it will let through again; after a whole period it does.
  return success ? null : windowMs / 1000;
}

/** The types come from wrangler.toml, whose bindings `npm start` does not have. */
function bound(env: Partial<Env>, perMinute: RateTier): RateLimit | undefined {
  switch (perMinute) {
    case 10:
      return env.RATE_LIMIT_10;
    case 60:
      return env.RATE_LIMIT_60;
    case 600:
      return env.RATE_LIMIT_600;
    default:
      return perMinute satisfies never;
  }
}

function countTurn(bouncerId: number, perMinute: number, nowMs: number): Wait {
  let count = counts.get(bouncerId);
  if (!count || nowMs - count.startMs >= windowMs || nowMs < count.startMs) {
    if (counts.size >= mostCounted) counts.clear();
    counts.set(bouncerId, (count = { startMs: nowMs, requests: 0 }));
  }
  count.requests++;
  return count.requests <= perMinute ? null : Math.ceil((count.startMs + windowMs - nowMs) / 1000);
}
