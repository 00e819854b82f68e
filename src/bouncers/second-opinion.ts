// What the feed's object remembers of keys (writer/remembered-keys.ts), for an isolate that knows nothing of one while D1 is
// out of reach. Isolates tell it what they saw in D1 along with what they ask it anyway.

import { sinceMs } from '../runtime/clock.ts';
import { askFeed } from '../feed/client.ts';
import { causeOf } from '../http/failure.ts';
import type { StoreNews } from '../writer/remembered-keys.ts';
import { createGenerations } from '../runtime/generations.ts';
import { createAsking } from '../store/asking.ts';
import { isWithinOutage } from '../store/confirmation.ts';
import { identityOf, type BouncerIdentity } from './identity.ts';

/** It may not have taken what it was told, and forgets what changed: it is told again. */
const tellAgainMs = 5 * 60_000;
const mostTold = 20_000;

/** Digest → when the object was told of it. */
const told = createGenerations<number>(mostTold);

/** Null: the object knows nothing of it, and D1 may. */
const ask = createAsking<Env, BouncerIdentity | null>(
  async (env, digests) => {
    const { heardMs, found } = await askFeed(env, async (feed) => feed.recallKeys(digests));
    const opened = new Map<string, BouncerIdentity | null>(digests.map((digest) => [digest, null]));
    if (!isWithinOutage(heardMs, Date.now())) return opened;
    for (const key of found) opened.set(key.version.digest, identityOf(key) ?? null);
    return opened;
  },
  (error) => console.error(`the feed was not asked about keys: ${causeOf(error).message}`),
);

/** Whom a digest opens for, as far as the object knows; null: it does not know, or can't be asked. */
export async function secondOpinion(env: Env, digest: string): Promise<BouncerIdentity | null> {
  return ask(env, digest).catch(() => null);
}

/** What the object is told: where D1 was, and a bouncer that was right there, unless it was told of it a moment ago. */
export function newsOf(
  { epoch, heardMs }: Pick<StoreNews, 'epoch' | 'heardMs'>,
  bouncer: BouncerIdentity | undefined,
  nowMs: number,
): StoreNews {
  if (!bouncer || sinceMs(told.get(bouncer.version.digest) ?? -Infinity, nowMs) < tellAgainMs) {
    return { epoch, heardMs, key: null };
  }
  told.set(bouncer.version.digest, nowMs);
  const { name, version, columns: policy } = bouncer;
  // Its first use changes nothing of what it opens.
  return { epoch, heardMs, key: { name, version: { ...version, firstUsedMs: null }, policy } };
}

/** What was known of a digest has changed; without one, all of it. */
export function tellAnew(digest?: string): void {
  if (digest === undefined) told.clear();
  else told.delete(digest);
}
