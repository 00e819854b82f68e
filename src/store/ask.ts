// The one way in which D1 is asked: nobody waits for it longer than a limit, since silence is an outage, too. A commit's
// own batch alone goes past it (writer/writer.ts): who sent it stops waiting by himself, and it goes on.

import { drizzle, type DrizzleD1Database } from 'drizzle-orm/d1';
import { answerWithin } from '../runtime/wait.ts';

/** What a key check and a status wait for. */
export const answerMs = 1_000;
/** What everything else waits for: a page of the audit log has 5,000 rows. */
const pageMs = 10_000;

/** What the feed's object waits for a piece of its work, of many questions: all that come after it wait, too. */
export const workMs = 30_000;

/** D1 failed, or is silent; its `cause` is what D1 said. Where nobody says it better it is a 503 (app.ts). */
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
