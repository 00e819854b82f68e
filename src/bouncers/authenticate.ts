// From `X-Api-Key` to a bouncer. D1's primary is the authority. An isolate remembers the keys that it looked up, and asks
// D1 at most every 5 s what has changed: a revoked key is refused everywhere after that time. A version's expiry is exact:
// it is compared with the clock at each use.
//
// While D1 is out of reach the feed's object is asked about unknown keys (writer/remembered-keys.ts). With their polls
// isolates report to it what they read of keys in D1.

import { waitUntil } from 'cloudflare:workers';
import { sinceMs } from '../runtime/clock.ts';
import { askFeed } from '../feed/client.ts';
import { askStore, changedSince, type FoundKey } from '../store/epoch.sql.ts';
import { causeOf, fail, succeed, type Result } from '../http/failure.ts';
import type { StoreNews } from '../writer/remembered-keys.ts';
import { createGenerations } from '../runtime/generations.ts';
import { fingerprintOf } from '../crypto/fingerprint.ts';
import { digestOf } from '../crypto/secret.ts';
import { withinMs } from '../runtime/wait.ts';
import { createAsking } from '../runtime/asking.ts';
import { afterMutation } from '../operations/mutate.ts';
import { createConfirmation, isWithinOutage } from '../store/confirmation.ts';
import { readPolicy, type Policy } from './policy.ts';
import { askHead, confirmStore, isUnconfirmed } from '../operations/settle.ts';
import { isLive } from './versions.ts';
import { createRefusals, delayUnknownKey, noteUnknownKey } from '../http/unknown-keys.ts';
import type { KeyVersion } from '../store/schema.ts';

/** A bouncer, and the version of its key that it was authenticated by. */
export interface BouncerIdentity {
  readonly id: number;
  readonly name: string;
  readonly version: KeyVersion;
  readonly policy: Policy;
  /** The rows of D1 that this was read from. */
  readonly found: FoundKey;
}

/** undefined: its policy can not be read. Other bouncers are not affected. */
function identityOf(found: FoundKey): BouncerIdentity | undefined {
  const { name, version, policy } = found;
  try {
    return { id: version.bouncerId, name, version, policy: readPolicy(policy), found };
  } catch (error) {
    console.error(`the policy of bouncer ${name} can not be read: ${causeOf(error).message}`);
    return undefined;
  }
}

const mostRemembered = 20_000;
/** D1 is asked again when it turns out to have been restored. Each further try follows another restore. */
const mostLookups = 5;
/** An answer is still learnt this long after the request that asked. */
const lateMs = 5_000;
/** The object may have missed a report, and forgets keys that changed: each is reported again after this time. */
const reportAgainMs = 5 * 60_000;

/** Digest → its bouncer, as of `epoch`. */
const known = createGenerations<BouncerIdentity>(mostRemembered);
/** A key's fingerprint → its digest: most polls are spared the hash. */
const digests = createGenerations<string>(mostRemembered);
let epoch = -1;
const confirmation = createConfirmation();
/** Bouncer's id → the epoch of this isolate's own change of it: an answer of D1 from before that does not count. */
const changedAt = createGenerations<number>(mostRemembered);
/** Digest → when it was reported to the feed's object. */
const reported = createGenerations<number>(mostRemembered);
/** Digests of keys that were read in D1 and not reported yet: this isolate may answer their polls without the object. */
const unreported = new Set<string>();
const mostReported = 100;
const refusals = createRefusals();
/** An unknown key may have been registered meanwhile: it is looked up anew. */
export const forgetRefusals = refusals.clear;

const ask = createAsking<Env, BouncerIdentity | null>(
  (env, digests) => {
    const answer = lookUp(env, digests);
    // It goes on after the answer to this request, whose client may have gone.
    waitUntil(withinMs(answer, lateMs).catch(() => undefined));
    return answer;
  },
  (error) => {
    console.error(`the key store is out of reach: ${causeOf(error).message}`);
    confirmation.fail(Date.now());
  },
);

