// What the feed's storage has of the allow-list. `allowed`: a copy of the entries of D1 that are for every bouncer, and those
// of engines, and which of them hold. `allow_lists`: of which list an engine's entry is. `allowed_some`: those that are for
// some bouncers; the release before does not read them. `withheld`: the decisions that are withheld from all bouncers.
// `withheld_some`: those that are withheld from some, by the lists of patterns in `withheld_patterns`. Where that is not what
// the entries say, a change of the list was broken off. Losing the entries serves what is withheld until D1 and the engines are
// read again; losing what is withheld repeats removals. Each table is made when it is first written.

import type { Row, Withheld } from '../formats/decision.ts';
import { sameWithheld, type AllowedEntry, type EngineList } from './allowed.ts';
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

/** From whom decisions are withheld, by their `rowId`s. */
export function readWithheld(sql: SqlStorage): Map<number, Withheld> {
  const withheld = new Map<number, Withheld>();
  if (hasTable(sql, 'withheld')) {
    for (const [rowId] of sql.exec(`SELECT row_id FROM withheld`).raw()) withheld.set(rowId as number, true);
  }
  if (!hasTable(sql, 'withheld_some')) return withheld;
  const lists = sql.exec(`SELECT id, patterns FROM withheld_patterns`).raw();
  const patterns = new Map([...lists].map(([id, json]) => [id, JSON.parse(json as string) as string[]]));
  for (const [rowId, id] of sql.exec(`SELECT row_id, patterns FROM withheld_some`).raw()) {
    const list = patterns.get(id as number);
    if (list) withheld.set(rowId as number, list);
  }
  return withheld;
}

/** Writes the difference. */
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
  const cellsOf = ({ id, value, expiresMs, applied }: StoredEntry) => [id, value, expiresMs, Number(applied)];
  const isOf = {
    allowed: ({ bouncers }: StoredEntry) => !bouncers,
    allow_lists: ({ from }: StoredEntry) => from !== undefined,
    allowed_some: ({ bouncers }: StoredEntry) => bouncers !== undefined,
  };
  // After a restore of D1 an entry may have the id of one that was for others.
  for (const [table, isOfTable] of Object.entries(isOf)) {
    const ids = after.filter(isOfTable).map(({ id }) => id);
    sql.exec(`DELETE FROM ${table} WHERE id NOT IN (SELECT value FROM json_each(?))`, JSON.stringify(ids));
  }
  insert(sql, 'allowed', changed.filter(isOf.allowed).map(cellsOf));
  const forSome = changed.filter(isOf.allowed_some);
  insert(
    sql,
    'allowed_some',
    forSome.map((entry) => [...cellsOf(entry), JSON.stringify(entry.bouncers)]),
  );
  const lists = changed.flatMap(({ id, from }) => (from ? [[id, from.engine, from.list]] : []));
  insert(sql, 'allow_lists', lists);
  forgetPatterns(sql);
}

/** More are cleared of those that no decision has. To find them is to look at all of `withheld_some`. */
const mostLists = 5_000;

function forgetPatterns(sql: SqlStorage): void {
  const count = Number(sql.exec(`SELECT count(*) AS n FROM withheld_patterns`).one()['n']);
  if (count <= mostLists) return;
  sql.exec(`DELETE FROM withheld_patterns WHERE id NOT IN (SELECT patterns FROM withheld_some)`);
}

/** Rows of one statement, and so of one text: with 30 names of 64 characters each some 1 MB. The storage takes 2 MB. */
const mostRows = 500;

/** Few statements: there may be 10,000 entries, and 100,000 decisions. */
function insert(sql: SqlStorage, table: string, rows: readonly unknown[][], most = mostRows): void {
  const cells = (rows[0] ?? []).map((_, at) => `value ->> ${at}`).join();
  for (let at = 0; at < rows.length; at += most) {
    const json = JSON.stringify(rows.slice(at, at + most));
    sql.exec(`INSERT OR REPLACE INTO ${table} SELECT ${cells} FROM json_each(?)`, json);
  }
}

export function isSameEntry(a: StoredEntry, b: StoredEntry): boolean {
  if (a.id !== b.id || a.value !== b.value || a.applied !== b.applied) return false;
  if (a.expiresMs !== b.expiresMs || a.from?.engine !== b.from?.engine || a.from?.list !== b.from?.list) {
    return false;
  }
  return sameWithheld(a.bouncers, b.bouncers);
}

/** Numbers of one statement: some 1 MB. */
const mostNumbers = 50_000;

/** Writes what a change withholds, and what it does not withhold any more. */
export function writeWithheld(sql: SqlStorage, { removed, added }: Change): void {
  const before = [...removed.map(({ row }) => row), ...added.flatMap(({ renewed }) => renewed ?? [])];
  const was = before.filter(({ withheld }) => withheld);
  const is = added.map(({ row }) => row).filter(({ withheld }) => withheld);
  const fromAll = ({ withheld }: Row): boolean => withheld === true;
  const fromSome = ({ withheld }: Row): boolean => withheld !== true;
  drop(sql, 'withheld', was.filter(fromAll));
  drop(sql, 'withheld_some', was.filter(fromSome));
  if (is.length === 0) return;
  createMissing(sql, tables);
  insert(
    sql,
    'withheld',
    is.filter(fromAll).map(({ rowId }) => [rowId]),
    mostNumbers,
  );
  const ids = new Map<Row['withheld'], number>();
  const idOf = ({ withheld }: Row): number => {
    const id = ids.get(withheld) ?? idOfPatterns(sql, JSON.stringify(withheld));
    ids.set(withheld, id);
    return id;
  };
  insert(
    sql,
    'withheld_some',
    is.filter(fromSome).map((row) => [row.rowId, idOf(row)]),
    mostNumbers,
  );
}

function drop(sql: SqlStorage, table: string, rows: readonly Row[]): void {
  for (let at = 0; at < rows.length; at += mostNumbers) {
    const ids = rows.slice(at, at + mostNumbers).map(({ rowId }) => rowId);
    sql.exec(`DELETE FROM ${table} WHERE row_id IN (SELECT value FROM json_each(?))`, JSON.stringify(ids));
  }
}

function idOfPatterns(sql: SqlStorage, patterns: string): number {
  sql.exec(`INSERT OR IGNORE INTO withheld_patterns (patterns) VALUES (?)`, patterns);
  return Number(sql.exec(`SELECT id FROM withheld_patterns WHERE patterns = ?`, patterns).one()['id']);
}
