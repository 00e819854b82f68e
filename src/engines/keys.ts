// The key for an engine: one that the engine's host sent, or the one of the settings. An old key is given up only after
// the engine has accepted a new one. A mistake here stops the mirror. Keys are stored sealed and opened in memory only.

import { fail, succeed, type Result } from '../http/failure.ts';
import type { EngineSettings } from '../config/engines.ts';
import { open } from '../crypto/seal.ts';
import { digestOf } from '../crypto/secret.ts';
import type { Settings } from '../config/settings.ts';
import { unwritable } from '../store/unwritable.ts';
import * as log from '../mirror/engines.sql.ts';

export type KeySource = 'setting' | 'host';

export interface EngineKey {
  readonly source: KeySource;
  readonly key: string;
  /** For an operator to read, such as `UPSTREAM_API_KEY`. */
  readonly name: string;
}

interface Candidate extends EngineKey {
  readonly row: log.EngineKeyRow | null;
}

export type EngineKeys = ReturnType<typeof createEngineKeys>;

/** Only the default engine's host sends keys. They are for that engine alone, even if another one is the default later. */
export function createEngineKeys(
  storage: DurableObjectStorage,
  { bootstrap }: Pick<Settings, 'bootstrap'>,
  engine: EngineSettings,
  handle: string,
) {
  const { sql } = storage;
  const rows = (): log.EngineKeyRow[] => log.readEngineKeys(sql, handle);
  /** Sealed key → opened key; null: it can't be opened. */
  const opened = new Map<string, string | null>();
  let chosen: Candidate | null | undefined;

  const keyOf = async ({ host, sealed }: Pick<log.EngineKeyRow, 'host' | 'sealed'>) => {
    const known = opened.get(sealed);
    if (known !== undefined) return known;
    const found = bootstrap && (await open(bootstrap, host, sealed));
    opened.set(sealed, found?.key ?? null);
    if (!found) console.error(`the engine's key of host ${host} was sealed under another BOOTSTRAP_SECRET`);
    if (found?.resealed) reseal(sealed, found.resealed, found.key);
    return found?.key ?? null;
  };

  const reseal = (before: string, sealed: string, key: string): void => {
    try {
      log.resealEngineKey(sql, before, sealed);
    } catch (error) {
      console.error(unwritable('the feed’s storage', error).message);
      return;
    }
    opened.delete(before);
    opened.set(sealed, key);
  };

  /** The best first: the newest one of a host, the one that it sent before, the one of the settings. */
  const candidates = async (): Promise<Candidate[]> => {
    const all: Candidate[] = [];
    const sent = rows();
    for (const sealed of opened.keys()) {
      if (!sent.some((row) => row.sealed === sealed)) opened.delete(sealed);
    }
    for (const row of sent) {
      const key = await keyOf(row);
      if (key !== null) all.push({ source: 'host', key, name: `the key of host ${row.host}`, row });
    }
    const { apiKey, keyName } = engine;
    if (apiKey !== null) all.push({ source: 'setting', key: apiKey, name: keyName, row: null });
    return all;
  };

  return {
    /** Takes a key from a host. It is used as soon as the engine accepts it. `unavailable`: it can't be opened. */
    async offer(host: string, sealed: string): Promise<Result<'registered' | 'unchanged'>> {
      const key = await keyOf({ host, sealed });
      if (key === null) return fail({ kind: 'unavailable', problem: 'the key can not be opened here' });
      const same = (await candidates()).find(({ row, key: known }) => row?.host === host && known === key);
      try {
        if (!same?.row) log.writePendingEngineKey(sql, { host, sealed, engine: handle }, Date.now());
        // The host sent the used key again, so it does not want the pending one any more.
        else if (same.row.state === 'used') log.deletePendingEngineKey(sql);
      } catch (error) {
        return fail({ kind: 'unavailable', problem: unwritable('the feed’s storage', error).message });
      }
      return succeed(same ? 'unchanged' : 'registered');
    },
    /** Deletes the keys of a host. */
    forget(host: string): void {
      log.deleteEngineKeysOf(sql, host);
      if (chosen?.row?.host === host) chosen = undefined;
    },
    /**
     * The key to pull with now; null: there is none. `accepts` is asked for each key that would be better than the last
     * choice and, if that one was `refused`, for all others too.
     */
    async choose(accepts: (key: string) => Promise<boolean>, refused: boolean): Promise<EngineKey | null> {
      const all = await candidates();
      const last = all.findIndex(({ key }) => key === chosen?.key);
      // After a restart: a key that the engine has accepted before, if there is one.
      const known = all.findIndex(({ row }) => row?.state !== 'pending');
      const at = last >= 0 ? last : Math.max(known, 0);
      chosen = all[at] ?? null;
      for (const each of all.filter((_, rank) => rank < at || (refused && rank > at))) {
        if (!(await accepts(each.key))) continue;
        chosen = each;
        break;
      }
      return chosen;
    },
    /** The last choice; null: there is none yet. */
    current: (): EngineKey | null => chosen ?? null,
    /** The engine has accepted this key, so the one before is given up. */
    noteAnswered({ key }: EngineKey): void {
      if (chosen?.key !== key || chosen.row?.state !== 'pending') return;
      const { sealed } = chosen.row;
      if (!storage.transactionSync(() => log.useEngineKey(sql, sealed))) return;
      chosen = { ...chosen, row: { ...chosen.row, state: 'used' } };
    },
    state(): { readonly source: KeySource | null; readonly pending: boolean } {
      const sent = rows();
      const used = sent.some((row) => row.state === 'used');
      const initial = used ? 'host' : engine.apiKey !== null ? 'setting' : sent.length > 0 ? 'host' : null;
      const source = chosen === undefined ? initial : (chosen?.source ?? null);
      const pending = sent.some((row) => row.state === 'pending') || (source === 'setting' && used);
      return { source, pending };
    },
    /** Why there is no key. */
    problem(): string {
      if (rows().length === 0) {
        return 'no key for the engine yet: its host has sent none, and UPSTREAM_API_KEY is not set';
      }
      return (
        "the engine's key was sealed under another BOOTSTRAP_SECRET: name that one in BOOTSTRAP_SECRET_PREVIOUS, or " +
        'let the host send a key again'
      );
    },
    /** The SHA-512 of each key. */
    async digests(): Promise<string[]> {
      return (await candidates()).map(({ key }) => digestOf(key));
    },
  };
}
