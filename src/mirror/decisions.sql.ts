// The SQL of the feed's Durable Object: its tables but those of clients-log.ts, new-keys.ts, remembered-keys.ts and
// kept-back.ts, and the statements on all but those of engines-log.ts, ends-log.ts and location.ts.
//
// decisions  the truth of what is mirrored and of what ended, in which order. Losing it costs one full list
//            from the engine and a full state for every bouncer. No index but the key: a community list of
//            50,000 replaced every 2 h is 18 million billed row writes a month as it is, each index doubles it.
// feed       one row: the change counter and what must outlive a restart beside it.
// engines    how far each engine's mirror has come, and where it was. Losing a row costs a full list.
// missing    what the newest full list of an engine missed and is kept until a second one does. Losing it costs a list.
// engine_names  what engines are or were called. Losing a row: a view by a former name has nothing of its engine.
// engine_keys  the key to pull with, sealed, and the one that is to follow it. Losing them: the host sends one again.
// audit_anchor  one row: how far D1's audit log was sealed, and unsealed_rows, what was written since; audit_start, the last
//            row that was removed by its age. Apart from D1 on purpose: they show a row that was changed or lost.
// ended_keys  digests of keys and operator tokens with the moment from which they open nothing, and lost_tails, the
//            ends of audit logs that D1 lost. Losing them lets a restored D1 bring a revoked key back.
// location   one row: FEED_LOCATION as it was when this object was made. D1 has it, too, for the objects that it is not.
// once       answers to bans and unbans by their request, for a day: one that is sent again is done once.

import { canonicalValue } from '../formats/canonical.ts';
import { intern, type Decision, type Row } from '../formats/decision.ts';
import type { Change } from './memory.ts';

const feedTable = `CREATE TABLE IF NOT EXISTS feed (
  id INTEGER PRIMARY KEY CHECK (id = 0), version INTEGER NOT NULL, sequence INTEGER NOT NULL,
  purged_sequence INTEGER NOT NULL, next_local_id INTEGER NOT NULL)`;

const otherTables = [
  `CREATE TABLE IF NOT EXISTS engines (
     handle TEXT PRIMARY KEY, keeps_ids INTEGER NOT NULL, highest_id INTEGER NOT NULL,
     trusted_sequence INTEGER NOT NULL, trusted_highest_id INTEGER NOT NULL, last_sync_ms INTEGER NOT NULL,
     last_resync_ms INTEGER NOT NULL, url TEXT NOT NULL, progress TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS missing (
     engine TEXT NOT NULL, part INTEGER NOT NULL, ids TEXT NOT NULL, PRIMARY KEY (engine, part))`,
  `CREATE TABLE IF NOT EXISTS engine_names (name TEXT PRIMARY KEY, handle TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS decisions (
     row_id INTEGER PRIMARY KEY, id INTEGER NOT NULL, uuid TEXT, origin TEXT NOT NULL, scenario TEXT NOT NULL,
     scope TEXT NOT NULL, type TEXT NOT NULL, value TEXT NOT NULL, until_ms INTEGER NOT NULL,
     added_seq INTEGER NOT NULL, removed_seq INTEGER NOT NULL, removed_ms INTEGER NOT NULL,
     engine TEXT NOT NULL, engine_id INTEGER NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS audit_anchor (
     id INTEGER PRIMARY KEY CHECK (id = 0), seq INTEGER NOT NULL, hash TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS audit_start (
     id INTEGER PRIMARY KEY CHECK (id = 0), seq INTEGER NOT NULL, hash TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS unsealed_rows (seq INTEGER PRIMARY KEY, digest TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS ended_keys (
     row_id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, ends_ms INTEGER NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS lost_tails (
     hash TEXT PRIMARY KEY, seq INTEGER NOT NULL, goes_on_at INTEGER NOT NULL, found_ms INTEGER NOT NULL,
     acknowledged_ms INTEGER)`,
  `CREATE TABLE IF NOT EXISTS once (request TEXT PRIMARY KEY, decision TEXT NOT NULL, at_ms INTEGER NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS engine_keys (
     state TEXT PRIMARY KEY CHECK (state IN ('pending', 'used')), host TEXT NOT NULL, sealed TEXT NOT NULL,
     received_ms INTEGER NOT NULL, engine TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS location (id INTEGER PRIMARY KEY CHECK (id = 0), location TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS bases (id INTEGER PRIMARY KEY, body TEXT NOT NULL)`,
];

/** The `feed` row. */
export interface FeedState {
  sequence: number;
  purgedSequence: number;
  nextLocalId: number;
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
];

/** Version 3 kept in memory what a round needs of the one before it: it began with a full list at each start. */
const toVersion4 = [
  `ALTER TABLE engines ADD COLUMN progress TEXT NOT NULL DEFAULT '{"urgency":"now"}'`,
  `UPDATE feed SET version = 4`,
];

/**
 * Creates the tables at the first wake, and at a later one those that came with a later release. A schema that
 * changes a table adds a version and its steps here: they come first, on the tables as that version left them.
 */
