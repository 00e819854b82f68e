// The named queries on where the feed was made. An object in another jurisdiction shares nothing with the first but D1.

import { drizzle } from 'drizzle-orm/d1';
import { answerWithin } from '../wait.ts';
import { feedLocation } from './schema.ts';

/** A D1 that nobody has asked for long takes a moment. */
const patienceMs = 10_000;

/** Where the feed was made first: here, if it was nowhere. */
export async function fixLocation(d1: D1Database, location: string, nowMs: number): Promise<string> {
  const db = drizzle(d1);
  const asked = db.batch([
    db.insert(feedLocation).values({ id: 0, location, fixedMs: nowMs }).onConflictDoNothing(),
    db.select().from(feedLocation),
  ]);
  const [, [fixed]] = await answerWithin(asked, patienceMs);
  return fixed?.location ?? location;
}

/** Whether a request has ever reached the feed. */
export async function isFeedMade(d1: D1Database): Promise<boolean> {
  const rows = Promise.resolve(drizzle(d1).select().from(feedLocation));
  return (await answerWithin(rows, patienceMs)).length > 0;
}
