// SQL on rotations of many bouncers: a thousand in a handful of statements.

import { and, asc, desc, eq, gt, lt, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { planStatements } from './keys.sql.ts';
import { field, givenRows, insertAll } from '../store/facts.ts';
import type { VersionPlan } from './versions.ts';
import { askD1 } from '../store/ask.ts';
import { selectFactsWhere, type BouncerFacts } from './bouncers.sql.ts';
import { bouncers, hostKeys, rotationMembers, rotations } from '../store/schema.ts';

export type Rotation = typeof rotations.$inferSelect;
export type MemberRow = typeof rotationMembers.$inferSelect;

/** A bouncer to rotate, as it was read. `made`: its new key; null: its host makes its keys and is asked for one. */
export interface RotationMember extends Pick<BouncerFacts, 'bouncer' | 'versions'> {
  readonly made: { readonly plan: VersionPlan; readonly digest: string } | null;
  readonly dueMs: number;
}

const pageRows = 2000;

/** A page, by name, of the bouncers behind a name whose names begin with one of some prefixes. */
export function selectCandidates(db: DrizzleD1Database, prefixes: readonly string[], after: string) {
  // A range of the index: no character of a name comes behind `~`. LIKE would read every bouncer.
  const [one] = prefixes;
  const named =
    prefixes.length === 1 && one !== undefined
      ? sql`bouncers.name >= ${one} AND bouncers.name < ${`${one}~`}`
      : sql`bouncers.name IN (SELECT named.name FROM json_each(${JSON.stringify(prefixes)}) AS prefix
          JOIN bouncers AS named ON named.name >= prefix.value AND named.name < prefix.value || '~')`;
  return selectFactsWhere(db, and(gt(bouncers.name, after), named))
    .orderBy(asc(bouncers.name))
    .limit(pageRows);
}

/** The name behind which the next page begins; null: this was the last. */
export function nextCandidate(page: readonly { readonly facts: BouncerFacts }[]): string | null {
  return page.length < pageRows ? null : (page.at(-1)?.facts.bouncer.name ?? null);
}

export function selectNewestId(db: DrizzleD1Database) {
  return db.select({ id: rotations.id }).from(rotations).orderBy(desc(rotations.id)).limit(1);
}

/** SQL for "the rotation's id is still the next one". */
export function isNextId(rotationId: number): SQL {
  return sql`(SELECT COALESCE(MAX(id), 0) FROM rotations) = ${rotationId - 1}`;
}

/** The statements of a rotation. That no bouncer was changed meanwhile is checked in those of its plans. */
export function rotationStatements(
  db: DrizzleD1Database,
  rotation: Rotation,
  members: readonly RotationMember[],
  /** How long a key that a host makes is to live; null: as long as the one before it. */
  lifeMs: number | null,
  nowMs: number,
) {
  const rows = members.map(({ bouncer: { id, name, versionCount }, dueMs }) => {
    return { rotationId: rotation.id, bouncerId: id, name, number: versionCount + 1, dueMs };
  });
  const asked = members
    .filter(({ made }) => made === null)
    .map(({ bouncer: { name }, dueMs }) => ({ name, dueMs }));
  const plans = members.map(({ bouncer, made }) => ({ bouncer, ...(made ?? nothingMade) }));
  return [
    ...planStatements(db, plans, nowMs),
    db
      .update(hostKeys)
      .set({
        rotationAskedMs: field('dueMs'),
        graceMs: rotation.graceMs,
        maxOverlapMs: rotation.maxOverlapMs,
        ...(lifeMs === null ? {} : { lifeMs }),
      })
      .from(givenRows(asked))
      .where(sql`kind = 'bouncer' AND host_keys.name = ${field('name')}`),
    db.insert(rotations).values(rotation),
    ...insertAll(db, rotationMembers, rows),
  ];
}

const nothingMade = { plan: { revoke: [], change: [] }, digest: null };

/**
 * A rotation with its bouncers, in the order in which they are due. `versionCount`: how many versions the bouncer has had
 * by now; null: it was deleted.
 */
export async function findRotation(
  d1: D1Database,
  id: number,
): Promise<{ rotation: Rotation; members: (MemberRow & { versionCount: number | null })[] } | null> {
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
  return { rotation, members: rows.map(({ member, versionCount }) => ({ ...member, versionCount })) };
}

/** The newest rotations before an id. `bouncers`: how many each rotates. */
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
