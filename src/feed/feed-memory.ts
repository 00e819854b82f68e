// What the writer of D1 asks of the rest of the feed's object, and tells it: what must be forgotten with a bouncer, which keys
// are new, and who was seen.

import type { defaultOf } from '../engines/engines.ts';
import { setAllowList } from '../mirror/allow-list.ts';
import type { Store } from '../mirror/mirror.ts';
import * as clients from '../stream/clients.ts';
import { invalidateAll } from '../stream/invalidated.ts';
import type { NewKeys } from '../stream/new-keys.sql.ts';
import type { Stream } from '../stream/poll.ts';
import { createAllowListCopy } from '../writer/allow-list.ts';
import type { RememberedKeys } from '../writer/remembered-keys.ts';
import type { FeedMemory } from '../writer/writer.ts';
import { pause } from '../runtime/wait.ts';
import type { Clock } from '../runtime/clock.ts';

interface Parts {
  readonly feed: Pick<FeedMemory, 'keyDigests' | 'note' | 'clientsOf'> & {
    readonly lostTails: () => readonly unknown[];
  };
  readonly store: Store;
  readonly stream: Stream;
  readonly newKeys: NewKeys;
  readonly keys: RememberedKeys;
  readonly engine: () => ReturnType<typeof defaultOf>;
  /** What keeps something of single bouncers, besides their clients. */
  readonly ofBouncers: () => readonly Pick<FeedMemory, 'forgetBouncer' | 'forgetBouncersAfter'>[];
}

/** The object's clock, and a pause in which it answers others. */
export const clock: Clock = { now: () => Date.now(), pause };

export function createFeedMemory(d1: D1Database, parts: Parts): FeedMemory {
  const { feed, store, stream, newKeys, keys, engine, ofBouncers } = parts;
  const known = stream.clients;
  return {
    forgetBouncersAfter: (bouncerId) => {
      // A new bouncer with a reused id must not get another one's cursors.
      clients.forgetClients(known, (client) => client.bouncerId > bouncerId);
      for (const each of ofBouncers()) each.forgetBouncersAfter(bouncerId);
      invalidateAll(stream.invalidated);
    },
    forgetBouncer: (bouncerId) => {
      clients.forgetClients(known, (client) => client.bouncerId === bouncerId);
      for (const each of ofBouncers()) each.forgetBouncer(bouncerId);
    },
    noteNewKey: (key) => {
      // After a backup was restored nobody knows which bouncers had been there before.
      if (feed.lostTails().length === 0) newKeys.add(key, store.mirror.sequence);
    },
    forgetEngineKey: (host) => engine()?.keys.forget(host),
    keyDigests: () => feed.keyDigests(),
    note: (sightings) => feed.note(sightings),
    clientsOf: (bouncerIds) => feed.clientsOf(bouncerIds),
    keys,
    allowList: createAllowListCopy(d1, (entries) => setAllowList(store, entries, clock)),
  };
}
