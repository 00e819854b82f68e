// Adoption: a key that is unknown here but good at the engine becomes a bouncer of ours, if the operator allows it
// (`ADOPT_ENGINE_KEYS`). Every guess at a key could become a question to the engine, so few do: a refusal is
// remembered, and an isolate asks at most a few times a second.

import { sinceMs } from '../runtime/clock.ts';
import { isKnownDigest } from './keys.sql.ts';
import { createPlaces } from '../engines/places.ts';
import { acceptsKey } from '../engines/upstream.ts';
import { createGenerations } from '../runtime/generations.ts';
import { digestOf } from '../crypto/secret.ts';
import { answerWithin } from '../runtime/wait.ts';
import type { EngineSettings } from '../config/engines.ts';
import { createBouncer } from './bouncers.ts';
import { mutationBy } from '../operations/mutate.ts';

/** Also after an engine's fault: its 403 may mean a locked database, so only a 200 tells anything. */
const refusedMs = 60_000;
const mostRefused = 20_000;
const questionsPerSecond = 3;
/** Longer than an engine is waited for. */
const adoptionMs = 15_000;

/** Digest → when it was refused. */
const refused = createGenerations<number>(mostRefused);
const underWay = new Map<string, Promise<boolean>>();
let second = { startMs: 0, questions: 0 };

/**
 * Whether the key is a bouncer's here now. `userAgent`: the bouncer's own, which the engine writes down. `isFeeds`:
 * whether a digest is that of a key of the feed itself. Throws when D1 or the feed are out of reach.
 */
export async function adopt(
  env: Env,
  engines: readonly EngineSettings[],
  key: string,
  userAgent: string,
  isFeeds: (digest: string) => Promise<boolean>,
  nowMs: number,
): Promise<boolean> {
  if (key === '') return false;
  const digest = await digestOf(key);
  const refusedAtMs = refused.get(digest);
  if (refusedAtMs !== undefined && sinceMs(refusedAtMs, nowMs) < refusedMs) return false;
  const over = () => underWay.delete(digest);
  let adoption = underWay.get(digest);
  if (!adoption) {
    adoption = decide(env, engines, key, digest, userAgent, isFeeds, nowMs).finally(over);
    underWay.set(digest, adoption);
  }
  // Another request's may never end: its questions end with it.
  return answerWithin(adoption, adoptionMs).finally(over);
}

async function decide(
  env: Env,
  engines: readonly EngineSettings[],
  key: string,
  digest: string,
  userAgent: string,
  isFeeds: (digest: string) => Promise<boolean>,
  nowMs: number,
): Promise<boolean> {
  if (!mayAsk(nowMs)) return false;
  // A key that was ours and ended stays refused, whatever the engine thinks of it. The feed's own is no bouncer's.
  const never = (await isKnownDigest(env.DB, digest)) || (await isFeeds(digest));
  if (never || !(await isKnown(engines, key, userAgent))) {
    refused.set(digest, nowMs);
    return false;
  }
  const created = await createBouncer(mutationBy(env, 'adoption', nowMs), `adopted-${digest.slice(0, 8)}`, {
    digest,
    expiresInMs: null,
  });
  // A conflict: another isolate was first.
  return created.ok || created.failure.kind === 'conflict';
}

/** Whether an engine lets it in. */
async function isKnown(engines: readonly EngineSettings[], key: string, userAgent: string): Promise<boolean> {
  const places = createPlaces();
  const asked = engines.map((engine) => acceptsKey({ ...engine, enter: places() }, key, userAgent));
  const answers = await Promise.all(asked);
  return answers.includes(true);
}

function mayAsk(nowMs: number): boolean {
  if (sinceMs(second.startMs, nowMs) >= 1000) second = { startMs: nowMs, questions: 0 };
  second.questions++;
  return second.questions <= questionsPerSecond;
}
