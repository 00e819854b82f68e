// Adoption: a key that is unknown here but valid at an engine becomes a bouncer of Lapidary, if the operator allows it
// (`ADOPT_ENGINE_KEYS`). A guessed key would cost a request to the engine, so these are limited: a refusal is remembered,
// and an isolate asks at most a few times a second.

import { sinceMs } from '../runtime/clock.ts';
import { isKnownDigest } from './keys.sql.ts';
import { acceptsKey, createTurns } from '../engines/upstream.ts';
import { createGenerations } from '../runtime/generations.ts';
import { digestOf } from '../crypto/secret.ts';
import { answerWithin } from '../runtime/wait.ts';
import type { EngineSettings } from '../config/engines.ts';
import { createBouncer } from './bouncers.ts';
import { mutationBy } from '../operations/mutate.ts';

/** Also after an engine's fault: its 403 may mean a locked database. Only a 200 is certain. */
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
 * Whether the key is a bouncer's here now. `userAgent`: the bouncer's own, for the engine's records. `isFeeds`: whether
 * a digest is of a key that the feed pulls with. Throws when D1 or the feed's object is out of reach.
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
  const digest = digestOf(key);
  const refusedAtMs = refused.get(digest);
  if (refusedAtMs !== undefined && sinceMs(refusedAtMs, nowMs) < refusedMs) return false;
  const over = () => underWay.delete(digest);
  let adoption = underWay.get(digest);
  if (!adoption) {
    adoption = decide(env, engines, key, digest, userAgent, isFeeds, nowMs).finally(over);
    underWay.set(digest, adoption);
  }
  // Another request's adoption never ends if that request was cut off.
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
  // A key that was revoked here stays refused, though the engine accepts it. The feed's own key is no bouncer's.
  const never = (await isKnownDigest(env.DB, digest)) || (await isFeeds(digest));
  if (never || !(await isGoodAtEngine(engines, key, userAgent))) {
    refused.set(digest, nowMs);
    return false;
  }
  const created = await createBouncer(mutationBy(env, 'adoption', nowMs), `adopted-${digest.slice(0, 8)}`, {
    digest,
    expiresInMs: null,
  });
  // On a conflict another isolate was faster.
  return created.ok || created.failure.kind === 'conflict';
}

/** Whether an engine accepts the key. */
async function isGoodAtEngine(
  engines: readonly EngineSettings[],
  key: string,
  userAgent: string,
): Promise<boolean> {
  const turns = createTurns();
  const asked = engines.map((engine) => acceptsKey({ ...engine, enter: turns() }, key, userAgent));
  const answers = await Promise.all(asked);
  return answers.includes(true);
}

function mayAsk(nowMs: number): boolean {
  if (sinceMs(second.startMs, nowMs) >= 1000) second = { startMs: nowMs, questions: 0 };
  second.questions++;
  return second.questions <= questionsPerSecond;
}
