// From `X-Api-Key` to a bouncer. D1's primary is the authority; an isolate remembers what it looked up for as
// long as the key epoch stands, and asks for the epoch at most every 5 s: that is the bound on revocation. Ends
// of versions are exact: they are compared with the clock at each use.

import { sinceMs } from '../clock.ts';
import { lookUpKey, readMark, type KeyVersion } from '../db/keys.ts';
import { causeOf, fail, succeed, type Result } from '../failure.ts';
import { digestOf } from '../secret.ts';
import { afterCommit } from './commit.ts';
import { readPolicy, type Policy } from './policy.ts';
import { confirmStore } from './restore.ts';
import { isLive } from './rotation.ts';

/** Who asks, and with which version of the key. */
export interface BouncerIdentity {
  readonly id: number;
  readonly name: string;
  readonly version: KeyVersion;
  readonly policy: Policy;
}

/** How long an isolate trusts the epoch it has seen: a revoked key is refused everywhere after this time. */
export const epochFreshMs = 5_000;
/** An unknown key is remembered as such for this long; so is a guess that is made again and again. */
const refusedMs = 2_000;
/**
 * With D1 out of reach a key that was good this long ago still reads decisions: a firewall without its list
 * is worse than a late revocation.
 */
const outageMs = 15 * 60_000;
const mostRemembered = 20_000;
/** A key is looked up again when D1 turns out to have been restored; more than once only if it is again. */
const mostLookups = 5;

let epoch = { value: -1, seenMs: -Infinity };
const known = new Map<string, { readonly bouncer: BouncerIdentity; readonly epoch: number }>();
const refused = new Map<string, number>();

/** The bouncer of a raw key, or `forbidden`; `unavailable` when D1 is out of reach and the key is not known. */
export async function authenticate(env: Env, key: string, nowMs: number): Promise<Result<BouncerIdentity>> {
  if (key === '') return fail({ kind: 'forbidden' });
  const digest = await digestOf(key);
  if (sinceMs(refused.get(digest) ?? -Infinity, nowMs) < refusedMs) return fail({ kind: 'forbidden' });
  const remembered = known.get(digest);
  try {
    if (remembered) {
      if (sinceMs(epoch.seenMs, nowMs) >= epochFreshMs) {
        const mark = await readMark(env.DB);
        // Of a restored backup neither the epoch nor what was looked up in it counts.
        if (await confirmStore(env, mark)) sawEpoch(mark.epoch, nowMs);
        else known.delete(digest);
      }
      if (known.get(digest) === remembered && remembered.epoch === epoch.value) {
        return live(remembered.bouncer, nowMs);
      }
    }
    for (let attempt = 0; attempt < mostLookups; attempt++) {
      const { found, mark } = await lookUpKey(env.DB, digest);
      if (!(await confirmStore(env, mark))) continue;
      sawEpoch(mark.epoch, nowMs);
      if (!found) {
        known.delete(digest);
        remember(refused, digest, nowMs);
        return fail({ kind: 'forbidden' });
      }
      const { name, version } = found;
      const bouncer = { id: version.bouncerId, name, version, policy: readPolicy(found.policy) };
      remember(known, digest, { bouncer, epoch: mark.epoch });
      return live(bouncer, nowMs);
    }
    return fail({ kind: 'unavailable', problem: 'keys can not be checked now; try again' });
  } catch (error) {
    console.error(`the key store is out of reach: ${causeOf(error).message}`);
    if (remembered && sinceMs(epoch.seenMs, nowMs) < outageMs) return live(remembered.bouncer, nowMs);
    return fail({ kind: 'unavailable', problem: 'keys can not be checked now; try again' });
  }
}

/** This isolate changed a key itself: it asks anew at the next use. */
afterCommit(() => {
  epoch = { value: -1, seenMs: -Infinity };
  refused.clear();
});

/** A first use was noted: this isolate notes it no more. The key stays known, should D1 go away now. */
export function learnFirstUse({ digest }: KeyVersion, nowMs: number): void {
  const entry = known.get(digest);
  if (!entry) return;
  const { bouncer } = entry;
  const version = { ...bouncer.version, firstUsedMs: nowMs };
  known.set(digest, { ...entry, bouncer: { ...bouncer, version } });
}

function live(bouncer: BouncerIdentity, nowMs: number): Result<BouncerIdentity> {
  return isLive(bouncer.version, nowMs) ? succeed(bouncer) : fail({ kind: 'forbidden' });
}

/** `nowMs` is when the question was asked, so a slow answer does not prolong trust. */
function sawEpoch(value: number, nowMs: number): void {
  if (nowMs >= epoch.seenMs || sinceMs(epoch.seenMs, nowMs) === Infinity) epoch = { value, seenMs: nowMs };
}

function remember<T>(map: Map<string, T>, digest: string, value: T): void {
  if (map.size >= mostRemembered) map.clear();
  map.set(digest, value);
}
