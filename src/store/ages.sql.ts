// What would grow for ever in D1, and when it goes. What ends by itself within days is forgotten by who writes it:
// idempotent answers, nonces, audiences, changes of keys.

import { sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { enrolments, hosts, operatorTokens, revokedDigests, rotations } from './schema.ts';

/**
 * How long it is remembered that a key or token ended, here and in the feed's object: longer than any backup is kept that
 * may be put back. An older one is refused (writer/writer.ts).
 */
export const endsKeptMs = 400 * 86_400_000;

/** Rows of each kind that go at once; of those that take others with them. */
export const sliceRows = 1000;
const parentSliceRows = 10;

/**
 * The statements that remove a slice of what ended before a moment. `adopts`: a key that is unknown here may come from the
 * engine, so what was taken away stays known.
 */
export function removeOldStatements(db: DrizzleD1Database, beforeMs: number, adopts: boolean) {
  return [
    ...(adopts ? [] : [db.delete(revokedDigests).where(slice('revoked_digests', isBefore('revoked_ms')))]),
    // Its name is not given again while the audit log speaks of it.
    db.delete(operatorTokens).where(
      slice(
        'operator_tokens',
        sql`${isBefore('COALESCE(revoked_ms, expires_ms)')}
          AND NOT EXISTS (SELECT 1 FROM audit WHERE actor = 'token:' || name)
          AND NOT EXISTS (SELECT 1 FROM audit WHERE target = name AND action LIKE 'operator-token.%')`,
      ),
    ),
    db.delete(enrolments).where(slice('enrolments', isBefore('expires_ms'), parentSliceRows)),
    // The newest is what the next one counts from.
    db
      .delete(rotations)
      .where(
        slice(
          'rotations',
          sql`${isBefore('created_ms')} AND id < (SELECT MAX(id) FROM rotations)`,
          parentSliceRows,
        ),
      ),
    // Who proved to be an instance can prove it for as long as that runs: it stays removed.
    db.delete(hosts).where(slice('hosts', sql`${isBefore('removed_ms')} AND instance IS NULL`)),
  ];

  function isBefore(column: string): SQL {
    return sql`${sql.raw(column)} < ${beforeMs}`;
  }
}

function slice(table: string, which: SQL, rows = sliceRows): SQL {
  return sql`rowid IN (SELECT rowid FROM ${sql.raw(table)} WHERE ${which} LIMIT ${rows})`;
}
