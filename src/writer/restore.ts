// Compares D1 with what the feed's object has recorded, and puts a restored backup of D1 right: what was revoked since the
// backup was made is revoked again. A mistake here makes a revoked key valid again.

import { inArray, lte, max, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { askD1, workMs } from '../store/ask.ts';
import {
  appendStatement,
  hasRow,
  lastSealed,
  readStart,
  textOf,
  type AuditHead,
} from '../store/audit.sql.ts';
import { selectChanges, selectMark, type StoreMark } from '../store/epoch.sql.ts';
import { selectHolds } from '../store/facts.ts';
import {
  bouncers,
  keyEpoch,
  keyVersions,
  operatorTokens,
  revocationOutbox,
  revokedDigests,
} from '../store/schema.ts';
import { readRevocations, revocationsKeptMs, type Extent, type Revocation } from './revocations.sql.ts';

const reconcileAction = 'restore.reconcile';

/** Revocations that are read from the outbox at once, and from the object's storage. */
export const pageRows = 2000;

/** A revocation in the outbox: the object may not have recorded it yet. */
export type PendingRevocation = typeof revocationOutbox.$inferSelect;

export function selectPending(db: DrizzleD1Database) {
  const { id, digest } = revocationOutbox;
  return db
    .select({ id, digest, effectiveMs: sql<number>`ends_ms`.as('effectiveMs') })
    .from(revocationOutbox)
    .orderBy(id)
    .limit(pageRows);
}

/** What is compared, all as of one moment. `hasHead`: the audit log has the newest row that the object has seen. */
export async function readStore(d1: D1Database, head: AuditHead, sinceEpoch: number) {
  const [[mark], found, changes, pending, [highest]] = await askD1(d1, (db) =>
    db.batch([
      selectMark(db),
      db.select({ id: keyEpoch.id }).from(keyEpoch).where(hasRow(head)),
      selectChanges(db, sinceEpoch),
      selectPending(db),
      db.select({ id: max(bouncers.id) }).from(bouncers),
    ]),
  );
  if (!mark) throw new Error('key_epoch has no row');
  const hasHead = head.seq === 0 || found.length > 0;
  return { mark, hasHead, changes, pending, highestBouncerId: highest?.id ?? 0 };
}

/** The audit log as D1 has it. */
export async function readExtent(d1: D1Database): Promise<Extent> {
  const [start, sealed] = await Promise.all([readStart(d1), lastSealed(d1)]);
  return { start, sealed };
}

/** Deletes what the object has recorded. By digest too: after a restore the same id may be another revocation's. */
export async function deleteReported(d1: D1Database, reported: readonly PendingRevocation[]): Promise<void> {
  const ids = JSON.stringify(reported.map(({ id }) => id));
  const digests = JSON.stringify(reported.map(({ digest }) => digest));
  const those = sql`id IN (SELECT value FROM json_each(${ids}))
    AND digest IN (SELECT value FROM json_each(${digests}))`;
  await askD1(d1, (db) => db.delete(revocationOutbox).where(those));
}

/** The same up to an id, for a batch that a restored D1 refuses. */
export function deleteReportedStatement(db: DrizzleD1Database, upToId: number) {
  return db.delete(revocationOutbox).where(lte(revocationOutbox.id, upToId));
}

/** Puts all revocations into the outbox again: for an object that has lost its storage. */
export async function republish(d1: D1Database): Promise<void> {
  await askD1(d1, (db) => {
    const insert = (rows: SQL) => db.insert(revocationOutbox).select(rows);
    return db.batch([
      insert(sql`SELECT NULL, digest, revoked_ms FROM revoked_digests`),
      insert(sql`SELECT NULL, digest, revoked_ms FROM operator_tokens WHERE revoked_ms IS NOT NULL`),
      insert(sql`SELECT NULL, digest, deadline_ms FROM key_versions
        WHERE state = 'previous' AND deadline_ms IS NOT NULL`),
    ]);
  });
}

/** How the row of a reconciliation names what was lost: there is one for each lost head. */
function lostTarget(lost: AuditHead): string {
  return `row ${lost.seq} ${lost.hash}`;
}

/** SQL for "the loss of this head has not been put right yet". */
function notReconciled(lost: AuditHead): SQL {
  return sql`NOT EXISTS (SELECT 1 FROM audit WHERE action = ${reconcileAction} AND target = ${lostTarget(lost)})`;
}

export async function isReconciled(d1: D1Database, lost: AuditHead): Promise<boolean> {
  return !(await holds(d1, notReconciled(lost)));
}

async function holds(d1: D1Database, condition: SQL): Promise<boolean> {
  const [row] = await askD1(d1, (db) => selectHolds(db, condition));
  return row?.holds === 1;
}

/** Revokes in a restored D1 what the object has recorded. Repeated after a crash it does no more. */
export async function reconcile(
  storage: SqlStorage,
  d1: D1Database,
  mark: StoreMark,
  lost: AuditHead,
): Promise<void> {
  const nowMs = Date.now();
  if (await isOlderThan(d1, nowMs - revocationsKeptMs)) {
    throw new Error(
      `D1 was restored from a backup that is more than ${revocationsKeptMs / 86_400_000} days old: which of its keys ` +
        'were revoked since is not known any more. Restore a newer backup, or delete all keys from this one ' +
        '(docs/backup.md)',
    );
  }
  const ahead: Revocation[] = [];
  for (let after = 0; ;) {
    const page = readRevocations(storage, after, pageRows);
    await noteRevoked(
      d1,
      page.filter(({ effectiveMs }) => effectiveMs <= nowMs),
    );
    ahead.push(...page.filter(({ effectiveMs }) => effectiveMs > nowMs));
    const last = page.at(-1);
    if (!last || page.length < pageRows) break;
    after = last.rowId;
  }
  const revived = await countRevived(d1);
  console.warn(`D1 was restored: its audit log ends at row ${mark.seq}, and had come to row ${lost.seq}`);
  const detail = { log_ended_at: mark.seq, keys_revoked: revived.keys, tokens_revoked: revived.tokens };
  const entry = { actor: 'lapidary', action: reconcileAction, target: lostTarget(lost), detail };
  const text = await textOf(entry, nowMs);
  await askD1(
    d1,
    (d) => d.batch([appendStatement(d, text, notReconciled(lost)), ...reconcileStatements(d, ahead, nowMs)]),
    workMs,
  );
}

/** Whether a restored D1 has nothing as young as a moment, and yet has keys or tokens. */
function isOlderThan(d1: D1Database, beforeMs: number): Promise<boolean> {
  return holds(
    d1,
    sql`MAX(COALESCE((SELECT at_ms FROM audit ORDER BY seq DESC LIMIT 1), 0),
        COALESCE((SELECT MAX(created_ms) FROM key_versions), 0)) < ${beforeMs}
      AND (EXISTS (SELECT 1 FROM key_versions)
        OR EXISTS (SELECT 1 FROM operator_tokens WHERE revoked_ms IS NULL)
        OR EXISTS (SELECT 1 FROM enrolments WHERE revoked_ms IS NULL))`,
  );
}

/**
 * Notes revoked digests, which can not be registered from then on. `reconcileStatements` revokes what they still open: in
 * a few statements, however many they are.
 */
async function noteRevoked(d1: D1Database, revoked: readonly Revocation[]): Promise<void> {
  const rows = JSON.stringify(revoked.map(({ digest, effectiveMs }) => [digest, effectiveMs]));
  const each = sql`SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(${rows})
    WHERE true`;
  await askD1(d1, (db) => db.insert(revokedDigests).select(each).onConflictDoNothing());
}

const isRevoked = sql`digest IN (SELECT digest FROM revoked_digests)`;

/** How many revoked keys and tokens the backup has brought back. */
function countRevived(d1: D1Database): Promise<{ keys: number; tokens: number }> {
  const count = sql`SELECT
    (SELECT COUNT(*) FROM key_versions WHERE ${isRevoked}) AS keys,
    (SELECT COUNT(*) FROM operator_tokens WHERE revoked_ms IS NULL AND ${isRevoked}) AS tokens`;
  return askD1(d1, (db) => db.get(count));
}

/**
 * Revokes again what was revoked, and gives versions in their grace the deadline that they had (`ahead`). Epoch and
 * revisions go to the clock's time, which no counting reaches. So no number from before the restore, in an isolate's
 * memory or in an ETag, comes again with another content.
 */
function reconcileStatements(db: DrizzleD1Database, ahead: readonly Revocation[], nowMs: number) {
  const deadlines = JSON.stringify(
    Object.fromEntries(ahead.map(({ digest, effectiveMs }) => [digest, effectiveMs])),
  );
  const deadline = sql`json_extract(${deadlines}, '$."' || digest || '"')`;
  const revokedMs = sql`(SELECT revoked_ms FROM revoked_digests r WHERE r.digest = operator_tokens.digest)`;
  return [
    db
      .update(keyVersions)
      .set({ state: 'previous', deadlineMs: sql`MIN(COALESCE(deadline_ms, ${deadline}), ${deadline})` })
      .where(inArray(keyVersions.digest, sql`(SELECT key FROM json_each(${deadlines}))`)),
    db.delete(keyVersions).where(isRevoked),
    db
      .update(operatorTokens)
      .set({ revokedMs })
      .where(sql`revoked_ms IS NULL AND ${isRevoked}`),
    db.update(bouncers).set({ revision: sql`MAX(revision + 1, ${nowMs})` }),
    db.update(keyEpoch).set({
      epoch: sql`MAX(epoch + 1, ${nowMs})`,
      reconciledMs: sql`MAX(reconciled_ms + 1, ${nowMs})`,
    }),
  ];
}
