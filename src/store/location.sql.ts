// The named queries on where the feed was made. An object in another jurisdiction shares nothing with the first but D1.

import { askD1 } from './ask.ts';
import { feedLocation } from './schema.ts';

/** Where the feed was made first: here, if it was nowhere. */
export async function fixLocation(d1: D1Database, location: string, nowMs: number): Promise<string> {
  const [, [fixed]] = await askD1(d1, (db) =>
    db.batch([
      db.insert(feedLocation).values({ id: 0, location, fixedMs: nowMs }).onConflictDoNothing(),
      db.select().from(feedLocation),
    ]),
  );
  return fixed?.location ?? location;
}

/** Whether a request has ever reached the feed. */
export async function isFeedMade(d1: D1Database): Promise<boolean> {
  const rows = await askD1(d1, (db) => db.select().from(feedLocation));
  return rows.length > 0;
}
