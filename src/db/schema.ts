// D1's tables, described once. The truth of who may ask: bouncers and the digests of their keys. Losing it
// locks every bouncer out. No secret is in it, only SHA-512 digests of 256-bit keys.

import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core';

/** A bouncer as an operator knows it. `metricsJson`: the newest `POST /v1/usage-metrics`, as it came. */
export const bouncers = sqliteTable('bouncers', {
  id: integer('id').primaryKey({ autoIncrement: true }),
  name: text('name').notNull().unique(),
  createdMs: integer('created_ms').notNull(),
  metricsJson: text('metrics_json'),
  metricsMs: integer('metrics_ms'),
});

/** One key of a bouncer, as the lower-case hex SHA-512 that LAPI keeps too. */
export const keyVersions = sqliteTable('key_versions', {
  id: integer('id').primaryKey({ autoIncrement: true }),
  bouncerId: integer('bouncer_id')
    .notNull()
    .references(() => bouncers.id, { onDelete: 'cascade' }),
  digest: text('digest').notNull().unique(),
  createdMs: integer('created_ms').notNull(),
});

/**
 * One row: counts the mutations that can take a key's right away. An isolate that sees it unchanged may go on
 * trusting every key it has looked up, so revocation costs each isolate one small read per 5 s, not one per
 * bouncer.
 */
export const keyEpoch = sqliteTable('key_epoch', {
  id: integer('id').primaryKey(),
  epoch: integer('epoch').notNull(),
});
