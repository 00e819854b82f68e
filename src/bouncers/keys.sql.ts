// The named queries on keys: what opens what, and what a rotation changes.

import { and, eq, inArray, isNull, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { askD1, answerMs } from '../store/ask.ts';
import type { VersionPlan } from './versions.ts';
import { bouncers, revocationOutbox, keyVersions, revokedDigests, type KeyVersion } from '../store/schema.ts';
import { listed, selectHolds } from '../store/facts.ts';
import { changedStatements } from '../store/epoch.sql.ts';

/** Notes the first use of a version that is in use by right. No mutation: nobody's right changes. */
export async function saveFirstUse(d1: D1Database, id: number, nowMs: number): Promise<void> {
  const unused = and(eq(keyVersions.id, id), isNull(keyVersions.firstUsedMs));
  await askD1(d1, (db) => db.update(keyVersions).set({ firstUsedMs: nowMs }).where(unused));
}

/** Of any number of bouncers: D1 binds no more than 100 values a statement, so a list is one JSON text. */
export function versionsOf(d1: D1Database, bouncerIds: readonly number[]): Promise<KeyVersion[]> {
  const own = inArray(keyVersions.bouncerId, listed(bouncerIds));
  return askD1(d1, (db) => db.select().from(keyVersions).where(own).orderBy(keyVersions.number));
}

export async function isKnownDigest(d1: D1Database, digest: string): Promise<boolean> {
  const [row] = await askD1(d1, (db) => selectHolds(db, isKnown(digest)), answerMs);
  return row?.holds === 1;
}

/** SQL for "this digest opens something, did once, or was taken away". */
export function isKnown(digest: string): SQL {
  return sql`(EXISTS (SELECT 1 FROM key_versions WHERE digest = ${digest})
    OR EXISTS (SELECT 1 FROM revoked_digests WHERE digest = ${digest}))`;
}

/** SQL for "nobody has mutated this bouncer since". */
export function atRevision(bouncer: { readonly id: number; readonly revision: number }): SQL {
  return sql`EXISTS (SELECT 1 FROM bouncers WHERE id = ${bouncer.id} AND revision = ${bouncer.revision})`;
}

/** SQL for "this digest was taken away". */
export function isRevoked(digest: string): SQL {
  return sql`EXISTS (SELECT 1 FROM revoked_digests WHERE digest = ${digest})`;
}

export function neverRevoked(digest: string): SQL {
  return sql`NOT ${isRevoked(digest)}`;
}

/**
 * The statements of a plan. A version that is taken away leaves its digest behind, and the epoch moves with every
 * change, so that no isolate trusts what it knew for more than 5 s.
 */
export function planStatements(
  db: DrizzleD1Database,
  bouncer: { readonly id: number; readonly versionCount: number },
  plan: VersionPlan,
  digest: string | null,
  nowMs: number,
) {
  const number = bouncer.versionCount + (plan.insert ? 1 : 0);
  return [
    ...plan.revoke.flatMap((version) => revokeStatements(db, version, nowMs)),
    ...plan.change.flatMap(({ version, to }) => [
      db.update(keyVersions).set(to).where(eq(keyVersions.id, version.id)),
      // The end of a grace is as final as a revocation.
      ...(to.state === 'previous' && to.deadlineMs
        ? [db.insert(revocationOutbox).values({ digest: version.digest, effectiveMs: to.deadlineMs })]
        : []),
    ]),
    ...(plan.insert && digest !== null
      ? [db.insert(keyVersions).values({ ...plan.insert, bouncerId: bouncer.id, number, digest })]
      : []),
    db
      .update(bouncers)
      .set({ revision: sql`revision + 1`, versionCount: number })
      .where(eq(bouncers.id, bouncer.id)),
    ...changedStatements(db, sql`(${bouncer.id})`),
  ];
}

export function revokeStatements(db: DrizzleD1Database, version: KeyVersion, nowMs: number) {
  return [
    db.insert(revokedDigests).values({ digest: version.digest, revokedMs: nowMs }).onConflictDoNothing(),
    db.insert(revocationOutbox).values({ digest: version.digest, effectiveMs: nowMs }),
    db.delete(keyVersions).where(eq(keyVersions.id, version.id)),
  ];
}
