// Keys as isolates saw them in D1, for when D1 is out of reach: an isolate that does not know a key yet asks here then.
//
// The keys count as of one epoch of D1. The object sees every change of keys up to it: with each mutation, and each time
// it compares itself with D1. A change deletes the keys of its bouncers. What an isolate saw as of another epoch is not
// taken, and of a restored D1 nothing is remembered. A mistake here makes a revoked key valid again.

import { sinceMs } from '../runtime/clock.ts';
import { changedSince, type FoundKey, type KeyChange } from '../store/epoch.sql.ts';
import { causeOf } from '../http/failure.ts';
import { createMissing } from '../mirror/decisions.sql.ts';

const tables = [
  `CREATE TABLE IF NOT EXISTS remembered_keys (
     bouncer_id INTEGER NOT NULL, digest TEXT NOT NULL UNIQUE, found TEXT NOT NULL,
     PRIMARY KEY (bouncer_id, digest)) WITHOUT ROWID`,
  `CREATE TABLE IF NOT EXISTS store_heard (
     id INTEGER PRIMARY KEY CHECK (id = 0), epoch INTEGER NOT NULL, heard_ms INTEGER NOT NULL)`,
];

/** What an isolate knows of D1 when it asks something else. */
export interface StoreNews {
  readonly epoch: number;
  /** When D1 last confirmed it. */
  readonly heardMs: number;
  /** The key that asks, as D1 has it at this epoch; null: it was reported before. */
  readonly key: FoundKey | null;
  /** Other keys that the isolate has read in D1 since. Left out by the release before. */
  readonly others?: readonly FoundKey[];
}

/** The moves of D1's epoch from one to another. */
export interface Moves {
  readonly since: number;
  readonly epoch: number;
  readonly changes: readonly KeyChange[];
}

export interface Recalled {
  /** When D1 last answered: the keys were valid then. */
  readonly heardMs: number;
  readonly found: readonly FoundKey[];
}

export type RememberedKeys = ReturnType<typeof openRememberedKeys>;

/** A bouncer has two versions at most, and a deleted one has no row. */
const mostKeys = 200_000;
/** Reported and not written yet. Those beyond are dropped: an isolate reports a key again. */
const mostUnwritten = 20_000;
/** How old the written time of D1's last answer may be: a restart forgets that much. */
const heardWriteMs = 60_000;
const unknownEpoch = -1;

export function openRememberedKeys(sql: SqlStorage) {
  createMissing(sql, tables);
  const [row] = sql.exec<{ epoch: number; ms: number }>(`SELECT epoch, heard_ms AS ms FROM store_heard`);
  let epoch = row?.epoch ?? unknownEpoch;
  let heardMs = row?.ms ?? 0;
  let writtenMs = heardMs;
  let count: number | null = null;
  let failureNoted = false;
  const unwritten = new Map<string, FoundKey>();

  const write = (toEpoch: number, toMs: number): void => {
    sql.exec(`INSERT OR REPLACE INTO store_heard VALUES (0, ?, ?)`, toEpoch, toMs);
    [epoch, heardMs, writtenMs] = [toEpoch, toMs, toMs];
  };
  /** The later one of a moment and the last answer, unless the clock was set back since. */
  const later = (ms: number, nowMs: number): number => (heardMs > nowMs ? ms : Math.max(heardMs, ms));

  /** Deletes the keys of some bouncers; of all without an argument. */
  const forget = (bouncerIds?: ReadonlySet<number>): void => {
    const which = bouncerIds ? 'WHERE bouncer_id IN (SELECT value FROM json_each(?))' : '';
    const values = bouncerIds ? [JSON.stringify([...bouncerIds])] : [];
    const gone = sql.exec(`DELETE FROM remembered_keys ${which} RETURNING 1`, ...values).toArray().length;
    if (count !== null) count -= gone;
  };

  const remember = (key: FoundKey): void => {
    const { digest, bouncerId } = key.version;
    const found = JSON.stringify(key);
    const [there] = sql.exec(`SELECT found FROM remembered_keys WHERE digest = ?`, digest);
    if (there?.['found'] === found) return;
    count ??= Number(sql.exec(`SELECT COUNT(*) AS count FROM remembered_keys`).one()['count']);
    if (!there && count >= mostKeys) return;
    sql.exec(`INSERT OR REPLACE INTO remembered_keys VALUES (?, ?, ?)`, bouncerId, digest, found);
    if (!there) count++;
  };

  return {
    /** The epoch after which the next changes are to be read. */
    since: () => (epoch === unknownEpoch ? Number.MAX_SAFE_INTEGER : epoch),
    /** Deletes the keys that changed. Throws when that can not be written. `askedMs`: when D1 was asked. */
    follow(moves: Moves, askedMs: number): void {
      // All was forgotten since D1 was asked.
      if (epoch === unknownEpoch && moves.since !== Number.MAX_SAFE_INTEGER) return;
      const changed = changedSince(moves.since, moves.epoch, moves.changes);
      const ms = later(askedMs, askedMs);
      for (const [digest, { version }] of unwritten) {
        if (changed === 'all' || changed.has(version.bouncerId)) unwritten.delete(digest);
      }
      try {
        if (changed === 'all') forget();
        else if (changed.size > 0) forget(changed);
        if (moves.epoch > epoch) write(moves.epoch, ms);
        else heardMs = ms;
      } catch (error) {
        // What could not be deleted does not count any more.
        epoch = unknownEpoch;
        throw error;
      }
    },
    forgetAll(): void {
      epoch = unknownEpoch;
      unwritten.clear();
      forget();
      write(unknownEpoch, 0);
    },
    /** Takes what an isolate reports. Writes nothing: a poll goes on where nothing can be written. */
    hear(news: StoreNews, nowMs: number): void {
      if (news.epoch !== epoch) return;
      heardMs = later(Math.min(news.heardMs, nowMs), nowMs);
      for (const key of [news.key, ...(news.others ?? [])]) {
        if (key && unwritten.size < mostUnwritten) unwritten.set(key.version.digest, key);
      }
    },
    /** Writes what was reported. Never throws: what can not be written waits. */
    writeHeard(): void {
      if (epoch === unknownEpoch) return;
      try {
        if (heardMs < writtenMs || sinceMs(writtenMs, heardMs) >= heardWriteMs) write(epoch, heardMs);
        for (const [digest, key] of unwritten) {
          remember(key);
          unwritten.delete(digest);
        }
        failureNoted = false;
      } catch (error) {
        if (!failureNoted) console.error(`a key can not be remembered: ${causeOf(error).message}`);
        failureNoted = true;
      }
    },
    recall(digests: readonly string[]): Recalled {
      if (epoch === unknownEpoch) return { heardMs: 0, found: [] };
      const rows = sql.exec<{ found: string }>(
        `SELECT found FROM remembered_keys WHERE digest IN (SELECT value FROM json_each(?))`,
        JSON.stringify(digests),
      );
      const written = rows.toArray().map(({ found }) => JSON.parse(found) as FoundKey);
      const newer = digests.flatMap((digest) => unwritten.get(digest) ?? []);
      return { heardMs, found: [...written, ...newer] };
    },
  };
}
