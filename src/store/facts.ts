// Facts: what an operator is shown, as JSON that SQL makes. A mutation reads them in its own batch, which also keeps them
// for a repeated request. A GET reads them in the same way.

import { getTableColumns, getTableName, sql, type SQL, type SQLChunk } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core';
import { keyEpoch } from './schema.ts';

/**
 * SQL for a row as a JSON object, by the names that the schema gives its columns. D1 takes 32 arguments for a function:
 * 16 columns.
 */
export function rowJson(table: SQLiteTable, but: readonly string[] = []): SQL {
  const fields = Object.entries(getTableColumns(table))
    .filter(([key]) => !but.includes(key))
    .map(([key, { name, dataType }]) => {
      const column = `${getTableName(table)}.${name}`;
      return `'${key}', ${dataType === 'boolean' ? `json(iif(${column}, 'true', 'false'))` : column}`;
    });
  return sql.raw(`json_object(${fields.join(', ')})`);
}

/** SQL for a related row: one object, or null. `from`: what follows FROM. */
export function oneJson(object: SQL, from: SQL): SQL {
  return sql`json((SELECT ${object} FROM ${from}))`;
}

/**
 * SQL for a list of rows of a table. `which`: what follows FROM, with their order. An order of the list itself would be
 * sorted, and read once more, also where an index has it.
 */
export function listJson(object: SQL, table: SQLiteTable, which: SQL): SQL {
  return sql`json((SELECT json_group_array(${object}) FROM (SELECT * FROM ${table} ${which}) AS ${table}))`;
}

/** A column of facts, for a selection. */
export function factsOf<Facts>(json: SQL) {
  return json.mapWith((text: string) => JSON.parse(text) as Facts).as('facts');
}

/** A statement whose one row is a text. */
export function selectText(db: DrizzleD1Database, text: SQL) {
  return db.select({ bodyJson: sql<string | null>`${text}`.as('body_json') }).from(keyEpoch);
}

/** SQL for the values of a list, of any length. */
export function listed(values: readonly (number | string)[]): SQL {
  return sql`(SELECT value FROM json_each(${JSON.stringify(values)}))`;
}

/**
 * SQL for "the id is one of these", which is at least one. Where they lie close together, as those that were made at once
 * do, all rows between them are walked: D1 counts each once, and one that is looked up by its id two or three times.
 */
export function isOneOf(id: SQLiteColumn, ids: readonly number[]): SQL {
  const list = numbers(ids);
  const [first, last] = [Math.min(...ids), Math.max(...ids)];
  const areClose = ids.length > 1 && last - first < 2 * ids.length;
  return areClose ? sql`${id} BETWEEN ${first} AND ${last} AND +${id} IN ${list}` : sql`${id} IN ${list}`;
}

/** SQL for a list of numbers, which stand in the text: D1 counts each row of a json_each as read. */
function numbers(values: readonly number[]): SQL {
  return sql.raw(`(${values.join(', ')})`);
}

/** A statement has a text of at most 100 KB, and binds at most 100 values. */
const mostRows = 250;
const mostBoundRows = 8;

/** Rows in groups of as many as a statement takes. */
export function groupsOf<Row>(rows: readonly Row[]): Row[][] {
  return Array.from({ length: Math.ceil(rows.length / mostRows) }, (_, at) =>
    rows.slice(at * mostRows, (at + 1) * mostRows),
  );
}

/** SQL for rows of values: `column1`, `column2` and so on. The values of many stand in the text, as those of a list. */
export function valuesOf(rows: readonly (readonly unknown[])[]): SQL {
  const values = sql`VALUES ${listOf(rows.map((row) => sql`(${listOf(row.map((value) => sql`${value}`))})`))}`;
  return rows.length > mostBoundRows ? values.inlineParams() : values;
}

/** The statements that insert rows, of any number, with the same columns each. */
export function insertAll<Table extends SQLiteTable>(
  db: DrizzleD1Database,
  table: Table,
  rows: readonly Table['$inferInsert'][],
  or = sql``,
) {
  const keys = Object.keys(rows[0] ?? {});
  const columns = listOf(keys.map((key) => sql.identifier(getTableColumns(table)[key]?.name ?? key)));
  return groupsOf(rows).map((some) => {
    const values = some.map((row: Record<string, unknown>) => keys.map((key) => row[key]));
    return db.run(sql`INSERT ${or} INTO ${table} (${columns}) ${valuesOf(values)}`);
  });
}

function listOf(parts: SQLChunk[]): SQL {
  return sql.join(parts, sql`, `);
}

/** SQL for rows that are read from one JSON text, of any number. `field` is a column of them; NULL where it is missing. */
export function givenRows(rows: readonly object[]): SQL {
  return sql`json_each(${JSON.stringify(rows)}) AS given`;
}

export function field(name: string): SQL {
  return sql.raw(`given.value ->> '${name}'`);
}

/** Whether a condition holds, as a statement: a mutation reads all that it depends on in one batch. */
export function selectHolds(db: DrizzleD1Database, condition: SQL) {
  return db.select({ holds: sql<0 | 1>`${condition}` }).from(keyEpoch);
}
