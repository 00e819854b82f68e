// What the feed's object remembers of D1, and the SQL statements on it: audit_anchor, audit_start, unsealed_rows,
// ended_keys and lost_tails (log.ts has the tables).

import { chainStart, type AuditHead } from '../store/audit.sql.ts';
import { unwritable } from '../store/unwritable.ts';

/** From `endsMs` on the key or token with this digest opens nothing. */
export interface End {
  readonly digest: string;
  readonly endsMs: number;
}

export interface KeptEnd extends End {
  readonly rowId: number;
}

/** The last row of the audit log that is sealed, by its hash; 0 and '' without one. */
export function readAnchor(sql: SqlStorage): AuditHead {
  const [row] = sql.exec<{ seq: number; hash: string }>(`SELECT seq, hash FROM audit_anchor`).toArray();
  return row ?? { seq: 0, hash: '' };
}

/** The newest row that was seen. */
export function readHead(sql: SqlStorage): AuditHead {
  const newest = `SELECT seq, digest AS hash FROM unsealed_rows ORDER BY seq DESC LIMIT 1`;
  const [row] = sql.exec<{ seq: number; hash: string }>(newest).toArray();
  return row ?? readAnchor(sql);
}

/** Remembers a row that is not sealed yet. */
export function writeUnsealed(sql: SqlStorage, { seq, hash }: AuditHead): void {
  if (seq > readAnchor(sql).seq) sql.exec(`INSERT OR IGNORE INTO unsealed_rows VALUES (?, ?)`, seq, hash);
}

/** The digests of the rows that are not sealed yet, by number. */
export function readUnsealed(sql: SqlStorage): ReadonlyMap<number, string> {
  const rows = sql.exec<{ seq: number; digest: string }>(`SELECT seq, digest FROM unsealed_rows`).toArray();
  return new Map(rows.map(({ seq, digest }) => [seq, digest]));
}

/** Rows up to this one are sealed. */
export function moveAnchor(sql: SqlStorage, { seq, hash }: AuditHead): void {
  sql.exec(`INSERT OR REPLACE INTO audit_anchor VALUES (0, ?, ?)`, seq, hash);
  sql.exec(`DELETE FROM unsealed_rows WHERE seq <= ?`, seq);
}

/** The last row that was removed by its age: what the first one that is there follows. */
export function readStart(sql: SqlStorage): AuditHead {
  const [row] = sql.exec<{ seq: number; hash: string }>(`SELECT seq, hash FROM audit_start`).toArray();
  return row ?? { seq: 0, hash: chainStart };
}

/** The rows up to this one are to go. */
export function moveStart(sql: SqlStorage, { seq, hash }: AuditHead): void {
  sql.exec(`INSERT OR REPLACE INTO audit_start VALUES (0, ?, ?)`, seq, hash);
}

/** A log as D1 has it: what was removed of it, and how far it is sealed. */
export interface Extent {
  readonly start: AuditHead | null;
  readonly sealed: AuditHead | null;
}

/** The log is another one, or nothing was known of it yet; it was seen up to `head`. */
export function startAnew(sql: SqlStorage, { start, sealed }: Extent, head: AuditHead): void {
  for (const table of ['unsealed_rows', 'audit_anchor', 'audit_start']) sql.exec(`DELETE FROM ${table}`);
  if (start) moveStart(sql, start);
  if (sealed) moveAnchor(sql, sealed);
  writeUnsealed(sql, head);
}

/** The earliest end counts. */
export function writeEnd(sql: SqlStorage, digest: string, endsMs: number): void {
  sql.exec(
    `INSERT INTO ended_keys (digest, ends_ms) VALUES (?, ?)
       ON CONFLICT (digest) DO UPDATE SET ends_ms = excluded.ends_ms WHERE excluded.ends_ms < ends_ms`,
    digest,
    endsMs,
  );
}

export function readEnds(sql: SqlStorage, afterRowId: number, limit: number): KeptEnd[] {
  return sql
    .exec<{ rowId: number; digest: string; endsMs: number }>(
      `SELECT row_id AS rowId, digest, ends_ms AS endsMs FROM ended_keys WHERE row_id > ? ORDER BY row_id LIMIT ?`,
      afterRowId,
      limit,
    )
    .toArray();
}

/** Forgets some of the ends before a moment; answers how many. */
export function forgetEnds(sql: SqlStorage, beforeMs: number, limit: number): number {
  const old = `SELECT row_id FROM ended_keys WHERE ends_ms < ? LIMIT ?`;
  return sql
    .exec(`DELETE FROM ended_keys WHERE row_id IN (${old}) RETURNING row_id`, beforeMs, limit)
    .toArray().length;
}

/** An end of D1's audit log that D1 does not have any more. */
export interface LostTail {
  /** The last row that was seen of it. */
  readonly seq: number;
  readonly hash: string;
  /** The row of the reconciliation: from there on the log is another one. */
  readonly goesOnAt: number;
  readonly foundMs: number;
  readonly acknowledgedMs: number | null;
}

/** What is remembered of the audit log, apart from D1. */
export interface AuditMemory {
  /** The last row that was removed by its age. */
  readonly removed: AuditHead;
  /** The last row that is sealed. */
  readonly anchor: AuditHead;
  /**
   * Ends of the log that were missed when D1 was found restored. A cut looks the same from here, so each is a fault until
   * an operator says that he knows of it.
   */
  readonly lost: readonly LostTail[];
}

export function writeLostTail(sql: SqlStorage, tail: Omit<LostTail, 'acknowledgedMs'>): void {
  sql.exec(
    `INSERT OR REPLACE INTO lost_tails VALUES (?, ?, ?, ?, NULL)`,
    tail.hash,
    tail.seq,
    tail.goesOnAt,
    tail.foundMs,
  );
}

export function readLostTails(sql: SqlStorage): LostTail[] {
  const columns = `seq, hash, goes_on_at AS goesOnAt, found_ms AS foundMs, acknowledged_ms AS acknowledgedMs`;
  return sql.exec(`SELECT ${columns} FROM lost_tails ORDER BY found_ms`).toArray() as unknown as LostTail[];
}

/** Forgets those that an operator knows of, where the log does not reach back to the break any more. */
export function forgetLostTails(sql: SqlStorage): void {
  sql.exec(
    `DELETE FROM lost_tails WHERE acknowledged_ms IS NOT NULL AND goes_on_at <= (SELECT seq FROM audit_start)`,
  );
}

export function acknowledgeLostTails(sql: SqlStorage, foundUntilMs: number, nowMs: number): void {
  demandWritten(() =>
    sql.exec(
      `UPDATE lost_tails SET acknowledged_ms = ? WHERE acknowledged_ms IS NULL AND found_ms <= ?`,
      nowMs,
      foundUntilMs,
    ),
  );
}

/** For what is not begun where its end could not be kept. */
export function demandWritable(sql: SqlStorage): void {
  demandWritten(() => sql.exec(`UPDATE feed SET version = version`));
}

/** Throws what `isUnwritable` knows when it can't be written. */
export function demandWritten(write: () => void): void {
  try {
    write();
  } catch (error) {
    throw unwritable('the feed’s storage', error);
  }
}
