// The SQL of the decisions: the tables `feed`, `decisions`, `kept_back`, `bases` and `once` of the feed's storage, and their
// statements. The statements on the other tables that are made here are in engines.sql.ts, revocations.sql.ts and
// location.ts. Folders that keep something of their own (clients, keys, counters, events) make their own tables.
//
// feed       One row: the change counter and what must outlive a restart with it.
// decisions  The mirrored decisions and the tombstones, in the order of their changes. Losing it costs one full list
//            from each engine and a full state for every bouncer. It has no index but its key: an index would double the
//            billed row writes, which are 18 million a month for a community list of 50,000 that is replaced every 2 h.
// kept_back  Removals that outlast their tombstones (`KeptBack` in memory.ts). Losing a row leaves a ban in every bouncer
//            that has no clock of its own.
// engines    How far the mirror of each engine has come, and the engine's address. Losing a row costs a full list.
// missing    The ids that the newest full list of an engine missed. They are kept until a second list misses them too.
// engine_names  What engines are or were called. Losing a row: a view by a former name gets nothing of its engine.
// engine_keys   The key to pull with and the one that will replace it, both sealed. If lost, the host sends one again.
// audit_anchor  One row: how far D1's audit log was sealed. unsealed_rows has what was written since, audit_start the
//            last row that was removed by its age. They are not in D1 on purpose: they show if D1 changed or lost a row.
// ended_keys Digests of revoked keys and operator tokens, with the time of revocation; lost_tails has the audit rows that
//            D1 lost. Losing them lets a restored D1 bring a revoked key back.
// location   One row: FEED_LOCATION as it was when this object was made.
// bases      The baselines of bouncers with limits (baselines.ts).
// once       Answers to bans and unbans by their request, for a day: a request that is sent again is done once.

import { canonicalValue } from '../formats/canonical.ts';
import { contentKey, type Decision, type Row } from '../formats/decision.ts';
import { intern } from '../formats/texts.ts';
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
  `CREATE TABLE IF NOT EXISTS kept_back (
     canonical_value TEXT NOT NULL, content TEXT NOT NULL, row TEXT NOT NULL,
     PRIMARY KEY (canonical_value, content)) WITHOUT ROWID`,
];

/** The `feed` row. */
export interface FeedState {
  sequence: number;
  purgedSequence: number;
  nextLocalId: number;
}

/** Version 3, of commit 539c253, did not store how far the rounds with an engine have come. */
const toVersion4 = [
  `ALTER TABLE engines ADD COLUMN progress TEXT NOT NULL DEFAULT '{"urgency":"now"}'`,
  `UPDATE feed SET version = 4`,
];

/** Creates the tables that are missing, and updates those of version 3. Throws at an older version. */
export function openDecisions(storage: DurableObjectStorage, firstLocalId: number): void {
  const { sql } = storage;
  storage.transactionSync(() => {
    createMissing(sql, [feedTable]);
    const [feed] = sql.exec<{ version: number }>(`SELECT version FROM feed`).toArray();
    if (feed && feed.version < 3) {
      throw new Error(`the feed's storage has version ${feed.version}: it can be opened from version 3 on`);
    }
    if (feed?.version === 3) for (const statement of toVersion4) sql.exec(statement);
    createMissing(sql, otherTables);
    if (!feed) sql.exec(`INSERT INTO feed VALUES (0, 4, 0, 0, ?)`, firstLocalId);
  });
}

/**
 * Runs those of some `CREATE TABLE` whose table is missing. SQLite refuses even a statement that would do nothing when the
 * storage can't be written; the object could then not start.
 */
export function createMissing(sql: SqlStorage, statements: readonly string[]): void {
  const tables = sql.exec(`SELECT name FROM sqlite_master WHERE type = 'table'`).toArray();
  const existing = new Set(tables.map(({ name }) => name));
  for (const statement of statements) {
    if (!existing.has(/^CREATE TABLE (?:IF NOT EXISTS )?(\w+)/.exec(statement)?.[1] ?? ''))
      sql.exec(statement);
  }
}

export function readState(sql: SqlStorage): FeedState {
  const columns = `sequence, purged_sequence AS purgedSequence, next_local_id AS nextLocalId`;
  return { ...sql.exec<FeedState & Record<string, number>>(`SELECT ${columns} FROM feed`).one() };
}

export function writeState(sql: SqlStorage, { sequence, purgedSequence, nextLocalId }: FeedState): void {
  const update = `UPDATE feed SET sequence = ?, purged_sequence = ?, next_local_id = ?`;
  sql.exec(update, sequence, purgedSequence, nextLocalId);
}

