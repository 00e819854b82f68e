// The named queries on enrolment tokens and who used them.

import { asc, desc, eq, gt, lt, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { askD1 } from '../store/ask.ts';
import { factsOf, listJson, rowJson } from '../store/facts.ts';
import { enrolmentHosts, enrolments } from '../store/schema.ts';
import { endStatements } from '../bouncers/keys.sql.ts';

export type Enrolment = typeof enrolments.$inferSelect;
export type EnrolmentHost = typeof enrolmentHosts.$inferSelect;

/** An enrolment, and who used it. */
export interface EnrolmentFacts {
  readonly enrolment: Enrolment;
  readonly uses: readonly EnrolmentHost[];
}

const facts = sql`json_object(
  'enrolment', ${rowJson(enrolments)},
  'uses', ${listJson(rowJson(enrolmentHosts), enrolmentHosts, sql`WHERE enrolment_id = enrolments.id ORDER BY host`)})`;

/** SQL for the facts of an enrolment, as JSON. */
export function enrolmentJson(ref: string): SQL {
  return sql`(SELECT ${facts} FROM enrolments WHERE ref = ${ref})`;
}

function selectFactsWhere(db: DrizzleD1Database, which: SQL) {
  return db
    .select({ facts: factsOf<EnrolmentFacts>(facts) })
    .from(enrolments)
    .where(which);
}

export function selectFacts(db: DrizzleD1Database, ref: string) {
  return selectFactsWhere(db, eq(enrolments.ref, ref));
}

/** By its digest, unless that was revoked, or no place is left for this host. */
export function selectByDigest(db: DrizzleD1Database, digest: string, host: string) {
  return db
    .select()
    .from(enrolments)
    .where(
      sql`digest = ${digest} AND NOT EXISTS (SELECT 1 FROM revoked_digests WHERE digest = ${digest})
        AND (SELECT count(*) FROM enrolment_hosts WHERE enrolment_id = id AND host <> ${host}) < max_hosts`,
    );
}

/** A page by id. `afterId`: 0 begins, in either order. */
export async function listEnrolments(
  d1: D1Database,
  order: 'oldest' | 'newest',
  afterId: number,
  limit: number,
): Promise<EnrolmentFacts[]> {
  const { id } = enrolments;
  const rows = await askD1(d1, (db) =>
    selectFactsWhere(db, order === 'oldest' || afterId === 0 ? gt(id, afterId) : lt(id, afterId))
      .orderBy(order === 'oldest' ? asc(id) : desc(id))
      .limit(limit),
  );
  return rows.map((row) => row.facts);
}

export function insertStatements(db: DrizzleD1Database, enrolment: typeof enrolments.$inferInsert) {
  return [db.insert(enrolments).values(enrolment)];
}

/** SQL for "it is not revoked". */
export function notRevoked({ id }: Enrolment): SQL {
  return sql`EXISTS (SELECT 1 FROM enrolments WHERE id = ${id} AND revoked_ms IS NULL)`;
}

export function revokeStatements(db: DrizzleD1Database, { id, digest }: Enrolment, nowMs: number) {
  return [
    db.update(enrolments).set({ revokedMs: nowMs }).where(eq(enrolments.id, id)),
    ...endStatements(db, digest, nowMs),
  ];
}

/** SQL for "a place is left for this host". It is counted in the batch that takes it, so the last place is taken once. */
export function hasPlace({ id, maxHosts }: Enrolment, host: string): SQL {
  return sql`(EXISTS (SELECT 1 FROM enrolments WHERE id = ${id} AND revoked_ms IS NULL)
    AND (SELECT count(*) FROM enrolment_hosts WHERE enrolment_id = ${id} AND host <> ${host}) < ${maxHosts})`;
}

export function takePlaceStatements(db: DrizzleD1Database, use: EnrolmentHost) {
  const target = [enrolmentHosts.enrolmentId, enrolmentHosts.host];
  return [db.insert(enrolmentHosts).values(use).onConflictDoUpdate({ target, set: use })];
}
