// Answers to repeated mutations. An answer is written in the mutation's own batch, so a mutation is never done twice,
// even where its answer was lost on the way.

import { lt, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { idempotentAnswers } from './schema.ts';

export type IdempotentAnswer = typeof idempotentAnswers.$inferSelect;

export function selectAnswer(db: DrizzleD1Database, actor: string, key: string, nowMs: number) {
  return db
    .select()
    .from(idempotentAnswers)
    .where(sql`actor = ${actor} AND key = ${key} AND expires_ms > ${nowMs}`);
}

/**
 * The statements that keep an answer, and delete those that have expired. `bodyJson`: SQL for its text, which the last
 * statement returns.
 */
export function keepStatements(
  db: DrizzleD1Database,
  answer: Omit<IdempotentAnswer, 'bodyJson'>,
  bodyJson: SQL,
  nowMs: number,
) {
  return [
    db.delete(idempotentAnswers).where(lt(idempotentAnswers.expiresMs, nowMs)),
    db
      .insert(idempotentAnswers)
      .values({ ...answer, bodyJson })
      .returning({ bodyJson: idempotentAnswers.bodyJson }),
  ];
}