export function openLog(storage: DurableObjectStorage, firstLocalId: number): void {
  const { sql } = storage;
  const run = (statements: readonly string[]): void => statements.forEach((statement) => sql.exec(statement));
  storage.transactionSync(() => {
    createMissing(sql, [feedTable]);
    const [feed] = sql.exec(`SELECT version FROM feed`).toArray();
    if (feed?.['version'] === 1) run(toVersion2);
    if (feed && Number(feed['version']) < 3) run(toVersion3);
    if (feed && Number(feed['version']) < 4) run(toVersion4);
    createMissing(sql, otherTables);
    if (!feed) sql.exec(`INSERT INTO feed VALUES (0, 4, 0, 0, ?)`, firstLocalId);
  });
}

/**
 * Runs those of some `CREATE TABLE` that there is need of. Where nothing can be written even one that does nothing is
 * refused, and with it the object's start.
 */
export function createMissing(sql: SqlStorage, statements: readonly string[]): void {
  const tables = sql.exec(`SELECT name FROM sqlite_master WHERE type = 'table'`).toArray();
  const there = new Set(tables.map(({ name }) => name));
  for (const statement of statements) {
    if (!there.has(/^CREATE TABLE (?:IF NOT EXISTS )?(\w+)/.exec(statement)?.[1] ?? '')) sql.exec(statement);
  }
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

type Texts = [origin: string, scenario: string, scope: string, type: string, value: string];
type Own = [addedSeq: number, removedSeq: number, removedMs: number, engine: string, engineId: number];
type Cells = [rowId: number, id: number, uuid: string | null, ...Texts, untilMs: number, ...Own];

const columns = `row_id, id, uuid, origin, scenario, scope, type, value, until_ms, added_seq, removed_seq, removed_ms,
  engine, engine_id`;

/** Active decisions, and the tombstones after a sequence. */
export function readRows(sql: SqlStorage, afterSequence: number): Row[] {
  return rowsOf(
    sql.exec(`SELECT ${columns} FROM decisions WHERE removed_seq = 0 OR removed_seq > ?`, afterSequence),
  );
}

/** A page of the tombstones up to a sequence: those after a row id, by row id. */
export function readTombstones(
  sql: SqlStorage,
  upToSequence: number,
  afterRowId: number,
  limit: number,
): Row[] {
  return rowsOf(
    sql.exec(
      `SELECT ${columns} FROM decisions WHERE row_id > ? AND removed_seq > 0 AND removed_seq <= ?
         ORDER BY row_id LIMIT ?`,
      afterRowId,
      upToSequence,
      limit,
    ),
  );
}

function rowsOf(cursor: SqlStorageCursor<Record<string, SqlStorageValue>>): Row[] {
  const rows: Row[] = [];
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
  const row = {
    rowId,
    engine,
    engineId,
    id,
    origin,
    scenario,
    scope,
    type,
    value,
    canonicalValue: canonicalValue(scope, value),
    untilMs,
    addedSeq,
    removedSeq,
    removedMs,
  };
  return uuid === undefined ? row : { ...row, uuid };
}

/** Writes one change by difference: one billed row per decision that came, went or was renewed. */
export function writeChange(sql: SqlStorage, change: Change): void {
  for (const row of change.again) insertRow(sql, row);
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
    } else insertRow(sql, row);
  }
}

function insertRow(sql: SqlStorage, row: Row): void {
  sql.exec(
    `INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
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
    row.removedSeq,
    row.removedMs,
    row.engine,
    row.engineId,
  );
}

/** The sequence of the newest tombstone but so many; null: there are no more. Not read are the rows themselves. */
export function tombstoneBefore(sql: SqlStorage, count: number): number | null {
  const ended = `FROM decisions WHERE removed_seq > 0`;
  if (Number(sql.exec(`SELECT COUNT(*) AS n ${ended}`).one()['n']) <= count) return null;
  const newest = `SELECT removed_seq ${ended} ORDER BY removed_seq DESC LIMIT 1 OFFSET ?`;
  return Number(sql.exec(newest, count).one()['removed_seq']);
}

/** Forgets the tombstones up to a sequence, but for some; the caller writes `purgedSequence` in the same transaction. */
export function deleteTombstones(sql: SqlStorage, upToSequence: number, but: readonly Row[]): void {
  sql.exec(
    `DELETE FROM decisions WHERE removed_seq > 0 AND removed_seq <= ?
       AND row_id NOT IN (SELECT value FROM json_each(?))`,
    upToSequence,
    JSON.stringify(but.map(({ rowId }) => rowId)),
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

/** What a request was answered, as JSON. */
export function readOnce(sql: SqlStorage, request: string): string | null {
  const [row] = sql.exec(`SELECT decision FROM once WHERE request = ?`, request).toArray();
  return row ? (row['decision'] as string) : null;
}

export function writeOnce(sql: SqlStorage, request: string, answer: string, nowMs: number): void {
  sql.exec(`INSERT INTO once VALUES (?, ?, ?)`, request, answer, nowMs);
}

export function forgetOnce(sql: SqlStorage, cutoffMs: number): void {
  sql.exec(`DELETE FROM once WHERE at_ms < ?`, cutoffMs);
}
