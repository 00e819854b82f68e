// The SQL of the feed's Durable Object: all of its tables, and the statements on all but those of ends-log.ts.
//
// decisions  the truth of what is mirrored and of what ended, in which order. Losing it costs one full list
//            from the engine and a full state for every bouncer. No index but the key: a community list of
//            50,000 replaced every 2 h is 18 million billed row writes a month as it is, each index doubles it.
// feed       one row: the change counter and what must outlive a restart beside it.
// engines    how far each engine's mirror has come, and where it was. Losing a row costs a full list.
// engine_names  what engines are or were called. Losing a row: a view by a former name has nothing of its engine.
// clients    cursors and sightings, 16 shards of JSON written behind: one row a poll would cost more than all
//            the rest together. Losing a shard costs repeats, never a change.
// engine_keys  the key to pull with, sealed, and the one that is to follow it. Losing them: the host sends one again.
// audit_anchor  one row: how far D1's audit log had come. Apart from D1 on purpose: it shows a cut tail.
// ended_keys  digests of keys and operator tokens with the moment from which they open nothing, and lost_tails, the
//            ends of audit logs that D1 lost. Losing them lets a restored D1 bring a revoked key back.
// once       bans by their request, for a day: a request that is sent again bans once.

import { intern, type Decision, type Row } from './decision.ts';
import type { KnownEngine, Names } from './identity.ts';
import type { Change } from './mirror.ts';
import type { Trusted } from './sync.ts';

const feedTable = `CREATE TABLE IF NOT EXISTS feed (
  id INTEGER PRIMARY KEY CHECK (id = 0), version INTEGER NOT NULL, sequence INTEGER NOT NULL,
  purged_sequence INTEGER NOT NULL, next_local_id INTEGER NOT NULL)`;

const otherTables = [
  `CREATE TABLE IF NOT EXISTS engines (
     handle TEXT PRIMARY KEY, keeps_ids INTEGER NOT NULL, highest_id INTEGER NOT NULL,
     trusted_sequence INTEGER NOT NULL, trusted_highest_id INTEGER NOT NULL, last_sync_ms INTEGER NOT NULL,
     last_resync_ms INTEGER NOT NULL, url TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS engine_names (name TEXT PRIMARY KEY, handle TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS decisions (
     row_id INTEGER PRIMARY KEY, id INTEGER NOT NULL, uuid TEXT, origin TEXT NOT NULL, scenario TEXT NOT NULL,
     scope TEXT NOT NULL, type TEXT NOT NULL, value TEXT NOT NULL, until_ms INTEGER NOT NULL,
     added_seq INTEGER NOT NULL, removed_seq INTEGER NOT NULL, removed_ms INTEGER NOT NULL,
     engine TEXT NOT NULL, engine_id INTEGER NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS clients (shard INTEGER PRIMARY KEY, body TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS audit_anchor (
     id INTEGER PRIMARY KEY CHECK (id = 0), seq INTEGER NOT NULL, hash TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS ended_keys (
     row_id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, ends_ms INTEGER NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS lost_tails (
     hash TEXT PRIMARY KEY, seq INTEGER NOT NULL, goes_on_at INTEGER NOT NULL, found_ms INTEGER NOT NULL,
     acknowledged_ms INTEGER)`,
  `CREATE TABLE IF NOT EXISTS once (request TEXT PRIMARY KEY, decision TEXT NOT NULL, at_ms INTEGER NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS engine_keys (
     state TEXT PRIMARY KEY CHECK (state IN ('pending', 'used')), host TEXT NOT NULL, sealed TEXT NOT NULL,
     received_ms INTEGER NOT NULL, engine TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS bases (id INTEGER PRIMARY KEY, body TEXT NOT NULL)`,
];

/** The `feed` row. */
export interface FeedState {
  sequence: number;
  purgedSequence: number;
  nextLocalId: number;
}

/** A row of `engines`. `lastSyncMs` and `lastResyncMs` are 0 before the first success. */
export interface EngineState {
  /** Its decisions have its own ids here; those of all others get ids of ours. */
  readonly keepsIds: boolean;
  /** The highest id that its database has shown. */
  highestId: number;
  trusted: Trusted;
  lastSyncMs: number;
  lastResyncMs: number;
  /** Where it was at `lastResyncMs`, or when it was first heard of. Empty: not known, of before version 3. */
  url: string;
}

/** What version 1 knew one engine of, called `default`, and kept in `feed`. */
const toVersion2 = [
  `CREATE TABLE engines (
     name TEXT PRIMARY KEY, keeps_ids INTEGER NOT NULL, highest_id INTEGER NOT NULL,
     trusted_sequence INTEGER NOT NULL, trusted_highest_id INTEGER NOT NULL, last_sync_ms INTEGER NOT NULL,
     last_resync_ms INTEGER NOT NULL)`,
  `INSERT INTO engines SELECT 'default', 1, highest_id, trusted_sequence, trusted_highest_id, last_sync_ms,
     last_resync_ms FROM feed`,
  ...['highest_id', 'trusted_sequence', 'trusted_highest_id', 'last_sync_ms', 'last_resync_ms'].map(
    (column) => `ALTER TABLE feed DROP COLUMN ${column}`,
  ),
  `ALTER TABLE decisions ADD COLUMN engine TEXT NOT NULL DEFAULT 'default'`,
  `ALTER TABLE decisions ADD COLUMN engine_id INTEGER NOT NULL DEFAULT 0`,
  `UPDATE decisions SET engine_id = id WHERE id < 1073741824`,
  `UPDATE decisions SET engine = '' WHERE origin = 'lapidary' AND id >= 1073741824`,
];

