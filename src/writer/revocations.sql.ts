// What the feed's object records of D1 in its own storage, where no restored backup of D1 undoes it, and the SQL for it.
// ended_keys has the revocations. audit_anchor, audit_start and unsealed_rows say how far the audit log has come.
// lost_tails has what a restored D1 lost of the log. The tables are made in mirror/decisions.sql.ts.

import { chainStart, type AuditHead } from '../store/audit.sql.ts';
import { unwritable } from '../store/unwritable.ts';

/**
 * How long a revocation is remembered, here and in D1: longer than any backup is kept that may be put back. An older
 * backup is refused (restore.ts).
 */
export const revocationsKeptMs = 400 * 86_400_000;

/** From `effectiveMs` on the key or token with this digest opens nothing. */
export interface Revocation {
  readonly digest: string;
  readonly effectiveMs: number;
}

/** The last row of the audit log that is sealed, by its hash; 0 and '' without one. */
export function readAnchor(sql: SqlStorage): AuditHead {
  return readRow(sql, `SELECT seq, hash FROM audit_anchor`) ?? { seq: 0, hash: '' };
}

/** The newest row that was seen. */
export function readHead(sql: SqlStorage): AuditHead {
  const newest = `SELECT seq, digest AS hash FROM unsealed_rows ORDER BY seq DESC LIMIT 1`;
  return readRow(sql, newest) ?? readAnchor(sql);
}

/** The last row that was removed by its age: the first one that is left follows it. */
export function readStart(sql: SqlStorage): AuditHead {
  return readRow(sql, `SELECT seq, hash FROM audit_start`) ?? { seq: 0, hash: chainStart };
}

function readRow(sql: SqlStorage, query: string): AuditHead | undefined {
  return sql.exec<{ seq: number; hash: string }>(query).toArray()[0];
}

/** Remembers a row that is not sealed yet. */
export function writeUnsealed(sql: SqlStorage, { seq, hash }: AuditHead): void {
  if (seq > readAnchor(sql).seq) sql.exec(`INSERT OR IGNORE INTO unsealed_rows VALUES (?, ?)`, seq, hash);
}

/** The digests of the rows that are not sealed yet, by number. */
export function readUnsealed(sql: SqlStorage): ReadonlyMap<number, string> {
  const rows = sql.exec<{ seq: number; digest: string }>(`SELECT seq, digest FROM unsealed_rows`);
  return new Map(rows.toArray().map(({ seq, digest }) => [seq, digest]));
}

/** Rows up to this one are sealed. */
export function moveAnchor(sql: SqlStorage, { seq, hash }: AuditHead): void {
  sql.exec(`INSERT OR REPLACE INTO audit_anchor VALUES (0, ?, ?)`, seq, hash);
  sql.exec(`DELETE FROM unsealed_rows WHERE seq <= ?`, seq);
}

/** The rows up to this one will be removed. */
export function moveStart(sql: SqlStorage, { seq, hash }: AuditHead): void {
  sql.exec(`INSERT OR REPLACE INTO audit_start VALUES (0, ?, ?)`, seq, hash);
}

/** A log as D1 has it: the last row that was removed, and the last one that is sealed. */
export interface Extent {
  readonly start: AuditHead | null;
  readonly sealed: AuditHead | null;
}

/** Replaces what is remembered of the log by a log that reaches to `head`. */
export function replaceLog(sql: SqlStorage, { start, sealed }: Extent, head: AuditHead): void {
  for (const table of ['unsealed_rows', 'audit_anchor', 'audit_start']) sql.exec(`DELETE FROM ${table}`);
  if (start) moveStart(sql, start);
  if (sealed) moveAnchor(sql, sealed);
  writeUnsealed(sql, head);
}

/** The earliest moment counts. */
export function writeRevocation(sql: SqlStorage, { digest, effectiveMs }: Revocation): void {
  sql.exec(
    `INSERT INTO ended_keys (digest, ends_ms) VALUES (?, ?)
       ON CONFLICT (digest) DO UPDATE SET ends_ms = excluded.ends_ms WHERE excluded.ends_ms < ends_ms`,
    digest,
    effectiveMs,
  );
}

/** A page of them, and the `rowId` after which the next one begins. */
export function readRevocations(sql: SqlStorage, afterRowId: number, limit: number) {
  const page = `SELECT row_id AS rowId, digest, ends_ms AS effectiveMs FROM ended_keys
    WHERE row_id > ? ORDER BY row_id LIMIT ?`;
  return sql.exec<{ rowId: number; digest: string; effectiveMs: number }>(page, afterRowId, limit).toArray();
}

/** Forgets some of the revocations before a moment; answers how many. */
export function forgetRevocations(sql: SqlStorage, beforeMs: number, limit: number): number {
  const old = `SELECT row_id FROM ended_keys WHERE ends_ms < ? LIMIT ?`;
  const forget = `DELETE FROM ended_keys WHERE row_id IN (${old}) RETURNING row_id`;
  return sql.exec(forget, beforeMs, limit).toArray().length;
}

/** The newest rows of the audit log, which a restored D1 does not have. */
export interface LostTail {
  /** The last row that was seen. */
  readonly seq: number;
  readonly hash: string;
  /** The row of the reconciliation: the log goes on there. */
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
   * What restored backups lost of the log. A log that somebody cut looks the same from here, so each is a fault until an
   * operator acknowledges it.
   */
  readonly lost: readonly LostTail[];
}

export function writeLostTail(sql: SqlStorage, tail: Omit<LostTail, 'acknowledgedMs'>): void {
  const { seq, hash, goesOnAt, foundMs } = tail;
  sql.exec(`INSERT OR REPLACE INTO lost_tails VALUES (?, ?, ?, ?, NULL)`, hash, seq, goesOnAt, foundMs);
}

export function readLostTails(sql: SqlStorage): LostTail[] {
  const columns = `seq, hash, goes_on_at AS goesOnAt, found_ms AS foundMs, acknowledged_ms AS acknowledgedMs`;
  return sql.exec(`SELECT ${columns} FROM lost_tails ORDER BY found_ms`).toArray() as unknown as LostTail[];
}

/** Forgets acknowledged ones, once the log does not reach back to the break any more. */
export function forgetLostTails(sql: SqlStorage): void {
  sql.exec(
    `DELETE FROM lost_tails WHERE acknowledged_ms IS NOT NULL AND goes_on_at <= (SELECT seq FROM audit_start)`,
  );
}

export function acknowledgeLostTails(sql: SqlStorage, foundUntilMs: number, nowMs: number): void {
  const open = `acknowledged_ms IS NULL AND found_ms <= ?`;
  requireWritten(() => {
    sql.exec(`UPDATE lost_tails SET acknowledged_ms = ? WHERE ${open}`, nowMs, foundUntilMs);
  });
}

/** Before work whose outcome has to be recorded here. Throws what `isUnwritable` knows. */
export function requireWritable(sql: SqlStorage): void {
  requireWritten(() => sql.exec(`UPDATE feed SET version = version`));
}

/** Throws what `isUnwritable` knows when the storage takes no write. */
export function requireWritten(write: () => void): void {
  try {
    write();
  } catch (error) {
    throw unwritable('the feed’s storage', error);
  }
}
