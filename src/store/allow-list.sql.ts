// The allow-list in D1: its table, and what the feed's object reads of it.

import { asc, sql } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core';

/** An address or a range on which bouncers are served no decision. `revision` counts its changes: it is the ETag. */
export const allowedNetworks = sqliteTable('allowed_networks', {
  id: integer('id').primaryKey({ autoIncrement: true }),
  /** As `formatNetwork` writes it. */
  value: text('value').notNull(),
  comment: text('comment').notNull(),
  /** For which bouncers: patterns of their names (mirror/patterns.ts), a JSON list, sorted and each once. Null: for all. */
  bouncersJson: text('bouncers_json'),
  expiresMs: integer('expires_ms'),
  createdMs: integer('created_ms').notNull(),
  actor: text('actor').notNull(),
  revision: integer('revision').notNull().default(1),
});

/** All entries. With aliases: the writer reads rows as D1 names them, without drizzle's mapping. */
export function selectAllowed(db: DrizzleD1Database) {
  const { id, value } = allowedNetworks;
  return db
    .select({
      id,
      value,
      expiresMs: sql<number | null>`expires_ms`.as('expiresMs'),
      bouncersJson: sql<string | null>`bouncers_json`.as('bouncersJson'),
    })
    .from(allowedNetworks)
    .orderBy(asc(id));
}
