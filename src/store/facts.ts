// Facts: what an operator is shown, as JSON that SQL makes. A mutation reads them in its own batch, which also keeps them
// for a repeated request. A GET reads them in the same way.

import { getTableColumns, getTableName, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import type { SQLiteTable } from 'drizzle-orm/sqlite-core';
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

/** SQL for a list of related rows. */
export function listJson(object: SQL, order: SQL, from: SQL): SQL {
  return sql`json((SELECT json_group_array(${object} ORDER BY ${order}) FROM ${from}))`;
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