/** Version 2 knew an engine by its name alone, and whose host's keys were by which engine was the first. */
const toVersion3 = [
  `ALTER TABLE engines RENAME COLUMN name TO handle`,
  `ALTER TABLE engines ADD COLUMN url TEXT NOT NULL DEFAULT ''`,
  `CREATE TABLE engine_names (name TEXT PRIMARY KEY, handle TEXT NOT NULL)`,
  `INSERT INTO engine_names SELECT handle, handle FROM engines`,
  `CREATE TABLE IF NOT EXISTS engine_keys (
     state TEXT PRIMARY KEY CHECK (state IN ('pending', 'used')), host TEXT NOT NULL, sealed TEXT NOT NULL,
     received_ms INTEGER NOT NULL)`,
  `ALTER TABLE engine_keys ADD COLUMN engine TEXT NOT NULL DEFAULT ''`,
  `UPDATE engine_keys SET engine = COALESCE((SELECT handle FROM engines WHERE keeps_ids), '')`,
  `UPDATE feed SET version = 3`,
];

/**
 * Creates the tables at the first wake, and at a later one those that came with a later release. A schema that
 * changes a table adds a version and its steps here: they come first, on the tables as that version left them.
 */
export function openLog(storage: DurableObjectStorage, firstLocalId: number): void {
  const { sql } = storage;
  const run = (statements: readonly string[]): void => statements.forEach((statement) => sql.exec(statement));
  storage.transactionSync(() => {
    sql.exec(feedTable);
    const [feed] = sql.exec(`SELECT version FROM feed`).toArray();
    if (feed?.['version'] === 1) run(toVersion2);
    if (feed && Number(feed['version']) < 3) run(toVersion3);
    run(otherTables);
    if (!feed) sql.exec(`INSERT INTO feed VALUES (0, 3, 0, 0, ?)`, firstLocalId);
  });
}

export function readState(sql: SqlStorage): FeedState {
  const row = sql.exec(`SELECT * FROM feed`).one() as Record<string, number>;
  return {
    sequence: row['sequence'] as number,
    purgedSequence: row['purged_sequence'] as number,
    nextLocalId: row['next_local_id'] as number,
  };
}

export function writeState(sql: SqlStorage, { sequence, purgedSequence, nextLocalId }: FeedState): void {
  sql.exec(
    `UPDATE feed SET sequence = ?, purged_sequence = ?, next_local_id = ?`,
    sequence,
    purgedSequence,
    nextLocalId,
  );
}

/** All engines that were ever heard of. */
export function readKnownEngines(sql: SqlStorage): KnownEngine[] {
  return sql.exec(`SELECT handle, url FROM engines`).toArray() as unknown as KnownEngine[];
}

/** In the order in which they were given. */
export function readNames(sql: SqlStorage): Names {
  const rows = sql.exec(`SELECT name, handle FROM engine_names ORDER BY rowid`).toArray();
  return new Map(rows.map((row) => [row['name'] as string, row['handle'] as string]));
}

/** Becomes the last of the names that were given. */
export function writeName(sql: SqlStorage, name: string, handle: string): void {
  sql.exec(`INSERT OR REPLACE INTO engine_names VALUES (?, ?)`, name, handle);
}

/** The state of an engine; one that was never heard of begins. The first of all keeps its ids. */
export function readEngine(sql: SqlStorage, handle: string, url: string): EngineState {
  sql.exec(
    `INSERT OR IGNORE INTO engines
       VALUES (?, NOT EXISTS (SELECT 1 FROM engines WHERE keeps_ids), 0, 0, 0, 0, 0, ?)`,
    handle,
    url,
  );
  const row = sql.exec(`SELECT * FROM engines WHERE handle = ?`, handle).one() as Record<string, number>;
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
  };
}

export function writeEngine(sql: SqlStorage, handle: string, state: EngineState): void {
  sql.exec(
    `UPDATE engines SET highest_id = ?, trusted_sequence = ?, trusted_highest_id = ?, last_sync_ms = ?,
       last_resync_ms = ?, url = ? WHERE handle = ?`,
    state.highestId,
    state.trusted.sequence,
    state.trusted.highestId,
    state.lastSyncMs,
    state.lastResyncMs,
    state.url,
    handle,
  );
}

type Texts = [origin: string, scenario: string, scope: string, type: string, value: string];
type Own = [addedSeq: number, removedSeq: number, removedMs: number, engine: string, engineId: number];
type Cells = [rowId: number, id: number, uuid: string | null, ...Texts, untilMs: number, ...Own];

