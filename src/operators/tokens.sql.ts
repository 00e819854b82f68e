// The named queries on operators' tokens.

import { and, asc, eq, gt, inArray, isNull, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { answerMs, askD1 } from '../store/ask.ts';
import { rowJson, listed } from '../store/facts.ts';
import { revocationOutbox, operatorTokens } from '../store/schema.ts';

export type OperatorToken = typeof operatorTokens.$inferSelect;

export function findByDigests(d1: D1Database, digests: readonly string[]): Promise<OperatorToken[]> {
  const some = inArray(operatorTokens.digest, listed(digests));
  return askD1(d1, (db) => db.select().from(operatorTokens).where(some));
}

export function selectByName(db: DrizzleD1Database, name: string) {
  return db.select().from(operatorTokens).where(eq(operatorTokens.name, name));
}

/** SQL for a token, as JSON. */
export function tokenJson(name: string): SQL {
  return sql`(SELECT ${rowJson(operatorTokens)} FROM operator_tokens WHERE name = ${name})`;
}

/** A page by id. */
export function listTokens(d1: D1Database, afterId: number, limit: number): Promise<OperatorToken[]> {
  const { id } = operatorTokens;
  return askD1(d1, (db) =>
    db.select().from(operatorTokens).where(gt(id, afterId)).orderBy(asc(id)).limit(limit),
  );
}

export async function anyLiveToken(d1: D1Database, nowMs: number): Promise<boolean> {
  const live = and(isNull(operatorTokens.revokedMs), gt(operatorTokens.expiresMs, nowMs));
  const { id } = operatorTokens;
  const rows = await askD1(d1, (db) => db.select({ id }).from(operatorTokens).where(live).limit(1), answerMs);
  return rows.length > 0;
}

/** SQL for "nobody has revoked it since". */
export function notRevoked(token: OperatorToken): SQL {
  return sql`EXISTS (SELECT 1 FROM operator_tokens WHERE id = ${token.id} AND revoked_ms IS NULL)`;
}

export function insertStatements(db: DrizzleD1Database, token: Omit<OperatorToken, 'id'>) {
  return [db.insert(operatorTokens).values(token)];
}

export function revokeStatements(db: DrizzleD1Database, token: OperatorToken, nowMs: number) {
  return [
    db.update(operatorTokens).set({ revokedMs: nowMs }).where(eq(operatorTokens.id, token.id)),
    db.insert(revocationOutbox).values({ digest: token.digest, effectiveMs: nowMs }),
  ];
}
