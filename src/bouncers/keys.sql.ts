// The named queries on keys: what opens what, and what a rotation changes.

import { and, eq, gt, inArray, isNull, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { askD1, answerMs } from '../store/ask.ts';
import { newestSeq, type AuditHead } from '../store/audit.sql.ts';
import type { VersionPlan } from './versions.ts';
import {
  audit,
  bouncers,
  endsOutbox,
  keyChanges,
  keyEpoch,
  keyVersions,
  revokedDigests,
} from '../store/schema.ts';

export type KeyVersion = typeof keyVersions.$inferSelect;

/**
 * Where the key store is: its epoch, the newest audit row (0 and '' without one) by its digest, and when a restored backup
 * was last put right. Two states with the same row are the same: every mutation writes one, with its time.
 */
export interface StoreMark {
  readonly epoch: number;
  readonly reconciledMs: number;
  readonly seq: number;
  readonly hash: string;
  /** That row's place in the chain; '' until it is sealed. */
  readonly sealedHash: string;
}

const mark = {
  epoch: keyEpoch.epoch,
  reconciledMs: sql<number>`reconciled_ms`.as('reconciledMs'),
  seq: sql<number>`COALESCE(newest.seq, 0)`.as('seq'),
  hash: sql<string>`COALESCE(newest.digest, newest.hash, '')`.as('hash'),
  sealedHash: sql<string>`COALESCE(newest.hash, '')`.as('sealedHash'),
};

const noMark: StoreMark = { epoch: 0, reconciledMs: 0, seq: 0, hash: '', sealedHash: '' };

export function selectMark(db: DrizzleD1Database) {
  const newest = sql`(SELECT seq, digest, hash FROM ${audit} ORDER BY seq DESC LIMIT 1) newest`;
  return db
    .select(mark)
    .from(keyEpoch)
    .leftJoin(newest, sql`true`);
}

/** Whether the newest row is the head of the audit log that the object knows, which it knows by one of its two hashes. */
export function isAt({ seq, hash, sealedHash }: StoreMark, head: AuditHead): boolean {
  return seq > 0 && seq === head.seq && (hash === head.hash || sealedHash === head.hash);
}

/** What a digest opens. */
export interface FoundKey {
  readonly name: string;
  readonly version: KeyVersion;
  readonly policy: Pick<typeof bouncers.$inferSelect, 'viewJson' | 'allowJson' | 'rateLimit'>;
}

/** A move of the epoch was about this bouncer's keys. */
export type KeyChange = typeof keyChanges.$inferSelect;

export interface StoreAnswer {
  readonly mark: StoreMark;
  /** What has changed since the epoch that was asked about, and no more than `mostChanges` of it. */
  readonly changes: readonly KeyChange[];
  readonly found: readonly FoundKey[];
}

/** More bouncers than an isolate remembers. */
export const mostChanges = 50_000;
/** Moves of the epoch whose bouncers are kept. */
const mostMoves = 1_000;

/** All of it as of one moment: read apart, a revocation between the two would be believed for an epoch more. */
export async function askStore(
  d1: D1Database,
  sinceEpoch: number,
  digests: readonly string[],
): Promise<StoreAnswer> {
  const { viewJson, allowJson, rateLimit } = bouncers;
  const [marks, changes, found] = await askD1(d1, (db) =>
    db.batch([
      selectMark(db),
      selectChanges(db, sinceEpoch),
      db
        .select({ name: bouncers.name, version: keyVersions, policy: { viewJson, allowJson, rateLimit } })
        .from(sql`json_each(${JSON.stringify(digests)}) asked`)
        .innerJoin(keyVersions, sql`${keyVersions.digest} = asked.value`)
        .innerJoin(bouncers, eq(bouncers.id, keyVersions.bouncerId)),
    ]),
  );
  return { mark: marks[0] ?? noMark, changes, found };
}

export function selectEpoch(db: DrizzleD1Database) {
  return db.select({ epoch: keyEpoch.epoch }).from(keyEpoch);
}

export function selectChanges(db: DrizzleD1Database, sinceEpoch: number) {
  return db
    .select({ epoch: keyChanges.epoch, bouncerId: sql<number>`bouncer_id`.as('bouncerId') })
    .from(keyChanges)
    .where(gt(keyChanges.epoch, sinceEpoch))
    .limit(mostChanges);
}

/**
 * The bouncers that a mutation may have changed, and others after it: each moves the epoch once at most, so as many moves
 * as there are rows of the audit log from its own on.
 */
export function selectChanged(db: DrizzleD1Database, seq: SQL) {
  const later = sql`epoch >= (SELECT epoch FROM key_epoch) - (${newestSeq} - ${seq})`;
  return db
    .select({ bouncerId: sql<number>`bouncer_id`.as('bouncerId') })
    .from(keyChanges)
    .where(later);
}

/** The bouncers whose keys have changed; all where not every move of the epoch says whom it was about. */
export function changedSince(
  sinceEpoch: number,
  epoch: number,
  changes: readonly KeyChange[],
): ReadonlySet<number> | 'all' {
  const since = changes.filter((change) => change.epoch > sinceEpoch);
  const moves = new Set(since.map((change) => change.epoch));
  if (moves.size !== epoch - sinceEpoch || changes.length >= mostChanges) return 'all';
  return new Set(since.map(({ bouncerId }) => bouncerId));
}

export async function readMark(d1: D1Database): Promise<StoreMark> {
  const [row] = await askD1(d1, selectMark, answerMs);
  return row ?? noMark;
}

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

/** SQL for the values of a list, of any length. */
export function listed(values: readonly (number | string)[]): SQL {
  return sql`(SELECT value FROM json_each(${JSON.stringify(values)}))`;
}

/** Whether something holds, as a row of its own: what is decided on is read in one batch. */
export function selectHolds(db: DrizzleD1Database, condition: SQL) {
  return db.select({ holds: sql<0 | 1>`${condition}` }).from(keyEpoch);
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
 * The statements that move the epoch, so that every isolate looks up the keys of these bouncers anew within 5 s. For as
 * long as the bouncers are there: before they are deleted.
 */
export function changedStatements(db: DrizzleD1Database, bouncerIds: SQL) {
  const changed = sql`bouncers WHERE id IN ${bouncerIds}`;
  return moveStatements(db, sql`id FROM ${changed}`, sql`EXISTS (SELECT 1 FROM ${changed})`);
}

/** The same of many, which are there; without a look at each. */
export function manyChangedStatements(db: DrizzleD1Database, bouncerIds: readonly number[]) {
  return moveStatements(db, sql`value FROM json_each(${JSON.stringify(bouncerIds)})`, undefined);
}

function moveStatements(db: DrizzleD1Database, changed: SQL, isAny: SQL | undefined) {
  const now = sql`(SELECT epoch FROM key_epoch)`;
  return [
    db
      .update(keyEpoch)
      .set({ epoch: sql`epoch + 1` })
      .where(isAny),
    db.run(sql`INSERT INTO key_changes (epoch, bouncer_id) SELECT ${now}, ${changed}`),
    db.delete(keyChanges).where(sql`epoch <= ${now} - ${mostMoves}`),
  ];
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
        ? [db.insert(endsOutbox).values({ digest: version.digest, endsMs: to.deadlineMs })]
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
    db.insert(endsOutbox).values({ digest: version.digest, endsMs: nowMs }),
    db.delete(keyVersions).where(eq(keyVersions.id, version.id)),
  ];
}
