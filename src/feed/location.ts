// Whether this object is the feed that was made first. Another object would know no revoked key and no bouncer's cursor,
// so it must not serve. The object's own storage tells, and for a new object D1, which all objects share.

import { askD1 } from '../store/ask.ts';
import { feedLocation } from '../store/schema.ts';
import type { FeedLocation } from '../config/location.ts';
import { unwritable } from '../store/unwritable.ts';

/**
 * Throws if the feed was made in another location, or if D1 does not answer for a new object. `isNew`: the object has had
 * no change yet. An old object without a stored location was made before there was a choice.
 */
export async function settleLocation(
  sql: SqlStorage,
  d1: D1Database,
  wanted: FeedLocation,
  isNew: boolean,
): Promise<void> {
  const [kept] = sql.exec<{ location: string }>(`SELECT location FROM location`).toArray();
  const location = kept?.location ?? (isNew ? await fixLocation(d1, wanted, Date.now()) : '');
  if (location !== wanted) {
    const first = location === '' ? 'empty' : location;
    throw new Error(
      `FEED_LOCATION must be ${first}, as it was when the feed was made: an object does not move, and a new one ` +
        'would know no revoked key',
    );
  }
  if (kept) return;
  try {
    sql.exec(`INSERT INTO location VALUES (0, ?)`, location);
  } catch (error) {
    // The next start tries again.
    console.error(unwritable('the feed’s storage', error).message);
  }
}

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
