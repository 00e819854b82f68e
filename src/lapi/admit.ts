// Who may ask: the bouncer of a key, from where it is, as often as it does. A mistake here locks bouncers out, or lets a key
// be used where its policy does not.

import type { Context } from 'hono';
import { adopt } from '../bouncers/adoption.ts';
import {
  authenticate,
  forgetRefusals,
  isStoreFailing,
  learnFirstUse,
  recogniseBouncer,
  type BouncerIdentity,
} from '../bouncers/authenticate.ts';
import { noteFirstUse } from '../bouncers/bouncers.ts';
import { saveFirstUse } from '../bouncers/keys.sql.ts';
import { isAllowed } from '../bouncers/policy.ts';
import { clientAddress, type AppEnv } from '../env.ts';
import { askFeed, countRefusal } from '../feed/client.ts';
import { causeOf, fail, lapiError, succeed, type Failure, type Result } from '../http/failure.ts';
import { consumeRateLimit } from '../http/rate-limit.ts';
import { withinMs } from '../runtime/wait.ts';
import { answerMs } from '../store/ask.ts';
import type { Asker } from './poll.ts';

/** `key-refused`: it opens nothing. `forbidden`: not from there, or not now. */
export async function admit(c: Context<AppEnv>, key: string): Promise<Result<Asker>> {
  const { settings } = c.var;
  const request = c.req.raw;
  const address = clientAddress(request, settings);
  const found = await whoAsks(c, key, address);
  const admitted = judge(found, key, address);
  if (!admitted.ok) return admitted;
  const bouncer = admitted.value;
  const waitSeconds = await consumeRateLimit(c.env, bouncer.id, bouncer.policy.perMinute, Date.now());
  if (waitSeconds !== null) return fail({ kind: 'rate-limited', waitSeconds });
  return succeed({ request, env: c.env, settings, address, bouncer, nowMs: Date.now() });
}

/** What has become of the key of a request that waits. Its rate is not asked again: it is one request. */
export function admitAgain(
  { env, address, bouncer }: Asker,
  key: string,
): Result<BouncerIdentity> | Promise<Result<BouncerIdentity>> {
  const nowMs = Date.now();
  const known = recogniseBouncer(env, key, nowMs);
  // Nearly always the same: nothing of it has to be judged anew.
  if (known === bouncer) return succeed(bouncer);
  if (known) return judge(succeed(known), key, address);
  return authenticate(env, key, address, nowMs).then((found) => judge(found, key, address));
}

/** One answer for all: whoever found a key does not learn where it is valid. */
export function refusalOf(failure: Failure): Response {
  return lapiError(failure.kind === 'key-refused' ? { kind: 'forbidden' } : failure);
}

function judge(found: Result<BouncerIdentity>, key: string, address: string): Result<BouncerIdentity> {
  if (!found.ok) {
    if (found.failure.kind !== 'forbidden') return found;
    countRefusal('bouncer', key === '' ? 'no-key' : 'unknown-key');
    return fail({ kind: 'key-refused' });
  }
  const { policy } = found.value;
  if (isAllowed(policy, address)) return found;
  countRefusal('bouncer', policy.paused ? 'paused' : 'address');
  return fail({ kind: 'forbidden' });
}

async function whoAsks(c: Context<AppEnv>, key: string, address: string): Promise<Result<BouncerIdentity>> {
  const nowMs = Date.now();
  const bouncer = await authenticate(c.env, key, address, nowMs);
  const { adoptEngineKeys, engines } = c.get('settings');
  if (bouncer.ok || bouncer.failure.kind !== 'forbidden' || !adoptEngineKeys) return bouncer;
  const userAgent = c.req.header('user-agent') ?? '';
  const isFeeds = async (digest: string): Promise<boolean> =>
    (await askFeed(c.env, async (feed) => feed.keyDigests())).includes(digest);
  try {
    if (!(await adopt(c.env, engines, key, userAgent, isFeeds, nowMs))) return bouncer;
  } catch (error) {
    console.error(`a key was not looked for at the engine: ${causeOf(error).message}`);
    return fail({ kind: 'unavailable', problem: 'keys can not be checked now; try again' });
  }
  // Another isolate may have been first.
  forgetRefusals();
  return authenticate(c.env, key, address, nowMs);
}

/**
 * Notes the first use of a key's version, beside the reply. That of a new version starts the old one's grace. The reply goes
 * out also when the key store is out of reach.
 */
export async function noteUse(c: Context<AppEnv>, { bouncer }: Asker): Promise<void> {
  if (bouncer.version.firstUsedMs !== null || isStoreFailing()) return;
  const noted = note(c.env, bouncer, Date.now());
  c.executionCtx.waitUntil(noted);
  await withinMs(noted, answerMs);
}

async function note(env: Env, { name, version }: BouncerIdentity, nowMs: number): Promise<void> {
  try {
    if (version.state === 'next') {
      await noteFirstUse(env, version, name, nowMs);
    } else {
      await saveFirstUse(env.DB, version.id, nowMs);
      learnFirstUse(version, nowMs);
    }
  } catch (error) {
    console.error(`a first use was not noted: ${causeOf(error).message}`);
  }
}
