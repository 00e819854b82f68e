// Whether this object is the feed that was made first. Another one would know no key that was taken away, and no place
// of any bouncer: it must not serve. Its own storage says so, and for an object that has none D1, which all share.

import { fixLocation } from '../store/location.sql.ts';
import type { FeedLocation } from '../config/location.ts';
import { unwritable } from '../store/unwritable.ts';

/**
 * Throws when the feed was made elsewhere, or when a new object can't be told, since D1 does not answer. `isNew`: nothing
 * ever came to this object. One that is not new and says nothing was made before there was a choice.
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
        'would know no key that was taken away',
    );
  }
  if (kept) return;
  try {
    sql.exec(`INSERT INTO location VALUES (0, ?)`, location);
  } catch (error) {
    // The next wake finds it again.
    console.error(unwritable('the feed’s storage', error).message);
  }
}
