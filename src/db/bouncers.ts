// The named queries on bouncers and their keys. Routes never build SQL.

import { asc, eq, gt, sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/d1';
import { bouncers, keyEpoch, keyVersions } from './schema.ts';

export type Bouncer = typeof bouncers.$inferSelect;

/** What a digest opens, and the epoch in which that was read. */
export interface KeyLookup {
  readonly bouncer: { readonly id: number; readonly name: string } | null;
  readonly epoch: number;
}

/** Key and epoch in one batch: read apart, a revocation between the two would be believed for an epoch more. */
export async function lookUpKey(d1: D1Database, digest: string): Promise<KeyLookup> {
  const db = drizzle(d1);
  const [epochs, found] = await db.batch([
    db.select({ epoch: keyEpoch.epoch }).from(keyEpoch),
    db
      .select({ id: bouncers.id, name: bouncers.name })
      .from(keyVersions)
      .innerJoin(bouncers, eq(bouncers.id, keyVersions.bouncerId))
      .where(eq(keyVersions.digest, digest)),
  ]);
  return { bouncer: found[0] ?? null, epoch: epochs[0]?.epoch ?? 0 };
}

export async function readEpoch(d1: D1Database): Promise<number> {
  const [row] = await drizzle(d1).select({ epoch: keyEpoch.epoch }).from(keyEpoch);
  return row?.epoch ?? 0;
}

/** Both rows or none. Throws when the name or the digest exists: `clashOf` says which. */
export async function insertBouncer(
  d1: D1Database,
  name: string,
  digest: string,
  nowMs: number,
): Promise<Bouncer> {
  const db = drizzle(d1);
  const idOfName = sql`(SELECT id FROM bouncers WHERE name = ${name})`;
  const [rows] = await db.batch([
    db.insert(bouncers).values({ name, createdMs: nowMs }).returning(),
    db.insert(keyVersions).values({ bouncerId: idOfName, digest, createdMs: nowMs }),
  ]);
  return rows[0] as Bouncer;
}

export type Clash = 'name' | 'digest';

/** Which of the two a new bouncer would clash with. */
export async function clashOf(d1: D1Database, name: string, digest: string): Promise<Clash | null> {
  const db = drizzle(d1);
  const [names, digests] = await db.batch([
    db.select({ id: bouncers.id }).from(bouncers).where(eq(bouncers.name, name)),
    db.select({ id: keyVersions.id }).from(keyVersions).where(eq(keyVersions.digest, digest)),
  ]);
  if (names.length > 0) return 'name';
  return digests.length > 0 ? 'digest' : null;
}

export async function findBouncer(d1: D1Database, name: string): Promise<Bouncer | null> {
  const [row] = await drizzle(d1).select().from(bouncers).where(eq(bouncers.name, name));
  return row ?? null;
}

/** A page by id. */
export function listBouncers(d1: D1Database, afterId: number, limit: number): Promise<Bouncer[]> {
  const db = drizzle(d1);
  return db.select().from(bouncers).where(gt(bouncers.id, afterId)).orderBy(asc(bouncers.id)).limit(limit);
}

/** Takes a bouncer and its keys away, and moves the epoch with them: no isolate trusts them for over 5 s. */
export async function deleteBouncer(d1: D1Database, id: number): Promise<void> {
  const db = drizzle(d1);
  await db.batch([
    db.delete(keyVersions).where(eq(keyVersions.bouncerId, id)),
    db.delete(bouncers).where(eq(bouncers.id, id)),
    db.update(keyEpoch).set({ epoch: sql`epoch + 1` }),
  ]);
}

/** The newest usage metrics of a bouncer take the place of the last. */
export async function saveMetrics(d1: D1Database, id: number, json: string, nowMs: number): Promise<void> {
  const db = drizzle(d1);
  await db.update(bouncers).set({ metricsJson: json, metricsMs: nowMs }).where(eq(bouncers.id, id));
}
