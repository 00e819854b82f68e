// The named queries on rotations of many bouncers: a thousand in a handful of statements, each with all its rows as one
// JSON text, since D1 counts statements and bound parameters.

import { asc, desc, eq, inArray, lt, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import type { VersionPlan } from '../broker/rotation.ts';
import { askD1 } from './ask.ts';
import { listBouncers, type Bouncer, type BouncerFacts } from './bouncers.ts';
import { changedStatements, listed } from './keys.ts';
import {
  bouncers,
  endsOutbox,
  hostKeys,
  keyVersions,
  revokedDigests,
  rotationMembers,
  rotations,
} from './schema.ts';

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

const pageRows = 1000;

/** Every bouncer with its versions, in pages by id. */
export async function* everyBouncer(
  d1: D1Database,
): AsyncGenerator<readonly Pick<BouncerFacts, 'bouncer' | 'versions'>[]> {
  for (let after = 0; ;) {
    const page = await listBouncers(d1, after, pageRows);
    yield page;
    const last = page.at(-1);
    if (!last || page.length < pageRows) return;
    after = last.bouncer.id;
  }
}

export async function newestId(d1: D1Database): Promise<number> {
  const newest = (db: DrizzleD1Database) => db.select().from(rotations).orderBy(desc(rotations.id)).limit(1);
  const [row] = await askD1(d1, newest);
  return row?.id ?? 0;
}

/** SQL for "none of these bouncers was mutated since, and the rotation's id is still the next one". */
export function unchangedSince(turns: readonly Turn[], rotationId: number): SQL {
  const seen = JSON.stringify(turns.map(({ bouncer: { id, revision } }) => [id, revision]));
  return sql`(SELECT COALESCE(MAX(id), 0) FROM rotations) = ${rotationId - 1}
    AND NOT EXISTS (
      SELECT 1 FROM json_each(${seen}) AS seen LEFT JOIN bouncers ON bouncers.id = json_extract(seen.value, '$[0]')
      WHERE bouncers.revision IS NOT json_extract(seen.value, '$[1]'))`;
}

/**
 * The statements of a rotation. A raw statement can't be in drizzle's batch, and an insertion from a query names every
 * column of the schema, in its order.
 */
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
  const versioned = turns.filter(({ made }) => made !== null).map(({ bouncer }) => bouncer.id);
  const asked = turns.filter(({ made }) => made === null).map(({ bouncer, dueMs }) => [bouncer.name, dueMs]);
  const field = (index: number): SQL => sql.raw(`json_extract(value, '$[${index}]')`);
  return [
    db
      .insert(revokedDigests)
      .select(
        sql`SELECT value, ${nowMs} FROM json_each(${JSON.stringify(revoked.map(({ digest }) => digest))}) WHERE true`,
      )
      .onConflictDoNothing(),
    // An end that is set is as final as a revocation.
    db.insert(endsOutbox).select(sql`
      SELECT NULL, ${field(0)}, ${field(1)} FROM json_each(${JSON.stringify(ends)})`),
    db.delete(keyVersions).where(inArray(keyVersions.id, listed(revoked.map(({ id }) => id)))),
    db
      .update(keyVersions)
      .set({
        deadlineMs: sql`(SELECT ${field(1)} FROM json_each(${JSON.stringify(ended)})
          WHERE ${field(0)} = key_versions.id)`,
      })
      .where(inArray(keyVersions.id, listed(ended.map(([id]) => id as number)))),
    db.insert(keyVersions).select(sql`
      SELECT NULL, ${field(0)}, ${field(1)}, ${field(2)}, ${field(3)}, ${field(4)}, NULL, ${field(5)}, ${field(6)},
        ${field(7)}, ${field(8)}
      FROM json_each(${JSON.stringify(added)})`),
    db
      .update(hostKeys)
      .set({
        rotationAskedMs: sql`(SELECT ${field(1)} FROM json_each(${JSON.stringify(asked)})
          WHERE ${field(0)} = host_keys.name)`,
        graceMs: rotation.graceMs,
        maxOverlapMs: rotation.maxOverlapMs,
        ...(lifeMs === null ? {} : { lifeMs }),
      })
      .where(sql`kind = 'bouncer' AND name IN ${listed(asked.map(([name]) => name as string))}`),
    db
      .update(bouncers)
      .set({
        revision: sql`revision + 1`,
        versionCount: sql`version_count + (id IN ${listed(versioned)})`,
      })
      .where(inArray(bouncers.id, listed(turns.map(({ bouncer }) => bouncer.id)))),
    db.insert(rotations).values(rotation),
    db.insert(rotationMembers).select(sql`
      SELECT ${rotation.id}, ${field(0)}, ${field(1)}, ${field(2)}, ${field(3)}
      FROM json_each(${JSON.stringify(members)})`),
    ...changedStatements(db, listed(turns.map(({ bouncer }) => bouncer.id))),
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
