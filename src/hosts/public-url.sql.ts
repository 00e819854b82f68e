// The named queries on the address by which hosts know this broker, and on requests that were meant for another one.

import { eq, lte, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { answerMs, askD1 } from '../store/ask.ts';
import type { Host } from './hosts.sql.ts';
import { hosts, publicUrl, relayedAudiences } from '../store/schema.ts';

export type FixedUrl = typeof publicUrl.$inferSelect;

export async function findFixedUrl(d1: D1Database): Promise<FixedUrl | null> {
  const [row] = await askD1(d1, selectFixedUrl, answerMs);
  return row ?? null;
}

export function selectFixedUrl(db: DrizzleD1Database) {
  return db.select().from(publicUrl);
}

/** What a host's request is verified against. */
export interface Contact {
  /** The host of its name; it may be removed. */
  readonly host: Host | null;
  /** The address of this broker that is fixed in D1. */
  readonly fixed: string | null;
}

export async function readContact(d1: D1Database, name: string): Promise<Contact> {
  const [found, fixed] = await askD1(d1, (db) =>
    db.batch([db.select().from(hosts).where(eq(hosts.name, name)), selectFixedUrl(db)]),
  );
  return { host: found[0] ?? null, fixed: fixed[0]?.url ?? null };
}

/** SQL for "no address was fixed". */
export const noneFixed: SQL = sql`NOT EXISTS (SELECT 1 FROM public_url)`;

export function fixUrlStatements(db: DrizzleD1Database, fixed: Omit<FixedUrl, 'id'>) {
  const row = { id: 0, ...fixed };
  return [db.insert(publicUrl).values(row).onConflictDoUpdate({ target: publicUrl.id, set: fixed })];
}

export async function noteRefused(d1: D1Database, hostId: number, why: string, nowMs: number): Promise<void> {
  const to = { lastRefusedMs: nowMs, lastRefusedWhy: why };
  await askD1(d1, (db) => db.update(hosts).set(to).where(eq(hosts.id, hostId)));
}

/** SQL for "a relay for `audience` is to be noted": none was since `sinceMs`, and fewer than `atMost` for others. */
export function isNewRelay(audience: string, sinceMs: number, atMost: number): SQL {
  return sql`(SELECT count(*) < ${atMost} AND total(audience = ${audience}) = 0
    FROM relayed_audiences WHERE noted_ms > ${sinceMs})`;
}

export function noteRelayStatements(db: DrizzleD1Database, audience: string, sinceMs: number, nowMs: number) {
  return [
    db.delete(relayedAudiences).where(lte(relayedAudiences.notedMs, sinceMs)),
    db.insert(relayedAudiences).values({ audience, notedMs: nowMs }),
  ];
}