type Texts = [origin: string, scenario: string, scope: string, type: string, value: string];
type Own = [addedSeq: number, removedSeq: number, removedMs: number, engine: string, engineId: number];
type Cells = [rowId: number, id: number, uuid: string | null, ...Texts, untilMs: number, ...Own];

const columns = `row_id, id, uuid, origin, scenario, scope, type, value, until_ms, added_seq, removed_seq, removed_ms,
  engine, engine_id`;

/** Active decisions, and the tombstones after a sequence. */
export function readRows(sql: SqlStorage, afterSequence: number): Row[] {
  const select = `SELECT ${columns} FROM decisions WHERE removed_seq = 0 OR removed_seq > ?`;
  return rowsOf(sql.exec(select, afterSequence));
}

/** A page of the tombstones up to a sequence: the next `limit` after a row id, by row id. */
export function readTombstones(sql: SqlStorage, upTo: number, afterRowId: number, limit: number): Row[] {
  const select = `SELECT ${columns} FROM decisions WHERE row_id > ? AND removed_seq > 0 AND removed_seq <= ?
     ORDER BY row_id LIMIT ?`;
  return rowsOf(sql.exec(select, afterRowId, upTo, limit));
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

/** A row as the mirror holds it. All rows have the same fields in the same order, which keeps them small in memory. */
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

/** The sequence of the newest tombstone that is older than the `count` newest; null: there is none. Reads no rows. */
export function tombstoneBefore(sql: SqlStorage, count: number): number | null {
  const ended = `FROM decisions WHERE removed_seq > 0`;
  if (Number(sql.exec(`SELECT COUNT(*) AS n ${ended}`).one()['n']) <= count) return null;
  const newest = `SELECT removed_seq ${ended} ORDER BY removed_seq DESC LIMIT 1 OFFSET ?`;
  return Number(sql.exec(newest, count).one()['removed_seq']);
}

/** Deletes the tombstones up to a sequence, except some. The caller writes `purgedSequence` in the same transaction. */
export function deleteTombstones(sql: SqlStorage, upToSequence: number, except: readonly Row[]): void {
  sql.exec(
    `DELETE FROM decisions WHERE removed_seq > 0 AND removed_seq <= ?
       AND row_id NOT IN (SELECT value FROM json_each(?))`,
    upToSequence,
    JSON.stringify(except.map(({ rowId }) => rowId)),
  );
}

/** Stores removals that outlast their tombstones. Of each content only the newest stays. */
export function writeKeptBack(sql: SqlStorage, rows: readonly Row[]): void {
  const insert = `INSERT OR REPLACE INTO kept_back VALUES (?, ?, ?)`;
  for (const row of rows) sql.exec(insert, row.canonicalValue, contentKey(row), JSON.stringify(row));
}

export function readKeptBack(sql: SqlStorage, canonicalValue: string): Row[] {
  const select = `SELECT row FROM kept_back WHERE canonical_value = ?`;
  const rows = sql.exec<{ row: string }>(select, canonicalValue).toArray();
  return rows.map(({ row }) => decodeRow(row));
}

/** The canonical values with a removal that is kept back: no more than there are active ones. */
export function readKeptBackValues(sql: SqlStorage): string[] {
  const select = `SELECT DISTINCT canonical_value AS value FROM kept_back`;
  const rows = sql.exec<{ value: string }>(select).toArray();
  return rows.map(({ value }) => value);
}

export function deleteKeptBack(sql: SqlStorage, rows: readonly Row[]): void {
  const drop = `DELETE FROM kept_back WHERE canonical_value = ? AND content = ?`;
  for (const row of rows) sql.exec(drop, row.canonicalValue, contentKey(row));
}

function decodeRow(text: string): Row {
  const row = JSON.parse(text) as Row;
  const [origin, scenario] = [intern(row.origin), intern(row.scenario)];
  const decision = { ...row, origin, scenario, scope: intern(row.scope), type: intern(row.type) };
  const place = { ...row, engine: intern(row.engine) };
  return createRow(place, decision, row.addedSeq, row.removedSeq, row.removedMs);
}

/** The stored baselines, as JSON by id (baselines.ts). */
export function readBaselines(sql: SqlStorage): Map<number, string> {
  const rows = sql.exec(`SELECT id, body FROM bases`).toArray();
  return new Map(rows.map((row) => [row['id'] as number, row['body'] as string]));
}

export function writeBaseline(sql: SqlStorage, id: number, body: string): void {
  sql.exec(`INSERT OR REPLACE INTO bases VALUES (?, ?)`, id, body);
}

export function deleteBaseline(sql: SqlStorage, id: number): void {
  sql.exec(`DELETE FROM bases WHERE id = ?`, id);
}

/** The answer to a request, as JSON; null: it is new. */
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
