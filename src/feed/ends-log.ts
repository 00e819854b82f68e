// The SQL statements on what the feed's object remembers of D1: audit_anchor, ended_keys and lost_tails (log.ts has the
// tables).

export function readAuditAnchor(sql: SqlStorage): { seq: number; hash: string } | null {
  const [row] = sql.exec(`SELECT seq, hash FROM audit_anchor`).toArray();
  return row ? { seq: row['seq'] as number, hash: row['hash'] as string } : null;
}

/** Moves the anchor forward; an older one than it has is ignored. */
export function writeAuditAnchor(
  sql: SqlStorage,
  anchor: { readonly seq: number; readonly hash: string },
): void {
  sql.exec(
    `INSERT INTO audit_anchor VALUES (0, ?, ?)
       ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash WHERE excluded.seq > seq`,
    anchor.seq,
    anchor.hash,
  );
}

/** Sets the anchor, back as well: the log that it was in is lost. */
export function replaceAuditAnchor(
  sql: SqlStorage,
  anchor: { readonly seq: number; readonly hash: string },
): void {
  sql.exec(`INSERT OR REPLACE INTO audit_anchor VALUES (0, ?, ?)`, anchor.seq, anchor.hash);
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

export function readEnds(
  sql: SqlStorage,
  afterRowId: number,
  limit: number,
): { rowId: number; digest: string; endsMs: number }[] {
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
