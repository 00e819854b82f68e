// The named queries on rotations of many bouncers: a thousand in a handful of statements, each with all its rows as one
// JSON text, since D1 counts statements and bound parameters.

import { and, asc, desc, eq, gt, inArray, lt, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import type { VersionPlan } from './versions.ts';
import { askD1 } from '../store/ask.ts';
import { selectFactsWhere, type Bouncer, type BouncerFacts } from './bouncers.sql.ts';
import { manyChangedStatements } from '../store/epoch.sql.ts';
import { bouncers, hostKeys, keyVersions, rotationMembers, rotations } from '../store/schema.ts';
import { listed, selectHolds } from '../store/facts.ts';

export type Rotation = typeof rotations.$inferSelect;
export type Member = typeof rotationMembers.$inferSelect;

/**
 * One bouncer of a rotation, as it was read, and what becomes of it: a new key with this digest, or, where its host
 * makes its keys, the host is asked for one.
 */
export interface Turn {
  readonly bouncer: Pick<Bouncer, 'id' | 'name' | 'revision' | 'versionCount'>;
  readonly made: { readonly plan: VersionPlan; readonly digest: string } | null;
  readonly dueMs: number;
}

const pageRows = 2000;

/**
 * Bouncers whose names begin with one of some texts, with the versions of their keys and their hosts: a page by id, from
 * behind one.
 */
export function selectCandidates(db: DrizzleD1Database, prefixes: readonly string[], afterId: number) {
  // No character of a name comes behind `~`. A range of the index; a comparison would look at every bouncer.
  const named = sql`bouncers.id IN (SELECT named.id FROM json_each(${JSON.stringify(prefixes)}) AS prefix
    JOIN bouncers AS named ON named.name >= prefix.value AND named.name < prefix.value || '~')`;
  return selectFactsWhere(db, and(gt(bouncers.id, afterId), prefixes.includes('') ? undefined : named))
    .orderBy(asc(bouncers.id))
    .limit(pageRows);
}

/** Where the page after one begins; null: there is none. */
export function nextCandidate(page: readonly { readonly facts: BouncerFacts }[]): number | null {
  return page.length < pageRows ? null : (page.at(-1)?.facts.bouncer.id ?? null);
}

export function selectNewestId(db: DrizzleD1Database) {
  return db.select({ id: rotations.id }).from(rotations).orderBy(desc(rotations.id)).limit(1);
}

/** Whether one of these digests was taken away. */
export function selectAnyRevoked(db: DrizzleD1Database, digests: readonly string[]) {
  return selectHolds(db, sql`EXISTS (SELECT 1 FROM revoked_digests WHERE digest IN ${listed(digests)})`);
}

/** SQL for "the rotation's id is still the next one". That no bouncer was mutated since is checked where it is changed. */
export function isNextId(rotationId: number): SQL {
  return sql`(SELECT COALESCE(MAX(id), 0) FROM rotations) = ${rotationId - 1}`;
}

/** The statements of a rotation. An insertion from a query, as drizzle makes it, reads its rows twice (it names the id). */
export function rotationStatements(
  db: DrizzleD1Database,
  rotation: Rotation,
  turns: readonly Turn[],
  /** How long a key that a host makes is to live; null: as long as the one before. */
  lifeMs: number | null,
  nowMs: number,
) {
  const plans = turns.flatMap(({ made }) => (made ? [made.plan] : []));
  const revoked = plans.flatMap(({ revoke }) => revoke);
  const ended = plans.flatMap(({ change }) => change.map(({ version, to }) => [version.id, to.deadlineMs]));
  const added = turns.flatMap(({ bouncer, made }) => {
    if (!made?.plan.insert) return [];
    const { digest } = made;
    const { createdMs, state, expiresMs, deadlineMs, graceMs, maxOverlapMs } = made.plan.insert;
    const number = bouncer.versionCount + 1;
    return [[bouncer.id, digest, createdMs, number, state, expiresMs, deadlineMs, graceMs, maxOverlapMs]];
  });
  const ends = plans.flatMap((plan) => [
    ...plan.revoke.map(({ digest }) => [digest, nowMs]),
    ...plan.change.map(({ version, to }) => [version.digest, to.deadlineMs]),
  ]);
  const members = turns.map(({ bouncer: { id, name, versionCount }, dueMs }) => [
    id,
    name,
    versionCount + 1,
    dueMs,
  ]);
  const changed = turns.map(({ bouncer: { id, revision }, made }) => [id, revision, made ? 1 : 0]);
  const asked = turns.filter(({ made }) => made === null).map(({ bouncer, dueMs }) => [bouncer.name, dueMs]);
  const field = (index: number): SQL => sql.raw(`json_extract(turn.value, '$[${index}]')`);
  const rows = (values: readonly unknown[]): SQL => sql`json_each(${JSON.stringify(values)}) AS turn`;
  return [
    // A revision that is NULL violates its column: of a bouncer that was changed since. One that is gone has no new key.
    db
      .update(bouncers)
      .set({
        revision: sql`CASE WHEN revision = ${field(1)} THEN revision + 1 END`,
        versionCount: sql`version_count + ${field(2)}`,
      })
      .from(rows(changed))
      .where(sql`bouncers.id = ${field(0)}`),
    db.run(sql`INSERT OR IGNORE INTO revoked_digests (digest, revoked_ms)
      SELECT value, ${nowMs} FROM json_each(${JSON.stringify(revoked.map(({ digest }) => digest))})`),
    // An end that is set is as final as a revocation.
    db.run(sql`INSERT INTO ends_outbox (digest, ends_ms) SELECT ${field(0)}, ${field(1)} FROM ${rows(ends)}`),
    db.delete(keyVersions).where(inArray(keyVersions.id, listed(revoked.map(({ id }) => id)))),
    db
      .update(keyVersions)
      .set({ deadlineMs: field(1) })
      .from(rows(ended))
      .where(sql`key_versions.id = ${field(0)}`),
    db.run(sql`INSERT INTO key_versions
        (bouncer_id, digest, created_ms, number, state, expires_ms, deadline_ms, grace_ms, max_overlap_ms)
      SELECT ${field(0)}, ${field(1)}, ${field(2)}, ${field(3)}, ${field(4)}, ${field(5)}, ${field(6)},
        ${field(7)}, ${field(8)} FROM ${rows(added)}`),
    db
      .update(hostKeys)
      .set({
        rotationAskedMs: field(1),
        graceMs: rotation.graceMs,
        maxOverlapMs: rotation.maxOverlapMs,
        ...(lifeMs === null ? {} : { lifeMs }),
      })
      .from(rows(asked))
      .where(sql`kind = 'bouncer' AND host_keys.name = ${field(0)}`),
    db.insert(rotations).values(rotation),
    db.run(sql`INSERT INTO rotation_members (rotation_id, bouncer_id, name, number, due_ms)
       SELECT ${rotation.id}, ${field(0)}, ${field(1)}, ${field(2)}, ${field(3)} FROM ${rows(members)}`),
    ...manyChangedStatements(
      db,
      turns.map(({ bouncer }) => bouncer.id),
    ),
  ];
}

/**
 * A rotation with its bouncers in the order in which they are due. `versionCount`: how many versions the bouncer has had
 * by now; null: it is gone.
 */
export async function findRotation(
  d1: D1Database,
  id: number,
): Promise<{ rotation: Rotation; members: (Member & { versionCount: number | null })[] } | null> {
  const [[rotation], rows] = await askD1(d1, (db) =>
    db.batch([
      db.select().from(rotations).where(eq(rotations.id, id)),
      db
        .select({ member: rotationMembers, versionCount: bouncers.versionCount })
        .from(rotationMembers)
        .leftJoin(bouncers, eq(bouncers.id, rotationMembers.bouncerId))
        .where(eq(rotationMembers.rotationId, id))
        .orderBy(asc(rotationMembers.dueMs), asc(rotationMembers.bouncerId)),
    ]),
  );
  if (!rotation) return null;
  return {
    rotation,
    members: rows.map(({ member, versionCount }) => ({ ...member, versionCount })),
  };
}

/** The newest before an id, each with how many bouncers it rotates. */
export function listRotations(
  d1: D1Database,
  beforeId: number | null,
  limit: number,
): Promise<{ rotation: Rotation; bouncers: number }[]> {
  return askD1(d1, (db) =>
    db
      .select({
        rotation: rotations,
        bouncers: db.$count(rotationMembers, eq(rotationMembers.rotationId, rotations.id)),
      })
      .from(rotations)
      .where(beforeId === null ? undefined : lt(rotations.id, beforeId))
      .orderBy(desc(rotations.id))
      .limit(limit),
  );
}
