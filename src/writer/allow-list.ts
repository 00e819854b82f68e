// The feed's copy of the allow-list. A change of it comes with the batch that wrote it, and is applied before it is
// acknowledged. Where that fails, or D1 was restored, the whole list is read again. A mistake here goes on banning an address
// that an operator exempted.

import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { shared } from '../runtime/shared.ts';
import { askD1, workMs } from '../store/ask.ts';
import { selectAllowed } from '../store/allow-list.sql.ts';
import { selectMark } from '../store/epoch.sql.ts';
import { causeOf } from '../http/failure.ts';
import type { AllowedEntry } from '../mirror/allowed.ts';

export type AllowListCopy = ReturnType<typeof createAllowListCopy>;

type AllowedRow = ReturnType<typeof selectAllowed>['_']['result'][number];

/** `apply` has the feed go by some entries, and throws where it can't. */
export function createAllowListCopy(
  d1: D1Database,
  apply: (entries: readonly AllowedEntry[]) => Promise<void>,
) {
  /** After a start it is not known what the object before it had missed. */
  let isLost = true;
  /** The row of the audit log that the newest copy has. */
  let newestSeq = -1;
  let newest: readonly AllowedEntry[] = [];
  /** The lists of bouncers of the newest copy. Entries share them: that two are the same is seen at once. */
  let lists = new Map<string, readonly string[]>();
  const applying = shared(() => apply(newest));
  let losses = 0;
  let isReading = false;

  const lose = (): void => {
    isLost = true;
    newestSeq = -1;
    losses++;
  };

  const entriesOf = (rows: readonly AllowedRow[]): AllowedEntry[] => {
    const before = lists;
    lists = new Map();
    return rows.map(({ id, value, expiresMs, bouncersJson: json }) => {
      if (json === null) return { id, value, expiresMs };
      const bouncers = lists.get(json) ?? before.get(json) ?? (JSON.parse(json) as string[]);
      lists.set(json, bouncers);
      return { id, value, expiresMs, bouncers };
    });
  };

  const learn = async (rows: readonly AllowedRow[], seq: number): Promise<void> => {
    // Of two answers of D1 the later one counts.
    if (seq >= newestSeq) {
      newestSeq = seq;
      newest = entriesOf(rows);
    }
    try {
      await applying.next();
    } catch (error) {
      lose();
      // Not the error itself: it would say that nothing was written.
      throw new Error(`the allow-list was written, and not applied: ${causeOf(error).message}`);
    }
  };

  /** Throws where D1 does not answer. */
  const read = async (limitMs?: number): Promise<void> => {
    const before = losses;
    const ask = (db: DrizzleD1Database) => db.batch([selectMark(db), selectAllowed(db)]);
    const [[mark], rows] = await askD1(d1, ask, limitMs);
    // What was asked before a restore is of the D1 before it.
    if (losses !== before) return;
    await learn(rows, mark?.seq ?? 0);
    isLost = losses !== before;
  };

  return {
    /** All entries as of a row of the audit log. Settles when the feed goes by them. */
    learn,

    /** What the feed has may not be what D1 has. */
    lose,

    read,

    /** Reads the list again if need be. Runs in every round. */
    async mend(): Promise<void> {
      if (!isLost || isReading) return;
      isReading = true;
      try {
        await read(workMs);
      } catch (error) {
        console.error(`the allow-list can not be read, and waits: ${causeOf(error).message}`);
      } finally {
        isReading = false;
      }
    },
  };
}
