// What the feed says of itself, for `/health`. Open to all, so however often it is asked, the one feed is asked at most
// once a second by an isolate. What the feed said longer ago is not repeated, nor that it said nothing.

import { sinceMs } from '../runtime/clock.ts';
import { causeOf, fail, succeed, type Result } from '../http/failure.ts';
import type { Freshness } from '../engines/engines.ts';
import type { DecisionFeed } from './object.ts';
import { askFeed } from './client.ts';

type Status = Awaited<ReturnType<DecisionFeed['status']>>;

type Shown = ReturnType<typeof shown>;

const keptMs = 1_000;

let said: { readonly atMs: number; readonly state: Result<Shown> } | null = null;

/** The question under way, if its asker is still there: a client that goes away takes it along. */
let asking: { readonly sinceMs: number } | null = null;

/** Something was changed through this isolate: what was said before, or is being said now, is no answer any more. */
export function forgetHealth(): void {
  [said, asking] = [null, null];
}

/** What was said in the last second, or is about to be; else asks. */
export async function stateOf(env: Env): Promise<Result<Shown>> {
  // Waits by looking again: the promise of another request ends with that request.
  for (let waitMs = 5; ; waitMs *= 2) {
    const nowMs = Date.now();
    if (said && sinceMs(said.atMs, nowMs) < keptMs) return said.state;
    if (!asking || sinceMs(asking.sinceMs, nowMs) >= keptMs) return ask(env, nowMs);
    await scheduler.wait(waitMs);
  }
}

async function ask(env: Env, nowMs: number): Promise<Result<Shown>> {
  const own = (asking = { sinceMs: nowMs });
  const state = await told(env);
  if (asking === own) [said, asking] = [{ atMs: Date.now(), state }, null];
  return state;
}

async function told(env: Env): Promise<Result<Shown>> {
  try {
    return succeed(shown(await askFeed(env, async (feed) => feed.status())));
  } catch (error) {
    console.error(`the feed does not tell its state: ${causeOf(error).message}`);
    return fail({ kind: 'unavailable', problem: 'the feed is out of reach; try again' });
  }
}

function shown({ freshness, ageSeconds, fullAgeSeconds, unwritable, engines }: Status) {
  const partial = engines.reduce((sum, { leftOut }) => sum + leftOut, 0);
  // Open to all: how many engines there are, and not which.
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