/** All rows, tombstones too. */
export function readRows(sql: SqlStorage): Row[] {
  const rows: Row[] = [];
  const cursor = sql.exec(
    `SELECT row_id, id, uuid, origin, scenario, scope, type, value, until_ms, added_seq, removed_seq, removed_ms,
       engine, engine_id FROM decisions`,
  );
  for (const cells of cursor.raw()) {
    const [rowId, id, uuid, origin, scenario, scope, type, value, untilMs, ...own] = cells as Cells;
    const [addedSeq, removedSeq, removedMs, engine, engineId] = own;
    const decision = {
      id,
      ...(uuid === null ? {} : { uuid }),
      origin: intern(origin),
      scenario: intern(scenario),
      scope: intern(scope),
      type: intern(type),
      value,
      untilMs,
    };
    const place = { rowId, engine: intern(engine), engineId };
    rows.push(createRow(place, decision, addedSeq, removedSeq, removedMs));
  }
  return rows;
}

/** A row as the mirror holds it; all rows have the same fields in the same order, which keeps them small. */
export function createRow(
  { rowId, engine, engineId }: Pick<Row, 'rowId' | 'engine' | 'engineId'>,
  decision: Decision,
  addedSeq: number,
  removedSeq = 0,
  removedMs = 0,
): Row {
  const { id, uuid, origin, scenario, scope, type, value, untilMs } = decision;
  const told = { rowId, engine, engineId, id, origin, scenario, scope, type, value, untilMs };
  const row = { ...told, addedSeq, removedSeq, removedMs };
  return uuid === undefined ? row : { ...row, uuid };
}

/** Writes one change by difference: one billed row per decision that came, went or was renewed. */
export function writeChange(sql: SqlStorage, change: Change): void {
  for (const { row, seq, atMs } of change.removed) {
    sql.exec(`UPDATE decisions SET removed_seq = ?, removed_ms = ? WHERE row_id = ?`, seq, atMs, row.rowId);
  }
  for (const { row, renewed } of change.added) {
    if (renewed) {
      sql.exec(
        `UPDATE decisions SET id = ?, uuid = ?, until_ms = ?, added_seq = ?, engine = ?, engine_id = ? WHERE row_id = ?`,
        row.id,
        row.uuid ?? null,
        row.untilMs,
        row.addedSeq,
        row.engine,
        row.engineId,
        row.rowId,
      );
    } else {
      sql.exec(
        `INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?)`,
        row.rowId,
        row.id,
        row.uuid ?? null,
        row.origin,
        row.scenario,
        row.scope,
        row.type,
        row.value,
        row.untilMs,
        row.addedSeq,
        row.engine,
        row.engineId,
      );
    }
  }
}

/** Forgets tombstones up to a sequence; the caller writes `purgedSequence` in the same transaction. */
export function deleteTombstones(sql: SqlStorage, upToSequence: number): void {
  sql.exec(`DELETE FROM decisions WHERE removed_seq > 0 AND removed_seq <= ?`, upToSequence);
}

export function readClientShards(sql: SqlStorage): string[] {
  return sql
    .exec(`SELECT body FROM clients`)
    .toArray()
    .map((row) => row['body'] as string);
}

export function writeClientShard(sql: SqlStorage, shard: number, body: string): void {
  sql.exec(
    `INSERT INTO clients VALUES (?, ?) ON CONFLICT (shard) DO UPDATE SET body = excluded.body`,
    shard,
    body,
  );
}

/** Bodies by id: what the answers to limited bouncers were made from (basis.ts). */
export function readBases(sql: SqlStorage): Map<number, string> {
  const rows = sql.exec(`SELECT id, body FROM bases`).toArray();
  return new Map(rows.map((row) => [row['id'] as number, row['body'] as string]));
}

export function writeBasis(sql: SqlStorage, id: number, body: string): void {
  sql.exec(`INSERT OR REPLACE INTO bases VALUES (?, ?)`, id, body);
}

export function deleteBasis(sql: SqlStorage, id: number): void {
  sql.exec(`DELETE FROM bases WHERE id = ?`, id);
}

/** A key that a host sent. `pending`: the engine has not answered it yet. */
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

/** The pending key takes the used one's place; false: it is not the pending one any more. In a transaction. */
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

/** The decision that a request made, as JSON. */
export function readOnce(sql: SqlStorage, request: string): string | null {
  const [row] = sql.exec(`SELECT decision FROM once WHERE request = ?`, request).toArray();
  return row ? (row['decision'] as string) : null;
}

export function writeOnce(sql: SqlStorage, request: string, decision: string, nowMs: number): void {
  sql.exec(`INSERT INTO once VALUES (?, ?, ?)`, request, decision, nowMs);
}

export function forgetOnce(sql: SqlStorage, cutoffMs: number): void {
  sql.exec(`DELETE FROM once WHERE at_ms < ?`, cutoffMs);
}
