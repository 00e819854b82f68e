// What the feed's object reads of D1 for operators to be told: names of bouncers, keys that expire, hosts in trouble. All
// of it is found by an index, since it is asked for every minute.

import { and, eq, gt, isNotNull, isNull, lte, sql } from 'drizzle-orm';
import { askD1 } from '../store/ask.ts';
import { listed } from '../store/facts.ts';
import { bouncers, hosts, keyVersions } from '../store/schema.ts';

/** The names of those of some bouncers that may poll, by id: with a key that may be used, and not paused. */
export async function namesOf(
  d1: D1Database,
  ids: readonly number[],
  nowMs: number,
): Promise<Map<number, string>> {
  if (ids.length === 0) return new Map();
  const hasKey = sql`EXISTS (SELECT 1 FROM key_versions WHERE bouncer_id = bouncers.id
    AND coalesce(expires_ms, ${nowMs}) >= ${nowMs} AND coalesce(deadline_ms, ${nowMs}) >= ${nowMs})`;
  const isAsked = sql`${bouncers.id} IN ${listed(ids)} AND ${bouncers.pausedMs} IS NULL`;
  const rows = await askD1(d1, (db) =>
    db
      .select({ id: bouncers.id, name: bouncers.name })
      .from(bouncers)
      .where(sql`${isAsked} AND ${hasKey}`),
  );
  return new Map(rows.map(({ id, name }) => [id, name]));
}

/** How long bouncers may be silent for which an operator has set it, in milliseconds by id. */
export async function readSilentAfter(d1: D1Database): Promise<Map<number, number>> {
  const { id, silentAfterMs } = bouncers;
  const rows = await askD1(d1, (db) =>
    db
      .select({ id, ms: sql<number>`${silentAfterMs}`.as('ms') })
      .from(bouncers)
      .where(isNotNull(silentAfterMs)),
  );
  return new Map(rows.map(({ id: bouncerId, ms }) => [bouncerId, ms]));
}

/** How long before its end a key is said to expire. */
const noticeMs = 7 * 86_400_000;
/** Of a short life at most this part: its host renews a key when a quarter is left. */
const noticeShare = 5;

export interface ExpiringKey {
  readonly bouncer: string;
  /** Of its versions. */
  readonly number: number;
  readonly expiresMs: number;
}

/** The keys in use of which it became time, in `(fromMs, toMs]`, to say that they will expire, or that they have. */
export async function readExpiring(
  d1: D1Database,
  fromMs: number,
  toMs: number,
): Promise<{ readonly expiring: ExpiringKey[]; readonly expired: ExpiringKey[] }> {
  const { expiresMs, bouncerId, number, state } = keyVersions;
  const noticed = sql`expires_ms - MIN(${noticeMs}, (expires_ms - key_versions.created_ms) / ${noticeShare})`;
  const isTime = sql`(expires_ms <= ${toMs} OR (${noticed} > ${fromMs} AND ${noticed} <= ${toMs}))`;
  const isNear = and(gt(expiresMs, fromMs), lte(expiresMs, toMs + noticeMs));
  const keys = await askD1(d1, (db) =>
    db
      .select({ bouncer: bouncers.name, number, expiresMs: sql<number>`expires_ms`.as('end_ms') })
      .from(keyVersions)
      .innerJoin(bouncers, eq(bouncers.id, bouncerId))
      .where(and(isNear, eq(state, 'current'), isTime))
      .orderBy(expiresMs),
  );
  return {
    expiring: keys.filter((key) => key.expiresMs > toMs),
    expired: keys.filter((key) => key.expiresMs <= toMs),
  };
}

/** How long a host whose requests are refused is said to be no more than once. */
const refusedForMs = 86_400_000;

export interface HostTrouble {
  readonly suspected: readonly { readonly name: string; readonly atMs: number }[];
  readonly refused: readonly { readonly name: string; readonly atMs: number; readonly why: string | null }[];
}

/** Hosts of which a copy may exist, and those that were refused within a day. */
export async function readHostTrouble(d1: D1Database, nowMs: number): Promise<HostTrouble> {
  const { name, suspectedMs, lastRefusedMs, lastRefusedWhy, removedMs } = hosts;
  const atMs = (column: typeof suspectedMs | typeof lastRefusedMs) => sql<number>`${column}`.as('at_ms');
  const [suspected, refused] = await askD1(d1, (db) =>
    db.batch([
      db
        .select({ name, atMs: atMs(suspectedMs) })
        .from(hosts)
        .where(and(isNotNull(suspectedMs), isNull(removedMs))),
      db
        .select({ name, atMs: atMs(lastRefusedMs), why: lastRefusedWhy })
        .from(hosts)
        .where(and(gt(lastRefusedMs, nowMs - refusedForMs), isNull(removedMs))),
    ]),
  );
  return { suspected, refused };
}
