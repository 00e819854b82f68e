// The named queries on operators' tokens.

import { and, asc, eq, gt, inArray, isNull, sql, type SQL } from 'drizzle-orm';
import { drizzle, type DrizzleD1Database } from 'drizzle-orm/d1';
import { listed } from './keys.ts';
import { endsOutbox, operatorTokens } from './schema.ts';

export type OperatorToken = typeof operatorTokens.$inferSelect;

export function findByDigests(d1: D1Database, digests: readonly string[]): Promise<OperatorToken[]> {
  return drizzle(d1)
    .select()
    .from(operatorTokens)
    .where(inArray(operatorTokens.digest, listed(digests)));
}

export function selectByName(db: DrizzleD1Database, name: string) {
  return db.select().from(operatorTokens).where(eq(operatorTokens.name, name));
}

/** A page by id. */
export function listTokens(d1: D1Database, afterId: number, limit: number): Promise<OperatorToken[]> {
  const db = drizzle(d1);
  const rows = db.select().from(operatorTokens).where(gt(operatorTokens.id, afterId));
  return rows.orderBy(asc(operatorTokens.id)).limit(limit);
}

export async function anyLiveToken(d1: D1Database, nowMs: number): Promise<boolean> {
  const live = and(isNull(operatorTokens.revokedMs), gt(operatorTokens.expiresMs, nowMs));
  const rows = await drizzle(d1).select({ id: operatorTokens.id }).from(operatorTokens).where(live).limit(1);
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
    db.insert(endsOutbox).values({ digest: token.digest, endsMs: nowMs }),
  ];
}
