// The key that the feed pulls from an engine with: one that the engine's host sent, or the setting's. The old one is given
// up when the engine has answered a new one, never before: a mistake here is a mirror that stands still. Keys are kept
// sealed and opened in memory only.

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
  /** For an operator to read: `UPSTREAM_API_KEY`. */
  readonly name: string;
}

export interface EngineKeys {
  /** Takes a key from a host. It is used as soon as the engine accepts it. `unavailable` when it can't be opened. */
  offer(host: string, sealed: string): Promise<Result<'registered' | 'unchanged'>>;
  /** Gives up what a host sent. */
  forget(host: string): void;
  /**
   * The key to pull with now; null: there is none. `accepts` is asked of each that would be better than the last one
   * chosen, and, when that one was `refused`, of the others too.
   */
  choose(accepts: (key: string) => Promise<boolean>, refused: boolean): Promise<EngineKey | null>;
  /** The one chosen last; null: there is none yet. Asks nobody. */
  current(): EngineKey | null;
  /** The engine has answered it: the one before is given up. */
  noteAnswered(key: EngineKey): void;
  state(): { readonly source: KeySource | null; readonly pending: boolean };
  /** Why there is none. */
  problem(): string;
  /** The SHA-512 of each of them. */
  digests(): Promise<string[]>;
}

interface Candidate extends EngineKey {
  readonly row: log.EngineKeyRow | null;
}

/** Of the engines only the default one's host sends a key; it is for no other engine that is the default one later. */
export function createEngineKeys(
  storage: DurableObjectStorage,
  { bootstrap }: Pick<Settings, 'bootstrap'>,
  engine: EngineSettings,
  handle: string,
): EngineKeys {
  const { sql } = storage;
  const rows = (): log.EngineKeyRow[] => log.readEngineKeys(sql, handle);
  /** What is sealed → the key; null: it can't be opened. */
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

  /** The best first: what a host sent last, what it sent before, the setting's. */
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
    async offer(host, sealed) {
      const key = await keyOf({ host, sealed });
      if (key === null) return fail({ kind: 'unavailable', problem: 'the key can not be opened here' });
      const same = (await candidates()).find(({ row, key: known }) => row?.host === host && known === key);
      try {
        if (!same?.row) log.writePendingEngineKey(sql, { host, sealed, engine: handle }, Date.now());
        // Sent before, and sent again since: whatever came between is not what the host wants.
        else if (same.row.state === 'used') log.deletePendingEngineKey(sql);
      } catch (error) {
        return fail({ kind: 'unavailable', problem: unwritable('the feed’s storage', error).message });
      }
      return succeed(same ? 'unchanged' : 'registered');
    },
    forget(host) {
      log.deleteEngineKeysOf(sql, host);
      if (chosen?.row?.host === host) chosen = undefined;
    },
    async choose(accepts, refused) {
      const all = await candidates();
      const last = all.findIndex(({ key }) => key === chosen?.key);
      // At a start: what the engine is known to accept, if there is such a one.
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
    current: () => chosen ?? null,
    noteAnswered({ key }) {
      if (chosen?.key !== key || chosen.row?.state !== 'pending') return;
      const { sealed } = chosen.row;
      if (!storage.transactionSync(() => log.useEngineKey(sql, sealed))) return;
      chosen = { ...chosen, row: { ...chosen.row, state: 'used' } };
    },
    state() {
      const sent = rows();
      const used = sent.some((row) => row.state === 'used');
      const first = used ? 'host' : engine.apiKey !== null ? 'setting' : sent.length > 0 ? 'host' : null;
      const source = chosen === undefined ? first : (chosen?.source ?? null);
      const pending = sent.some((row) => row.state === 'pending') || (source === 'setting' && used);
      return { source, pending };
    },
    problem() {
      if (rows().length === 0) {
        return 'no key for the engine yet: its host has sent none, and UPSTREAM_API_KEY is not set';
      }
      return (
        "the engine's key was sealed under another BOOTSTRAP_SECRET: name that one in BOOTSTRAP_SECRET_PREVIOUS, or " +
        'let the host send a key again'
      );
    },
    async digests() {
      return Promise.all((await candidates()).map(({ key }) => digestOf(key)));
    },
  };
}
