// `/health`: LAPI's answer, with the feed's state beside it. Anybody may ask, so an isolate asks the feed at most once a
// second. What the feed said longer ago is not repeated, nor that it did not answer.

import type { Context } from 'hono';
import { type AppEnv } from '../env.ts';
import { causeOf, fail, lapiError, succeed, type Result } from '../http/failure.ts';
import type { Freshness } from '../engines/engines.ts';
import { askFeed } from '../feed/client.ts';
import { changesHere } from '../feed/client.ts';
import type { FeedStatus } from '../feed/questions.ts';
import { sinceMs } from '../runtime/clock.ts';

type Health = ReturnType<typeof healthOf>;

export async function health(c: Context<AppEnv>): Promise<Response> {
  if (c.req.method !== 'GET') return lapiError({ kind: 'method-not-allowed', allow: ['GET'] });
  const state = await currentHealth(c.env);
  if (!state.ok) return lapiError(state.failure);
  return c.json(state.value, 200, { 'cache-control': 'no-cache', expires: '-1', pragma: 'no-cache' });
}

const keptMs = 1_000;

interface Moment {
  readonly atMs: number;
  /** `changesHere` at that time. */
  readonly changes: number;
}

let said: (Moment & { readonly health: Result<Health> }) | null = null;

/** The question under way. It ends unanswered if the client that asked it goes away. */
let asking: Moment | null = null;

function isCurrent({ atMs, changes }: Moment, nowMs: number): boolean {
  return changes === changesHere() && sinceMs(atMs, nowMs) < keptMs;
}

async function currentHealth(env: Env): Promise<Result<Health>> {
  // Waits by looking again: the promise of another request ends with that request.
  for (let waitMs = 5; ; waitMs *= 2) {
    const nowMs = Date.now();
    if (said && isCurrent(said, nowMs)) return said.health;
    if (!asking || !isCurrent(asking, nowMs)) return ask(env, { atMs: nowMs, changes: changesHere() });
    await scheduler.wait(waitMs);
  }
}

async function ask(env: Env, own: Moment): Promise<Result<Health>> {
  asking = own;
  const health = await askHealth(env);
  if (asking === own) [said, asking] = [{ ...own, atMs: Date.now(), health }, null];
  return health;
}

async function askHealth(env: Env): Promise<Result<Health>> {
  try {
    return succeed(healthOf(await askFeed(env, async (feed) => feed.status())));
  } catch (error) {
    console.error(`the feed does not answer for its state: ${causeOf(error).message}`);
    return fail({ kind: 'unavailable', problem: 'the feed is out of reach; try again' });
  }
}

/** Only counts of engines, no names: anybody may read this. */
function healthOf({ freshness, ageSeconds, fullAgeSeconds, unwritable, engines }: FeedStatus) {
  const partial = engines.reduce((sum, { leftOut }) => sum + leftOut, 0);
  const count = (state: Freshness): number => engines.filter((each) => each.freshness === state).length;
  const each = { fresh: count('fresh'), stale: count('stale'), cold: count('cold') };
  const keyless = engines.find(({ link }) => link === 'refused' || link === 'waiting-for-key');
  return {
    status: 'up',
    feed: freshness,
    age_seconds: ageSeconds,
    full_age_seconds: fullAgeSeconds,
    ...(partial === 0 ? {} : { partial }),
    ...(unwritable ? { storage: 'unwritable' } : {}),
    ...(engines.length > 1 ? { engines: each } : {}),
    ...(keyless ? { upstream: keyless.link } : {}),
  };
}
