// With which key the feed asks the engine: the one that a host sent, or `UPSTREAM_API_KEY`. A new one is tried before the
// old one is given up, so a rotation costs no pull. In storage they are sealed; open they are in memory only.

import { unseal } from '../broker/engine-key.ts';
import { findEngineKey } from '../db/hosts.ts';
import { causeOf } from '../failure.ts';
import type { Settings } from '../settings.ts';
import * as log from './log.ts';

export interface UpstreamKey {
  readonly text: string;
  /** What it is called in errors. */
  readonly name: string;
}

export interface UpstreamKeys {
  /**
   * The key of this round; null: there is none yet. `accepts` asks the engine with a new one, and `isNew` is true in the
   * round in which it does. One that the engine does not take (yet) is tried again in the next.
   */
  choose(
    accepts: (key: UpstreamKey) => Promise<boolean>,
  ): Promise<{ readonly key: UpstreamKey; readonly isNew: boolean } | null>;
  offer(sealed: string): Promise<void>;
  forget(): void;
}

const sentName = 'the key that its host sent';

export function createUpstreamKeys(
  { sql }: DurableObjectStorage,
  { bootstrap, upstream }: Settings,
  d1: D1Database,
): UpstreamKeys {
  const opened = new Map<string, string>();

  /** The key in a slot; one that was sealed under the secret before is sealed anew. */
  const open = async (slot: log.KeySlot): Promise<UpstreamKey | null> => {
    const sealed = log.readUpstreamKey(sql, slot);
    if (sealed === null || !bootstrap) return null;
    const known = opened.get(sealed);
    if (known !== undefined) return { text: known, name: sentName };
    const read = await unseal(bootstrap, sealed);
    // Under neither secret: as if it had not been sent. Its host sends it again.
    if (!read) return null;
    if (log.readUpstreamKey(sql, slot) !== sealed) return open(slot);
    if (read.resealed !== null) log.writeUpstreamKey(sql, slot, read.resealed);
    opened.clear();
    opened.set(read.resealed ?? sealed, read.key);
    return { text: read.key, name: sentName };
  };

  const offer = async (sealed: string): Promise<void> => {
    const current = await open('current');
    const read = bootstrap && (await unseal(bootstrap, sealed));
    if (current && read?.key === current.text) return log.deleteUpstreamKey(sql, 'next');
    log.writeUpstreamKey(sql, 'next', sealed);
  };

  /** What the database has, for an object that lost its storage or was not told. */
  const fetchKept = async (): Promise<UpstreamKey | null> => {
    try {
      const kept = bootstrap && (await findEngineKey(d1));
      if (!kept) return null;
      await offer(kept.sealed);
      return await open('next');
    } catch (error) {
      console.error(`the engine's key can't be read: ${causeOf(error).message}`);
      return null;
    }
  };

  return {
    async choose(accepts) {
      const configured = upstream?.apiKey ?? null;
      const current =
        (await open('current')) ??
        (configured === null ? null : { text: configured, name: 'UPSTREAM_API_KEY' });
      const next = (await open('next')) ?? (current ? null : await fetchKept());
      if (next && (await accepts(next))) {
        const sealed = log.readUpstreamKey(sql, 'next');
        // Another one may have come meanwhile: that one's turn is the next round.
        const same = (await open('next'))?.text === next.text;
        if (same && sealed !== null) {
          log.writeUpstreamKey(sql, 'current', sealed);
          log.deleteUpstreamKey(sql, 'next');
          return { key: next, isNew: true };
        }
      }
      const key = current ?? next;
      return key && { key, isNew: false };
    },
    offer,
    forget() {
      log.deleteUpstreamKey(sql, 'current');
      log.deleteUpstreamKey(sql, 'next');
      opened.clear();
    },
  };
}
