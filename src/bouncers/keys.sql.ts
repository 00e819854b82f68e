// SQL on the versions of bouncers' keys: which digests are known, and what a change of versions writes.

import { and, eq, inArray, isNull, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { askD1, answerMs } from '../store/ask.ts';
import type { VersionPlan } from './versions.ts';
import { bouncers, keyVersions, revocationOutbox, revokedDigests, type KeyVersion } from '../store/schema.ts';
import { groupsOf, insertAll, isOneOf, listed, selectHolds, valuesOf } from '../store/facts.ts';
import { manyChangedStatements } from '../store/epoch.sql.ts';

/** Notes the first use of a version that is no `next`. No mutation: no key's right changes. */
export async function saveFirstUse(d1: D1Database, id: number, nowMs: number): Promise<void> {
  const unused = and(eq(keyVersions.id, id), isNull(keyVersions.firstUsedMs));
  await askD1(d1, (db) => db.update(keyVersions).set({ firstUsedMs: nowMs }).where(unused));
}

export function versionsOf(d1: D1Database, bouncerIds: readonly number[]): Promise<KeyVersion[]> {
  const own = inArray(keyVersions.bouncerId, listed(bouncerIds));
  return askD1(d1, (db) => db.select().from(keyVersions).where(own).orderBy(keyVersions.number));
}

export async function isKnownDigest(d1: D1Database, digest: string): Promise<boolean> {
  const [row] = await askD1(d1, (db) => selectHolds(db, isKnown(digest)), answerMs);
  return row?.holds === 1;
}

export async function isRevokedDigest(d1: D1Database, digest: string): Promise<boolean> {
  const [row] = await askD1(d1, (db) => selectHolds(db, isRevoked(digest)), answerMs);
  return row?.holds === 1;
}

/** SQL for "this digest is or was that of a key". */
export function isKnown(digest: string): SQL {
  return sql`(EXISTS (SELECT 1 FROM key_versions WHERE digest = ${digest})
    OR EXISTS (SELECT 1 FROM revoked_digests WHERE digest = ${digest}))`;
}

/** SQL for "nobody has changed this bouncer since". */
export function atRevision(bouncer: { readonly id: number; readonly revision: number }): SQL {
  return sql`EXISTS (SELECT 1 FROM bouncers WHERE id = ${bouncer.id} AND revision = ${bouncer.revision})`;
}

/** SQL for "one of these digests was revoked". */
export function isRevoked(...digests: readonly string[]): SQL {
  return sql`EXISTS (SELECT 1 FROM revoked_digests WHERE digest IN ${listed(digests)})`;
}

export function neverRevoked(digest: string): SQL {
  return sql`NOT ${isRevoked(digest)}`;
}

/** What becomes of the versions of one bouncer. */
export interface BouncerPlan {
  readonly bouncer: Pick<typeof bouncers.$inferSelect, 'id' | 'revision' | 'versionCount'>;
  readonly plan: VersionPlan;
  /** The digest of the version that the plan inserts. */
  readonly digest: string | null;
}

/**
 * The statements of plans for any number of bouncers, at least one. The epoch moves, so that every isolate looks up these
 * keys anew within 5 s.
 */
export function planStatements(db: DrizzleD1Database, plans: readonly BouncerPlan[], nowMs: number) {
  const revoked = plans.flatMap(({ plan }) => plan.revoke);
  const changed = plans.flatMap(({ plan }) => plan.change.map(({ version, to }) => ({ ...version, ...to })));
  // A deadline that was set is as final as a revocation.
  const revocations = [
    ...revoked.map(({ digest }) => ({ digest, effectiveMs: nowMs })),
    ...changed.flatMap(({ digest, deadlineMs }) =>
      deadlineMs === null ? [] : [{ digest, effectiveMs: deadlineMs }],
    ),
  ];
  const added = plans.flatMap(({ bouncer, plan, digest }) => {
    return plan.insert && digest !== null
      ? [{ ...plan.insert, digest, bouncerId: bouncer.id, number: bouncer.versionCount + 1 }]
      : [];
  });
  return [
    ...countChange(
      db,
      plans.filter(({ plan }) => plan.insert),
      sql`version_count + 1`,
    ),
    ...countChange(
      db,
      plans.filter(({ plan }) => !plan.insert),
      sql`version_count`,
    ),
    ...insertAll(
      db,
      revokedDigests,
      revoked.map(({ digest }) => ({ digest, revokedMs: nowMs })),
      sql`OR IGNORE`,
    ),
    ...insertAll(db, revocationOutbox, revocations),
    ...deleteVersions(db, revoked),
    ...changeVersions(db, changed),
    ...insertAll(db, keyVersions, added),
    ...manyChangedStatements(
      db,
      plans.map(({ bouncer }) => bouncer.id),
    ),
  ];
}

/**
 * Counts a change of bouncers: a statement, or none without any. Where one was changed meanwhile its revision becomes
 * NULL, which its column refuses.
 */
function countChange(db: DrizzleD1Database, plans: readonly BouncerPlan[], versionCount: SQL) {
  if (plans.length === 0) return [];
  const seen = sql.raw(plans.map(({ bouncer: { id, revision } }) => `(${id}, ${revision})`).join(', '));
  const ids = plans.map(({ bouncer }) => bouncer.id);
  return [
    db
      .update(bouncers)
      .set({
        revision: sql`CASE WHEN (id, revision) IN (VALUES ${seen}) THEN revision + 1 END`,
        versionCount,
      })
      .where(isOneOf(bouncers.id, ids)),
  ];
}

function deleteVersions(db: DrizzleD1Database, versions: readonly KeyVersion[]) {
  const ids = versions.map(({ id }) => id);
  return ids.length === 0 ? [] : [db.delete(keyVersions).where(isOneOf(keyVersions.id, ids))];
}

function changeVersions(db: DrizzleD1Database, versions: readonly KeyVersion[]) {
  return groupsOf(versions).map((some) =>
    db
      .update(keyVersions)
      .set({
        state: sql`column2`,
        // `saveFirstUse` moves no revision: it may have written this since the versions were read.
        firstUsedMs: sql`COALESCE(first_used_ms, column3)`,
        deadlineMs: sql`column4`,
        graceMs: sql`column5`,
        maxOverlapMs: sql`column6`,
      })
      .from(
        sql`(${valuesOf(
          some.map(({ id, state, firstUsedMs, deadlineMs, graceMs, maxOverlapMs }) => {
            return [id, state, firstUsedMs, deadlineMs, graceMs, maxOverlapMs];
          }),
        )})`,
      )
      .where(sql`key_versions.id = column1`),
  );
}

/** The statements that end a token which is in no row of keys: it is kept as a revoked key is, and no restored D1 opens it. */
export function endStatements(db: DrizzleD1Database, digest: string, nowMs: number) {
  return [
    db.insert(revokedDigests).values({ digest, revokedMs: nowMs }).onConflictDoNothing(),
    db.insert(revocationOutbox).values({ digest, effectiveMs: nowMs }),
  ];
}

/** The statements that revoke versions of keys. `which`: SQL on `key_versions`. Their digests are never registered again. */
export function revokeStatements(db: DrizzleD1Database, which: SQL, nowMs: number) {
  return [
    db.run(sql`INSERT OR IGNORE INTO revoked_digests (digest, revoked_ms)
      SELECT digest, ${nowMs} FROM key_versions WHERE ${which}`),
    db.run(sql`INSERT INTO ends_outbox (digest, ends_ms)
      SELECT digest, ${nowMs} FROM key_versions WHERE ${which}`),
    db.delete(keyVersions).where(which),
  ];
}
