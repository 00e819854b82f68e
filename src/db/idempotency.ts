// Answers to repeated mutations. Written in the mutation's own batch, so a mutation that happened is never done
// again, whatever became of its answer.

import { and, eq, lt } from 'drizzle-orm';
import { drizzle, type DrizzleD1Database } from 'drizzle-orm/d1';
import { idempotentAnswers } from './schema.ts';

export type IdempotentAnswer = typeof idempotentAnswers.$inferSelect;

export async function findAnswer(
  d1: D1Database,
  actor: string,
  key: string,
  nowMs: number,
): Promise<IdempotentAnswer | null> {
  const db = drizzle(d1);
  const [row] = await db
    .select()
    .from(idempotentAnswers)
    .where(and(eq(idempotentAnswers.actor, actor), eq(idempotentAnswers.key, key)));
  return row && row.expiresMs > nowMs ? row : null;
}

/** The statements that keep an answer, and forget those whose day is over. */
export function keepStatements(db: DrizzleD1Database, answer: IdempotentAnswer, nowMs: number) {
  return [
    db.delete(idempotentAnswers).where(lt(idempotentAnswers.expiresMs, nowMs)),
    db.insert(idempotentAnswers).values(answer),
  ];
}
