// The table `allowed` of the feed's storage: a copy of the entries of D1 that are for every bouncer, and which of them the
// rows were withheld by. Losing it serves what is withheld until D1 is read again. It is made with the first entry.

import type { AllowedEntry } from './allowed.ts';
import { createMissing } from './decisions.sql.ts';

const createTable = `CREATE TABLE IF NOT EXISTS allowed (
  id INTEGER PRIMARY KEY, value TEXT NOT NULL, expires_ms INTEGER, applied INTEGER NOT NULL)`;

export interface StoredEntry extends AllowedEntry {
  /** Decisions are withheld by it: it has not ended. */
  readonly applied: boolean;
}

export function readAllowed(sql: SqlStorage): StoredEntry[] {
  const table = sql.exec(`SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'allowed'`);
  if (table.toArray().length === 0) return [];
  const rows = sql
    .exec(`SELECT id, value, expires_ms AS expiresMs, applied FROM allowed ORDER BY id`)
    .toArray();
  return rows.map((row) => ({ ...(row as unknown as StoredEntry), applied: row['applied'] === 1 }));
}

/** Writes the difference. */
export function writeAllowed(
  sql: SqlStorage,
  before: readonly StoredEntry[],
  after: readonly StoredEntry[],
): void {
  createMissing(sql, [createTable]);
  const known = new Map(before.map((entry) => [entry.id, entry]));
  for (const { id, value, expiresMs, applied } of after) {
    const old = known.get(id);
    known.delete(id);
    if (old?.value === value && old.expiresMs === expiresMs && old.applied === applied) continue;
    sql.exec(`INSERT OR REPLACE INTO allowed VALUES (?, ?, ?, ?)`, id, value, expiresMs, Number(applied));
  }
  for (const id of known.keys()) sql.exec(`DELETE FROM allowed WHERE id = ?`, id);
}
