// SQL on bouncers.

import { and, asc, eq, gt, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { askD1 } from '../store/ask.ts';
import { factsOf, field, givenRows, listJson, oneJson, rowJson } from '../store/facts.ts';
import type { Owned } from './host-keys.sql.ts';
import { revokeStatements } from './keys.sql.ts';
import { bouncers, hostKeys, keyVersions, type KeyVersion } from '../store/schema.ts';
import { changedStatements } from '../store/epoch.sql.ts';

export type Bouncer = typeof bouncers.$inferSelect;

/** A bouncer, the versions of its key in their order, and the host that registers it, if one does. */
export interface BouncerFacts {
  readonly bouncer: Omit<Bouncer, 'metricsJson'>;
  readonly versions: readonly KeyVersion[];
  readonly owner: Owned | null;
}

const facts = sql`json_object(
  'bouncer', ${rowJson(bouncers, ['metricsJson'])},
  'versions', ${listJson(rowJson(keyVersions), keyVersions, sql`WHERE bouncer_id = bouncers.id ORDER BY id`)},
  'owner', ${oneJson(
    sql`json_object('hostKey', ${rowJson(hostKeys)}, 'host', hosts.name)`,
    sql`host_keys JOIN hosts ON hosts.id = host_id WHERE kind = 'bouncer' AND host_keys.name = bouncers.name`,
  )})`;

/** SQL for the facts of a bouncer, as JSON. */
export function bouncerJson(name: string): SQL {
  return sql`(SELECT ${facts} FROM bouncers WHERE name = ${name})`;
}

export function selectFacts(db: DrizzleD1Database, name: string) {
  return selectFactsWhere(db, eq(bouncers.name, name));
}

export function selectFactsWhere(db: DrizzleD1Database, which: SQL | undefined) {
  return db
    .select({ facts: factsOf<BouncerFacts>(facts) })
    .from(bouncers)
    .where(which);
}

/** A bouncer to create, with the digest of its first key. */
export interface NewBouncer {
  readonly name: string;
  readonly digest: string;
  /** Absent or null: its key never expires. */
  readonly expiresMs?: number | null;
  readonly lapiName?: string;
}

export function insertStatements(db: DrizzleD1Database, created: readonly NewBouncer[], nowMs: number) {
  return [
    db.run(sql`INSERT INTO bouncers (name, created_ms, lapi_name)
      SELECT ${field('name')}, ${nowMs}, ${field('lapiName')} FROM ${givenRows(created)}`),
    db.run(sql`INSERT INTO key_versions (bouncer_id, digest, created_ms, expires_ms)
      SELECT bouncers.id, ${field('digest')}, ${nowMs}, ${field('expiresMs')}
      FROM ${givenRows(created)} JOIN bouncers ON bouncers.name = ${field('name')}`),
  ];
}

/** The statements that delete a bouncer, revoke its keys, and move the epoch. */
export function deleteStatements(
  db: DrizzleD1Database,
  bouncer: Pick<Bouncer, 'id' | 'name'>,
  nowMs: number,
) {
  return [
    ...revokeStatements(db, sql`bouncer_id = ${bouncer.id}`, nowMs),
    ...changedStatements(db, sql`(${bouncer.id})`),
    db.delete(bouncers).where(eq(bouncers.id, bouncer.id)),
    // Its host may no longer register it.
    db.delete(hostKeys).where(sql`kind = 'bouncer' AND name = ${bouncer.name}`),
  ];
}

/** The statements that change a bouncer's policy. The epoch moves, so that it holds everywhere within 5 s. */
export function policyStatements(db: DrizzleD1Database, bouncer: Pick<Bouncer, 'id'>, to: Partial<Bouncer>) {
  return [
    db
      .update(bouncers)
      .set({ ...to, revision: sql`revision + 1` })
      .where(eq(bouncers.id, bouncer.id)),
    ...changedStatements(db, sql`(${bouncer.id})`),
  ];
}

/** SQL for "there is no bouncer of this name". */
export function noBouncer(name: string): SQL {
  return sql`NOT EXISTS (SELECT 1 FROM bouncers WHERE name = ${name})`;
}

/** A bouncer with its newest usage metrics. */
export async function findBouncer(
  d1: D1Database,
  name: string,
): Promise<{ facts: BouncerFacts; metricsJson: string | null } | null> {
  const [row] = await askD1(d1, (db) =>
    db
      .select({ facts: factsOf<BouncerFacts>(facts), metricsJson: bouncers.metricsJson })
      .from(bouncers)
      .where(eq(bouncers.name, name)),
  );
  return row ?? null;
}

/** `name`: the name, or SQL for it. */
export function selectBouncer(db: DrizzleD1Database, name: string | SQL) {
  return db
    .select()
    .from(bouncers)
    .where(sql`name = ${name}`);
}

export function selectVersions(db: DrizzleD1Database, name: string | SQL) {
  return db
    .select()
    .from(keyVersions)
    .where(sql`bouncer_id = (SELECT id FROM bouncers WHERE name = ${name})`)
    .orderBy(keyVersions.number);
}

/** A page by id. `named`: only those whose names have this in them, in any case. */
export async function listBouncers(
  d1: D1Database,
  afterId: number,
  limit: number,
  named = '',
): Promise<readonly BouncerFacts[]> {
  const passes = named === '' ? undefined : sql`instr(lower(name), lower(${named})) > 0`;
  const rows = await askD1(d1, (db) =>
    selectFactsWhere(db, and(gt(bouncers.id, afterId), passes))
      .orderBy(asc(bouncers.id))
      .limit(limit),
  );
  return rows.map((row) => row.facts);
}

/** How long D1 may take to save them. */
const metricsPatienceMs = 5_000;

/** Replaces the usage metrics of a bouncer. No mutation: no key's right changes. */
export async function saveMetrics(d1: D1Database, id: number, json: string, nowMs: number): Promise<void> {
  const to = { metricsJson: json, metricsMs: nowMs };
  await askD1(d1, (db) => db.update(bouncers).set(to).where(eq(bouncers.id, id)), metricsPatienceMs);
}
