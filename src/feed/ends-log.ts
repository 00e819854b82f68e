// What the feed's object remembers of D1, and the SQL statements on it: audit_anchor, unsealed_rows, ended_keys and
// lost_tails (log.ts has the tables).

import type { AuditHead } from '../db/audited.ts';

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

/** The log is another one: sealed up to `sealed`, and seen up to `head`. */
export function startAnew(sql: SqlStorage, sealed: AuditHead | null, head: AuditHead): void {
  sql.exec(`DELETE FROM unsealed_rows`);
  sql.exec(`DELETE FROM audit_anchor`);
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

export function acknowledgeLostTails(sql: SqlStorage, foundUntilMs: number, nowMs: number): void {
  sql.exec(
    `UPDATE lost_tails SET acknowledged_ms = ? WHERE acknowledged_ms IS NULL AND found_ms <= ?`,
    nowMs,
    foundUntilMs,
  );
}
