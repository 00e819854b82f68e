// What the feed's storage has of the allow-list. `allowed`: a copy of the entries of D1 that are for every bouncer, and those
// of engines, and which of them hold. `allow_lists`: of which list an engine's entry is. `allowed_some`: those that are for
// some bouncers; the release before does not read them. `withheld`: the decisions that are withheld from all bouncers.
// `withheld_some`: those that are withheld from some, by the lists of patterns in `withheld_patterns`. Where that is not what
// the entries say, a change of the list was broken off. Losing the entries serves what is withheld until D1 and the engines are
// read again; losing what is withheld repeats removals. Each table is made when it is first written.

import type { Row } from '../formats/decision.ts';
import type { AllowedEntry, EngineList } from './allowed.ts';
import { createMissing } from './decisions.sql.ts';
import type { Change } from './memory.ts';

const tables = [
  `CREATE TABLE IF NOT EXISTS allowed (
     id INTEGER PRIMARY KEY, value TEXT NOT NULL, expires_ms INTEGER, applied INTEGER NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS allow_lists (
     id INTEGER PRIMARY KEY, engine TEXT NOT NULL, list TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS allowed_some (
     id INTEGER PRIMARY KEY, value TEXT NOT NULL, expires_ms INTEGER, applied INTEGER NOT NULL, bouncers TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS withheld (row_id INTEGER PRIMARY KEY)`,
  `CREATE TABLE IF NOT EXISTS withheld_some (row_id INTEGER PRIMARY KEY, patterns INTEGER NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS withheld_patterns (id INTEGER PRIMARY KEY, patterns TEXT NOT NULL UNIQUE)`,
];

export interface StoredEntry extends AllowedEntry {
  /** It holds: it has not ended. */
  readonly applied: boolean;
}

function hasTable(sql: SqlStorage, name: string): boolean {
  return sql.exec(`SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?`, name).toArray().length > 0;
}

export function readAllowed(sql: SqlStorage): StoredEntry[] {
  const lists = hasTable(sql, 'allow_lists')
    ? sql.exec(`SELECT id, engine, list FROM allow_lists`).toArray()
    : [];
  const from = new Map(lists.map(({ id, ...list }) => [id, list as unknown as EngineList]));
  const columns = `id, value, expires_ms AS expiresMs, applied`;
  const forAll = hasTable(sql, 'allowed') ? sql.exec(`SELECT ${columns} FROM allowed`).toArray() : [];
  const forSome = hasTable(sql, 'allowed_some')
    ? sql.exec(`SELECT ${columns}, bouncers FROM allowed_some`).toArray()
    : [];
  const entries = [...forAll, ...forSome].map((row) => {
    const { bouncers } = row;
    return {
      ...(row as unknown as StoredEntry),
      applied: row['applied'] === 1,
      from: from.get(row['id'] as number),
      bouncers: typeof bouncers === 'string' ? (JSON.parse(bouncers) as string[]) : undefined,
    };
  });
  return entries.sort((a, b) => a.id - b.id);
}

/** From whom decisions are withheld, by their `rowId`s. Forgets the lists of patterns that none of them has. */
export function readWithheld(sql: SqlStorage): Map<number, Exclude<Row['withheld'], undefined>> {
  const withheld = new Map<number, Exclude<Row['withheld'], undefined>>();
  if (hasTable(sql, 'withheld')) {
    for (const [rowId] of sql.exec(`SELECT row_id FROM withheld`).raw()) withheld.set(rowId as number, true);
  }
  if (!hasTable(sql, 'withheld_some')) return withheld;
  sql.exec(`DELETE FROM withheld_patterns WHERE id NOT IN (SELECT patterns FROM withheld_some)`);
  const lists = sql.exec(`SELECT id, patterns FROM withheld_patterns`).raw();
  const patterns = new Map([...lists].map(([id, json]) => [id, JSON.parse(json as string) as string[]]));
  for (const [rowId, id] of sql.exec(`SELECT row_id, patterns FROM withheld_some`).raw()) {
    const list = patterns.get(id as number);
    if (list) withheld.set(rowId as number, list);
  }
  return withheld;
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
  for (const table of ['allowed', 'allow_lists', 'allowed_some']) {
    sql.exec(`DELETE FROM ${table} WHERE id NOT IN (SELECT value FROM json_each(?))`, ids);
  }
  const cellsOf = ({ id, value, expiresMs, applied }: StoredEntry) => [id, value, expiresMs, Number(applied)];
  insert(sql, 'allowed', 4, changed.filter(({ bouncers }) => !bouncers).map(cellsOf));
  const forSome = changed.filter(({ bouncers }) => bouncers);
  insert(
    sql,
    'allowed_some',
    5,
    forSome.map((entry) => [...cellsOf(entry), JSON.stringify(entry.bouncers)]),
  );
  const lists = changed.flatMap(({ id, from }) => (from ? [[id, from.engine, from.list]] : []));
  insert(sql, 'allow_lists', 3, lists);
}

function insert(sql: SqlStorage, table: string, width: number, rows: readonly unknown[][]): void {
  const cells = Array.from({ length: width }, (_, at) => `value ->> ${at}`).join();
  sql.exec(`INSERT OR REPLACE INTO ${table} SELECT ${cells} FROM json_each(?)`, JSON.stringify(rows));
}

export function isSameEntry(a: StoredEntry, b: StoredEntry): boolean {
  if (a.id !== b.id || a.value !== b.value || a.applied !== b.applied) return false;
  if (a.expiresMs !== b.expiresMs || a.from?.engine !== b.from?.engine || a.from?.list !== b.from?.list) {
    return false;
  }
  return a.bouncers?.join() === b.bouncers?.join();
}

/** Writes what a change withholds, and what it does not withhold any more. */
export function writeWithheld(sql: SqlStorage, { removed, added }: Change): void {
  const before = [...removed.map(({ row }) => row), ...added.flatMap(({ renewed }) => renewed ?? [])];
  const was = before.filter(({ withheld }) => withheld);
  const is = added.map(({ row }) => row).filter(({ withheld }) => withheld);
  for (const [table, isOfTable] of [
    ['withheld', ({ withheld }: Row) => withheld === true],
    ['withheld_some', ({ withheld }: Row) => withheld !== true],
  ] as const) {
    const ids = was.filter(isOfTable).map(({ rowId }) => rowId);
    if (ids.length === 0) continue;
    sql.exec(`DELETE FROM ${table} WHERE row_id IN (SELECT value FROM json_each(?))`, JSON.stringify(ids));
  }
  if (is.length === 0) return;
  createMissing(sql, tables);
  const fromAll = is.filter(({ withheld }) => withheld === true).map(({ rowId }) => rowId);
  sql.exec(`INSERT INTO withheld SELECT value FROM json_each(?)`, JSON.stringify(fromAll));
  const fromSome = is.flatMap(({ rowId, withheld }) => (withheld === true ? [] : [[rowId, withheld]]));
  if (fromSome.length === 0) return;
  const json = JSON.stringify(fromSome);
  sql.exec(
    `INSERT OR IGNORE INTO withheld_patterns (patterns) SELECT DISTINCT value ->> 1 FROM json_each(?)`,
    json,
  );
  sql.exec(
    `INSERT INTO withheld_some
     SELECT value ->> 0, (SELECT id FROM withheld_patterns WHERE patterns = value ->> 1) FROM json_each(?)`,
    json,
  );
}
