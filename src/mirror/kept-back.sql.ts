// Ends of a text that outlast their tombstones, since its network is banned under another text and who sees both was told
// of none. They are in storage alone, whatever their number: nobody needs them before another ban of the network ends,
// with which they are tombstones once more (store.ts). Losing one leaves a ban in every bouncer without a clock.

import { contentKey, intern, type Row } from '../formats/decision.ts';
import { createMissing, createRow } from './decisions.sql.ts';

const table = `CREATE TABLE IF NOT EXISTS kept_back (
  canonical_value TEXT NOT NULL, content TEXT NOT NULL, row TEXT NOT NULL,
  PRIMARY KEY (canonical_value, content)) WITHOUT ROWID`;

export function openKeptBack(sql: SqlStorage): void {
  createMissing(sql, [table]);
}

/** One of each content: the newest. */
export function writeKeptBack(sql: SqlStorage, rows: readonly Row[]): void {
  for (const row of rows) {
    const { canonicalValue } = row;
    sql.exec(
      `INSERT OR REPLACE INTO kept_back VALUES (?, ?, ?)`,
      canonicalValue,
      contentKey(row),
      JSON.stringify(row),
    );
  }
}

export function readKeptBack(sql: SqlStorage, canonicalValue: string): Row[] {
  const found = sql.exec<{ row: string }>(
    `SELECT row FROM kept_back WHERE canonical_value = ?`,
    canonicalValue,
  );
  return found.toArray().map(({ row }) => decode(row));
}

/** The canonical values of which there are any: no more than there are active ones. */
export function readKeptBackValues(sql: SqlStorage): string[] {
  const found = sql.exec<{ value: string }>(`SELECT DISTINCT canonical_value AS value FROM kept_back`);
  return found.toArray().map(({ value }) => value);
}

export function deleteKeptBack(sql: SqlStorage, rows: readonly Row[]): void {
  for (const row of rows) {
    sql.exec(
      `DELETE FROM kept_back WHERE canonical_value = ? AND content = ?`,
      row.canonicalValue,
      contentKey(row),
    );
  }
}

function decode(text: string): Row {
  const row = JSON.parse(text) as Row;
  const { origin, scenario, scope, type } = row;
  const shared = {
    origin: intern(origin),
    scenario: intern(scenario),
    scope: intern(scope),
    type: intern(type),
  };
  return createRow(
    { ...row, engine: intern(row.engine) },
    { ...row, ...shared },
    row.addedSeq,
    row.removedSeq,
    row.removedMs,
  );
}
