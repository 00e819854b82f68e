// The statements that compare D1 with what the feed's object remembers, and that put a restored backup right.

import { inArray, lte, max, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import type { End } from './revocations.sql.ts';
import { askD1 } from '../store/ask.ts';
import { hasRow, type AuditHead } from '../store/audit.sql.ts';
import { selectChanges, selectMark, type KeyChange, type StoreMark } from '../store/epoch.sql.ts';
import {
  bouncers,
  endsOutbox,
  keyEpoch,
  keyVersions,
  operatorTokens,
  revokedDigests,
} from '../store/schema.ts';

export const reconcileAction = 'restore.reconcile';

/** Ends that are told at once. */
export const outboxPage = 2000;

/** An end that may not have been told yet. */
export type Untold = typeof endsOutbox.$inferSelect;

export interface StoreState {
  readonly mark: StoreMark;
  /** Whether the audit log has the head: whether D1 is what it was, or has come from it. */
  readonly hasHead: boolean;
  /** What has changed since the epoch that was asked about. */
  readonly changes: readonly KeyChange[];
  /** The first ends that the object has not been told. */
  readonly untold: readonly Untold[];
  readonly highestBouncerId: number;
}

export function selectUntold(db: DrizzleD1Database) {
  return db
    .select({
      id: endsOutbox.id,
      digest: endsOutbox.digest,
      endsMs: sql<number>`ends_ms`.as('endsMs'),
    })
    .from(endsOutbox)
    .orderBy(endsOutbox.id)
    .limit(outboxPage);
}

/** All of it as of one moment. */
export async function readStore(d1: D1Database, head: AuditHead, sinceEpoch: number): Promise<StoreState> {
  const [marks, found, changes, untold, highest] = await askD1(d1, (db) =>
    db.batch([
      selectMark(db),
      db.select({ id: keyEpoch.id }).from(keyEpoch).where(hasRow(head)),
      selectChanges(db, sinceEpoch),
      selectUntold(db),
      db.select({ id: max(bouncers.id) }).from(bouncers),
    ]),
  );
  const [mark] = marks;
  if (!mark) throw new Error('key_epoch has no row');
  return {
    mark,
    hasHead: head.seq === 0 || found.length > 0,
    changes,
    untold,
    highestBouncerId: highest[0]?.id ?? 0,
  };
}

/** Forgets what the object was told. By digest too: a restored backup gives the same ids to other ends. */
export async function forgetTold(d1: D1Database, told: readonly Untold[]): Promise<void> {
  const ids = JSON.stringify(told.map(({ id }) => id));
  const digests = JSON.stringify(told.map(({ digest }) => digest));
  const those = sql`id IN (SELECT value FROM json_each(${ids}))
    AND digest IN (SELECT value FROM json_each(${digests}))`;
  await askD1(d1, (db) => db.delete(endsOutbox).where(those));
}

/** The same for all up to an id, in a batch that a restored D1 refuses. */
export function forgetUpToStatement(db: DrizzleD1Database, id: number) {
  return db.delete(endsOutbox).where(lte(endsOutbox.id, id));
}

/** Puts everything that ever ended into the outbox: for an object that remembers nothing. */
export async function tellAllAgain(d1: D1Database): Promise<void> {
  const ended = [
    sql`SELECT NULL, digest, revoked_ms FROM revoked_digests`,
    sql`SELECT NULL, digest, revoked_ms FROM operator_tokens WHERE revoked_ms IS NOT NULL`,
    sql`SELECT NULL, digest, deadline_ms FROM key_versions WHERE state = 'previous' AND deadline_ms IS NOT NULL`,
  ] as const;
  await askD1(d1, (db) => {
    const [first, ...rest] = ended;
    const insert = (rows: SQL) => db.insert(endsOutbox).select(rows);
    return db.batch([insert(first), ...rest.map(insert)]);
  });
}

/** How a reconciliation names what was lost: there is one for each lost head. */
export function lostTarget(lost: AuditHead): string {
  return `row ${lost.seq} ${lost.hash}`;
}

/** SQL for "what this head was lost with has not been put right yet". */
export function notReconciled(lost: AuditHead): SQL {
  return sql`NOT EXISTS (SELECT 1 FROM audit WHERE action = ${reconcileAction} AND target = ${lostTarget(lost)})`;
}

export async function isReconciled(d1: D1Database, lost: AuditHead): Promise<boolean> {
  const found = sql`SELECT 1 FROM audit
    WHERE action = ${reconcileAction} AND target = ${lostTarget(lost)} LIMIT 1`;
  const rows = await askD1(d1, (db) => db.all(found));
  return rows.length > 0;
}

/** Whether nothing in a restored D1 is as young as a moment, and something in it opens: before that nobody knows what ended. */
export async function isForgotten(d1: D1Database, beforeMs: number): Promise<boolean> {
  const found = sql`SELECT 1 FROM key_epoch
    WHERE MAX(COALESCE((SELECT at_ms FROM audit ORDER BY seq DESC LIMIT 1), 0),
        COALESCE((SELECT MAX(created_ms) FROM key_versions), 0)) < ${beforeMs}
      AND (EXISTS (SELECT 1 FROM key_versions)
        OR EXISTS (SELECT 1 FROM operator_tokens WHERE revoked_ms IS NULL)
        OR EXISTS (SELECT 1 FROM enrolments WHERE revoked_ms IS NULL))`;
  const rows = await askD1(d1, (db) => db.all(found));
  return rows.length > 0;
}

/**
 * Digests that were taken away. By itself that changes nothing but that they can't be registered; what they open is
 * taken away by `reconcileStatements`, whatever their number in a few statements.
 */
export async function noteRevoked(d1: D1Database, ended: readonly End[]): Promise<void> {
  const rows = JSON.stringify(ended.map(({ digest, endsMs }) => [digest, endsMs]));
  const each = sql`SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(${rows})
    WHERE true`;
  await askD1(d1, (db) => db.insert(revokedDigests).select(each).onConflictDoNothing());
}

const isRevoked = sql`digest IN (SELECT digest FROM revoked_digests)`;

/** What the statements below will take away. */
export async function countRevived(d1: D1Database): Promise<{ keys: number; tokens: number }> {
  const count = sql`SELECT
    (SELECT COUNT(*) FROM key_versions WHERE ${isRevoked}) AS keys,
    (SELECT COUNT(*) FROM operator_tokens WHERE revoked_ms IS NULL AND ${isRevoked}) AS tokens`;
  const [row] = await askD1(d1, (db) => db.all<{ keys: number; tokens: number }>(count));
  return row ?? { keys: 0, tokens: 0 };
}

/**
 * Takes away again what had been taken away, and gives versions in their grace the end that they had. Epoch and
 * revisions go to the clock's time, which no counting reaches: neither an isolate's memory nor an ETag from before
 * the restore meets its number again with another content.
 */
export function reconcileStatements(db: DrizzleD1Database, ending: readonly End[], nowMs: number) {
  const ends = JSON.stringify(Object.fromEntries(ending.map(({ digest, endsMs }) => [digest, endsMs])));
  const endMs = sql`json_extract(${ends}, '$."' || digest || '"')`;
  return [
    db
      .update(keyVersions)
      .set({
        state: 'previous',
        deadlineMs: sql`MIN(COALESCE(deadline_ms, ${endMs}), ${endMs})`,
      })
      .where(inArray(keyVersions.digest, sql`(SELECT key FROM json_each(${ends}))`)),
    db.delete(keyVersions).where(isRevoked),
    db
      .update(operatorTokens)
      .set({
        revokedMs: sql`(SELECT revoked_ms FROM revoked_digests r WHERE r.digest = operator_tokens.digest)`,
      })
      .where(sql`revoked_ms IS NULL AND ${isRevoked}`),
    db.update(bouncers).set({ revision: sql`MAX(revision + 1, ${nowMs})` }),
    db.update(keyEpoch).set({
      epoch: sql`MAX(epoch + 1, ${nowMs})`,
      reconciledMs: sql`MAX(reconciled_ms + 1, ${nowMs})`,
    }),
  ];
}