/** What the feed's object remembers of some digests. Null: it does not know the key; D1 may. */
const askObject = createAsking<Env, FoundKey | null>(
  async (env, digests) => {
    const { heardMs, found } = await askFeed(env, async (feed) => feed.recallKeys(digests));
    const opened = new Map<string, FoundKey | null>(digests.map((digest) => [digest, null]));
    if (!isWithinOutage(heardMs, Date.now())) return opened;
    for (const key of found) opened.set(key.version.digest, key);
    return opened;
  },
  (error) => console.error(`the feed was not asked about keys: ${causeOf(error).message}`),
);

/**
 * The bouncer of a raw key, or `forbidden`; `unavailable` when D1 is out of reach and the key is not known. `address`:
 * where it came from.
 */
export async function authenticate(
  env: Env,
  key: string,
  address: string,
  nowMs: number,
): Promise<Result<BouncerIdentity>> {
  if (key === '') return fail({ kind: 'forbidden' });
  const digest = knownDigest(key);
  const atOnce = recall(digest, nowMs);
  if (atOnce !== undefined) {
    askIfDue(env, digest, nowMs);
    return admit(atOnce, nowMs);
  }
  if (!known.get(digest)) {
    await delayUnknownKey(address, nowMs);
    // D1 failed a moment ago: the object is asked without waiting for D1.
    const bouncer = confirmation.isFailing() ? await recallBouncer(env, digest) : null;
    if (bouncer) {
      askIfDue(env, digest, nowMs);
      return admit(bouncer, nowMs);
    }
  }
  try {
    const bouncer = await ask(env, digest, () => recall(digest, Date.now()));
    if (!bouncer) noteUnknownKey(address, nowMs);
    return admit(bouncer, nowMs);
  } catch {
    const remembered = confirmation.isGraced(nowMs) ? known.get(digest) : undefined;
    const bouncer = remembered ?? (await recallBouncer(env, digest));
    if (bouncer) return admit(bouncer, nowMs);
    return fail({ kind: 'unavailable', problem: 'keys can not be checked now; try again' });
  }
}

/** The bouncer of a raw key that this isolate knows well enough to ask nobody. undefined: `authenticate` finds out. */
export function recogniseBouncer(env: Env, key: string, nowMs: number): BouncerIdentity | undefined {
  if (key === '') return undefined;
  const digest = knownDigest(key);
  const bouncer = recall(digest, nowMs);
  if (!bouncer || !isLive(bouncer.version, nowMs)) return undefined;
  askIfDue(env, digest, nowMs);
  return bouncer;
}

/** The bouncer of a digest, as the feed's object remembers it; undefined: it does not know it, or can not be asked. */
async function recallBouncer(env: Env, digest: string): Promise<BouncerIdentity | undefined> {
  const found = await askObject(env, digest).catch(() => null);
  return found ? identityOf(found) : undefined;
}

/** While D1 fails: asks it beside the answer, to see if it is back. */
function askIfDue(env: Env, digest: string, nowMs: number): void {
  if (confirmation.takeRetry(nowMs)) waitUntil(ask(env, digest).catch(() => undefined));
}

/**
 * What is reported of D1 to the feed's object with a poll of this bouncer: its state, and the key unless that was reported
 * a moment ago. undefined: D1 was not read yet.
 */
export function storeNews({ version }: BouncerIdentity, nowMs: number): StoreNews | undefined {
  if (epoch < 0) return undefined;
  const isDue = sinceMs(reported.get(version.digest) ?? -Infinity, nowMs) >= reportAgainMs;
  const key = isDue ? report(version.digest, nowMs) : null;
  const others = [...unreported.values().take(mostReported)].flatMap((digest) => report(digest, nowMs) ?? []);
  return { epoch, heardMs: confirmation.confirmedMs(), key, others };
}

/** Only a key that is known here was right as of the epoch. The first use is left out: it changes no right. */
function report(digest: string, nowMs: number): FoundKey | null {
  unreported.delete(digest);
  const key = known.get(digest)?.found;
  if (!key) return null;
  reported.set(digest, nowMs);
  return { ...key, version: { ...key.version, firstUsedMs: null } };
}

