// The SQL on engines: how far their mirrors have come, their names, the keys that their hosts sent. The tables are in
// decisions.sql.ts.

import type { KnownEngine, Names } from './engine-names.ts';
import { firstProgress, type Progress, type Trusted } from './progress.ts';

/** A row of `engines`. `lastSyncMs` and `lastResyncMs` are 0 before the first success. */
export interface EngineState {
  /** Its decisions keep the engine's ids here. Those of all other engines get ids of ours. */
  readonly keepsIds: boolean;
  /** The highest id that its database has shown. */
  highestId: number;
  trusted: Trusted;
  /** When it last answered, and when a full list of it was last accepted. */
  lastSyncMs: number;
  lastResyncMs: number;
  /** Its address at `lastResyncMs`, or when it was first configured. Empty: not known, of before version 3. */
  url: string;
  /** Its ids that the newest full list missed. They are kept until a second full list misses them too. */
  held: ReadonlySet<number>;
  progress: Progress;
}

/** All engines that were ever configured. */
export function readKnownEngines(sql: SqlStorage): KnownEngine[] {
  return sql.exec(`SELECT handle, url FROM engines`).toArray() as unknown as KnownEngine[];
}

/** In the order in which the names were given. */
export function readNames(sql: SqlStorage): Names {
  const rows = sql.exec(`SELECT name, handle FROM engine_names ORDER BY rowid`).toArray();
  return new Map(rows.map((row) => [row['name'] as string, row['handle'] as string]));
}

/** The name becomes the last one that was given. */
export function writeName(sql: SqlStorage, name: string, handle: string): void {
  sql.exec(`INSERT OR REPLACE INTO engine_names VALUES (?, ?)`, name, handle);
}

/** The state of an engine. A new one starts empty; the first of all that `mayKeepIds` keeps its ids. */
export function readEngine(sql: SqlStorage, handle: string, url: string, mayKeepIds: boolean): EngineState {
  const known = sql.exec(`SELECT 1 FROM engines WHERE handle = ?`, handle).toArray().length > 0;
  if (!known) {
    sql.exec(
      `INSERT INTO engines VALUES
         (?, ? AND NOT EXISTS (SELECT 1 FROM engines WHERE keeps_ids), 0, 0, 0, 0, 0, ?, '{}')`,
      handle,
      Number(mayKeepIds),
      url,
    );
  }
  const row = sql.exec(`SELECT * FROM engines WHERE handle = ?`, handle).one() as Record<string, number>;
  const progress = JSON.parse(String(row['progress'])) as Partial<Progress>;
  return {
    keepsIds: row['keeps_ids'] === 1,
    highestId: row['highest_id'] as number,
    trusted: {
      sequence: row['trusted_sequence'] as number,
      highestId: row['trusted_highest_id'] as number,
    },
    lastSyncMs: row['last_sync_ms'] as number,
    lastResyncMs: row['last_resync_ms'] as number,
    url: String(row['url']),
    held: readHeld(sql, handle),
    progress: { ...firstProgress, ...progress },
  };
}

/** Writes all of it but `held`, which may be large and changes with full lists only. */
export function writeEngine(sql: SqlStorage, handle: string, state: EngineState): void {
  sql.exec(
    `UPDATE engines SET highest_id = ?, trusted_sequence = ?, trusted_highest_id = ?, last_sync_ms = ?,
       last_resync_ms = ?, url = ?, progress = ? WHERE handle = ?`,
    state.highestId,
    state.trusted.sequence,
    state.trusted.highestId,
    state.lastSyncMs,
    state.lastResyncMs,
    state.url,
    JSON.stringify(state.progress),
    handle,
  );
}

/** Ids per row: some 1 MB of the 2 MB that a row may have. */
const heldPerRow = 100_000;

export function writeHeld(sql: SqlStorage, handle: string, held: ReadonlySet<number>): void {
  sql.exec(`DELETE FROM missing WHERE engine = ?`, handle);
  const ids = [...held];
  for (let part = 0; part * heldPerRow < ids.length; part++) {
    const some = ids.slice(part * heldPerRow, (part + 1) * heldPerRow);
    sql.exec(`INSERT INTO missing VALUES (?, ?, ?)`, handle, part, JSON.stringify(some));
  }
}

function readHeld(sql: SqlStorage, handle: string): ReadonlySet<number> {
  const rows = sql.exec(`SELECT ids FROM missing WHERE engine = ?`, handle).toArray();
  return new Set(rows.flatMap((row) => JSON.parse(String(row['ids'])) as number[]));
}

/** A key that a host sent. `pending`: the engine has not accepted it yet. */
export interface EngineKeyRow {
  readonly state: 'pending' | 'used';
  readonly host: string;
  readonly sealed: string;
  /** The engine's handle. */
  readonly engine: string;
}

/** The newest first: at most one of each state. */
export function readEngineKeys(sql: SqlStorage, engine: string): EngineKeyRow[] {
  const columns = `state, host, sealed, engine`;
  const rows = sql.exec(`SELECT ${columns} FROM engine_keys WHERE engine = ? ORDER BY state`, engine);
  return rows.toArray() as unknown as EngineKeyRow[];
}

export function writePendingEngineKey(
  sql: SqlStorage,
  { host, sealed, engine }: Omit<EngineKeyRow, 'state'>,
  nowMs: number,
): void {
  sql.exec(`INSERT OR REPLACE INTO engine_keys VALUES ('pending', ?, ?, ?, ?)`, host, sealed, nowMs, engine);
}

/** The pending key replaces the used one. False: it is not the pending one any more. The caller has a transaction. */
export function useEngineKey(sql: SqlStorage, sealed: string): boolean {
  const pending = sql.exec(`SELECT 1 FROM engine_keys WHERE state = 'pending' AND sealed = ?`, sealed);
  if (pending.toArray().length === 0) return false;
  sql.exec(`DELETE FROM engine_keys WHERE state = 'used'`);
  sql.exec(`UPDATE engine_keys SET state = 'used'`);
  return true;
}

export function resealEngineKey(sql: SqlStorage, before: string, sealed: string): void {
  sql.exec(`UPDATE engine_keys SET sealed = ? WHERE sealed = ?`, sealed, before);
}

export function deletePendingEngineKey(sql: SqlStorage): void {
  sql.exec(`DELETE FROM engine_keys WHERE state = 'pending'`);
}

export function deleteEngineKeysOf(sql: SqlStorage, host: string): void {
  sql.exec(`DELETE FROM engine_keys WHERE host = ?`, host);
}
