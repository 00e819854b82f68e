// What the feed's storage has of the allow-list. `allowed`: a copy of the entries of D1 that are for every bouncer, and those
// of engines, and which of them hold. `allow_lists`: of which list an engine's entry is. `withheld`: the decisions that are
// withheld. Where that is not what `allowed` says, a change of the list was broken off. Losing `allowed` serves what is
// withheld until D1 and the engines are read again; losing `withheld` repeats removals. Each is made when it is first written.

import type { Row } from '../formats/decision.ts';
import type { AllowedEntry, EngineList } from './allowed.ts';
import { createMissing } from './decisions.sql.ts';
import type { Change } from './memory.ts';

const tables = [
  `CREATE TABLE IF NOT EXISTS allowed (
     id INTEGER PRIMARY KEY, value TEXT NOT NULL, expires_ms INTEGER, applied INTEGER NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS allow_lists (
     id INTEGER PRIMARY KEY, engine TEXT NOT NULL, list TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS withheld (row_id INTEGER PRIMARY KEY)`,
];

export interface StoredEntry extends AllowedEntry {
  /** It holds: it has not ended. */
  readonly applied: boolean;
}

function hasTable(sql: SqlStorage, name: string): boolean {
  return sql.exec(`SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?`, name).toArray().length > 0;
}

export function readAllowed(sql: SqlStorage): StoredEntry[] {
  if (!hasTable(sql, 'allowed')) return [];
  const lists = hasTable(sql, 'allow_lists')
    ? sql.exec(`SELECT id, engine, list FROM allow_lists`).toArray()
    : [];
  const from = new Map(lists.map(({ id, ...list }) => [id, list as unknown as EngineList]));
  const rows = sql
    .exec(`SELECT id, value, expires_ms AS expiresMs, applied FROM allowed ORDER BY id`)
    .toArray();
  return rows.map((row) => {
    return {
      ...(row as unknown as StoredEntry),
      applied: row['applied'] === 1,
      from: from.get(row['id'] as number),
    };
  });
}

/** The `rowId`s of the decisions that are withheld. */
export function readWithheld(sql: SqlStorage): Set<number> {
  if (!hasTable(sql, 'withheld')) return new Set();
  return new Set([...sql.exec(`SELECT row_id FROM withheld`).raw()].map(([rowId]) => rowId as number));
}

/** Writes the difference. One statement for all: there may be 10,000. */
export function writeAllowed(
  sql: SqlStorage,
  before: readonly StoredEntry[],
  after: readonly StoredEntry[],
): void {
  createMissing(sql, tables);
  const known = new Map(before.map((entry) => [entry.id, entry]));
  const changed = after.filter((entry) => {
    const old = known.get(entry.id);
    return !old || !isSameEntry(old, entry);
  });
  const ids = JSON.stringify(after.map(({ id }) => id));
  for (const table of ['allowed', 'allow_lists']) {
    sql.exec(`DELETE FROM ${table} WHERE id NOT IN (SELECT value FROM json_each(?))`, ids);
  }
  const cells = changed.map(({ id, value, expiresMs, applied }) => [id, value, expiresMs, Number(applied)]);
  sql.exec(
    `INSERT OR REPLACE INTO allowed SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?)`,
    JSON.stringify(cells),
  );
  const lists = changed.flatMap(({ id, from }) => (from ? [[id, from.engine, from.list]] : []));
  sql.exec(
    `INSERT OR REPLACE INTO allow_lists SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)`,
    JSON.stringify(lists),
  );
}

export function isSameEntry(a: StoredEntry, b: StoredEntry): boolean {
  if (a.id !== b.id || a.value !== b.value || a.applied !== b.applied) return false;
  return a.expiresMs === b.expiresMs && a.from?.engine === b.from?.engine && a.from?.list === b.from?.list;
}

/** Writes what a change withholds, and what it does not withhold any more. */
export function writeWithheld(sql: SqlStorage, { removed, added }: Change): void {
  const before = [...removed.map(({ row }) => row), ...added.flatMap(({ renewed }) => renewed ?? [])];
  const after = added.map(({ row }) => row);
  const idsOf = (rows: readonly Row[]): number[] => {
    return rows.filter(({ withheld }) => withheld).map(({ rowId }) => rowId);
  };
  const [was, is] = [idsOf(before), idsOf(after)];
  if (was.length > 0) {
    sql.exec(`DELETE FROM withheld WHERE row_id IN (SELECT value FROM json_each(?))`, JSON.stringify(was));
  }
  if (is.length > 0) {
    createMissing(sql, tables);
    sql.exec(`INSERT INTO withheld SELECT value FROM json_each(?)`, JSON.stringify(is));
  }
}