/** This isolate changed a key itself: it asks D1 at the next use, and forgets the keys that it changed. */
afterMutation((written) => {
  confirmation.forget();
  if (written) {
    const { bouncerIds } = written.changed;
    forgetBouncers(new Set(bouncerIds));
    for (const id of bouncerIds) changedAt.set(String(id), written.mark.epoch);
  }
  refusals.clear();
});

/** Whether D1 failed when it was last asked: what can wait need not be written now. */
export function isStoreFailing(): boolean {
  return confirmation.isFailing();
}

/** A first use was noted: this isolate notes it no more. The key stays known, should D1 go away now. */
export function learnFirstUse({ digest }: KeyVersion, nowMs: number): void {
  const bouncer = known.get(digest);
  if (bouncer) known.set(digest, { ...bouncer, version: { ...bouncer.version, firstUsedMs: nowMs } });
}

function admit(bouncer: BouncerIdentity | null, nowMs: number): Result<BouncerIdentity> {
  return bouncer && isLive(bouncer.version, nowMs) ? succeed(bouncer) : fail({ kind: 'forbidden' });
}

/** The digest of a key. It is remembered of the keys that are known here. */
function knownDigest(key: string): string {
  const fingerprint = fingerprintOf(key);
  const remembered = digests.get(fingerprint);
  if (remembered !== undefined) return remembered;
  const digest = digestOf(key);
  if (known.get(digest)) digests.set(fingerprint, digest);
  return digest;
}

/** What is known of a digest without asking; null: it opens nothing. */
function recall(digest: string, nowMs: number): BouncerIdentity | null | undefined {
  const bouncer = known.get(digest);
  if (bouncer && confirmation.isTrusted(nowMs)) return bouncer;
  return refusals.has(digest, nowMs) ? null : undefined;
}

async function lookUp(
  env: Env,
  digests: readonly string[],
): Promise<ReadonlyMap<string, BouncerIdentity | null>> {
  for (let attempt = 0; attempt < mostLookups; attempt++) {
    const nowMs = Date.now();
    const asked = confirmation.ask(nowMs);
    const sinceEpoch = epoch < 0 ? Number.MAX_SAFE_INTEGER : epoch;
    // Beside D1: an isolate's first question needs both.
    const head = isUnconfirmed() ? askHead(env) : undefined;
    const answer = await askStore(env.DB, sinceEpoch, digests);
    // Neither the epoch nor a key of a restored backup counts.
    if (!(await confirmStore(env, answer.mark, head))) continue;
    const opened = new Map<string, BouncerIdentity | null>(digests.map((digest) => [digest, null]));
    for (const found of answer.found) {
      const bouncer = identityOf(found);
      if (bouncer) opened.set(found.version.digest, bouncer);
      else opened.delete(found.version.digest);
    }
    if (!asked.isLate()) {
      forgetBouncers(changedSince(sinceEpoch, answer.mark.epoch, answer.changes));
      epoch = answer.mark.epoch;
      for (const [digest, bouncer] of opened) {
        const isOld = bouncer !== null && answer.mark.epoch < (changedAt.get(String(bouncer.id)) ?? 0);
        if (!isOld) learn(digest, bouncer, nowMs);
      }
      asked.confirm();
    }
    return opened;
  }
  throw new Error(`the key store was restored ${mostLookups} times under one question`);
}

function learn(digest: string, bouncer: BouncerIdentity | null, nowMs: number): void {
  if (bouncer) {
    known.set(digest, bouncer);
    if (unreported.size < mostRemembered) unreported.add(digest);
    refusals.forget(digest);
  } else {
    known.delete(digest);
    refusals.note(digest, nowMs);
  }
}

/** Forgets the keys of bouncers that changed: they are looked up and reported anew. */
function forgetBouncers(ids: ReadonlySet<number> | 'all'): void {
  if (ids === 'all') {
    known.clear();
    reported.clear();
  } else if (ids.size > 0) {
    const changed = known.values().filter(({ id }) => ids.has(id));
    for (const { version } of changed) {
      known.delete(version.digest);
      reported.delete(version.digest);
    }
  }
}
