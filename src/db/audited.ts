// Mutations of D1, each in one batch with its audit row. The batch is all or nothing, so an audit row that can't be
// written takes its mutation with it. Each row carries the hash of the one before; two mutations at once want
// the same place in the chain, one of them fails on the key of `audit` and tries the next.

import { desc, sql, type SQL } from 'drizzle-orm';
import type { BatchItem } from 'drizzle-orm/batch';
import { drizzle, type DrizzleD1Database } from 'drizzle-orm/d1';
import { sha256Hex } from '../secret.ts';
import { audit } from './schema.ts';

export interface AuditEntry {
  readonly actor: string;
  /** `bouncer.rotate`: what was done, in two words. */
  readonly action: string;
  readonly target: string;
  /** Names, numbers, times. Never a secret, and no more than 8 hex of a digest. */
  readonly detail: Readonly<Record<string, unknown>>;
}

export type AuditRow = typeof audit.$inferSelect;

export type Commit<T> =
  | { readonly kind: 'done'; readonly results: T }
  /** What was decided on has changed meanwhile; nothing was written. */
  | { readonly kind: 'stale' }
  /** A unique column has this value already (`bouncers.name`); nothing was written. */
  | { readonly kind: 'clash'; readonly column: string };

type Statements = readonly BatchItem<'sqlite'>[];

/** What the first row's `previousHash` is. */
export const chainStart = '0'.repeat(64);

const mostTries = 100;

/**
 * Writes statements and their audit row. `unchanged` is SQL that must hold before any of them: the revision
 * that the mutation was decided on.
 */
export async function commitAudited(
  d1: D1Database,
  entry: AuditEntry,
  unchanged: SQL,
  statements: (db: DrizzleD1Database) => Statements,
  nowMs: number,
): Promise<Commit<unknown[]>> {
  const db = drizzle(d1);
  for (let attempt = 0; attempt < mostTries; attempt++) {
    const [head] = await db.select().from(audit).orderBy(desc(audit.seq)).limit(1);
    const row = await nextRow(head, entry, nowMs);
    // A time that is NULL violates the column: the one way in which a batch can be made to depend on what is.
    const guarded = sql<number>`CASE WHEN ${unchanged} THEN ${nowMs} END`;
    try {
      const results = await db.batch([db.insert(audit).values({ ...row, atMs: guarded }), ...statements(db)]);
      return { kind: 'done', results: results.slice(1) };
    } catch (error) {
      const broken = constraintOf(error);
      if (broken === undefined) throw error;
      if (broken === 'audit.at_ms') return { kind: 'stale' };
      if (broken !== 'audit.seq') return { kind: 'clash', column: broken };
    }
  }
  throw new Error(`the audit chain moved ${mostTries} times under one mutation`);
}

/** The row after `head`. */
export async function nextRow(
  head: AuditRow | undefined,
  entry: AuditEntry,
  nowMs: number,
): Promise<AuditRow> {
  const row = {
    seq: (head?.seq ?? 0) + 1,
    atMs: nowMs,
    actor: entry.actor,
    action: entry.action,
    target: entry.target,
    detailJson: JSON.stringify(entry.detail),
    previousHash: head?.hash ?? chainStart,
  };
  return { ...row, hash: await hashOf(row) };
}

/** SHA-256 over the hash before and the row, in lower-case hex. */
export async function hashOf(row: Omit<AuditRow, 'hash'>): Promise<string> {
  const { previousHash, seq, atMs, actor, action, target, detailJson } = row;
  return sha256Hex(JSON.stringify([previousHash, seq, atMs, actor, action, target, detailJson]));
}

/** The column of the constraint that a statement broke, as SQLite names it; undefined for any other error. */
function constraintOf(error: unknown): string | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const column = /(?:UNIQUE|NOT NULL) constraint failed: ([\w.]+)/.exec(cause.message)?.[1];
    if (column !== undefined) return column;
  }
  return undefined;
}
