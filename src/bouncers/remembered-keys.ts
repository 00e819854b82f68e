// Keys that the feed's object remembers (writer/remembered-keys.ts), for an isolate that does not know a key while D1 is out
// of reach. With their polls isolates report to the object what they read of keys in D1.

import { sinceMs } from '../runtime/clock.ts';
import { askFeed } from '../feed/client.ts';
import { causeOf } from '../http/failure.ts';
import type { StoreNews } from '../writer/remembered-keys.ts';
import { createGenerations } from '../runtime/generations.ts';
import { createAsking } from '../store/asking.ts';
import { isWithinOutage } from '../store/confirmation.ts';
import type { FoundKey } from '../store/epoch.sql.ts';

/** The object may have missed a report, and forgets keys that changed: each is reported again after this time. */
const reportAgainMs = 5 * 60_000;
const mostReported = 20_000;

/** Digest → when it was reported. */
const reported = createGenerations<number>(mostReported);

/** Null: the object does not know it; D1 may. */
const ask = createAsking<Env, FoundKey | null>(
  async (env, digests) => {
    const { heardMs, found } = await askFeed(env, async (feed) => feed.recallKeys(digests));
    const opened = new Map<string, FoundKey | null>(digests.map((digest) => [digest, null]));
    if (!isWithinOutage(heardMs, Date.now())) return opened;
    for (const key of found) opened.set(key.version.digest, key);
    return opened;
  },
  (error) => console.error(`the feed was not asked about keys: ${causeOf(error).message}`),
);

/** The key of a digest, as the object remembers it; null: it does not know it, or can not be asked. */
export async function recallKey(env: Env, digest: string): Promise<FoundKey | null> {
  return ask(env, digest).catch(() => null);
}

/** What to report: the state of D1, and a key that was valid there unless it was reported a moment ago. */
export function reportOf(
  { epoch, heardMs }: Pick<StoreNews, 'epoch' | 'heardMs'>,
  key: FoundKey | undefined,
  nowMs: number,
): StoreNews {
  if (!key || sinceMs(reported.get(key.version.digest) ?? -Infinity, nowMs) < reportAgainMs) {
    return { epoch, heardMs, key: null };
  }
  reported.set(key.version.digest, nowMs);
  // The object need not hear of the first use: it changes no right.
  return { epoch, heardMs, key: { ...key, version: { ...key.version, firstUsedMs: null } } };
}

/** A key has changed, or without a digest all have: they are reported again. */
export function reportAgain(digest?: string): void {
  if (digest === undefined) reported.clear();
  else reported.delete(digest);
}
