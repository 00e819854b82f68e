// How D1 is asked: nobody waits for it longer than a limit, since silence is an outage too. Only the batch of a mutation
// has no limit here (writer/writer.ts): its sender stops waiting by itself, and the batch goes on.

import { drizzle, type DrizzleD1Database } from 'drizzle-orm/d1';
import { answerWithin } from '../runtime/wait.ts';

/** The limit of a key check, and of a status. */
export const answerMs = 1_000;
/** The limit of other questions: a page of the audit log has 5,000 rows. */
const pageMs = 10_000;

/** The limit of a piece of work in the feed's object, which has many questions. What comes after it waits as well. */
export const workMs = 30_000;

/** D1 failed, or is silent; `cause` is its error. A route that does not handle it answers 503 (app.ts). */
export class StoreError extends Error {}

/** Runs a query, or a batch of them. Throws `StoreError`. */
export async function askD1<Answer>(
  d1: D1Database,
  query: (db: DrizzleD1Database) => PromiseLike<Answer>,
  limitMs = pageMs,
): Promise<Answer> {
  try {
    return await answerWithin(Promise.resolve(query(drizzle(d1))), limitMs);
  } catch (cause) {
    throw new StoreError('the key store is out of reach', { cause });
  }
}

/** For statements that are run elsewhere: those of a commit. */
export function statementBuilder(d1: D1Database): DrizzleD1Database {
  return drizzle(d1);
}
