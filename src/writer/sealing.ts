// Gives the rows of D1's audit log their places in the hash chain, in their order, behind the mutations that write them.
// A crash leaves rows without a place: the next sealing goes on with them.

import { workMs } from '../store/ask.ts';
import { chainStart, hashOf, rowsAfter, writeSeals, type AuditHead, type Seal } from '../store/audit.sql.ts';
import { causeOf } from '../http/failure.ts';
import { answerWithin } from '../runtime/wait.ts';
import * as log from './revocations.sql.ts';
import { shared } from '../runtime/shared.ts';

const pageRows = 1000;

/** Seals every row, if it can; answers the last that has its place. `begin`: before the first row is read. */
export function createSealing(
  sql: SqlStorage,
  d1: D1Database,
  begin: () => Promise<void>,
): () => Promise<AuditHead> {
  const sealing = shared(() => answerWithin(sealAll(), workMs));

  const sealAll = async (): Promise<AuditHead> => {
    await begin();
    for (;;) {
      const anchor = log.readAnchor(sql);
      const rows = await rowsAfter(d1, anchor.seq, pageRows);
      const digests = log.readUnsealed(sql);
      const seals: Seal[] = [];
      let previousHash = anchor.seq === 0 ? chainStart : anchor.hash;
      for (const row of rows) {
        let hash = await hashOf({ ...row, previousHash });
        const written = digests.get(row.seq);
        // What was written is sealed, whatever has become of it since: it shows.
        if (written !== undefined && written !== (row.digest ?? hash)) {
          hash = await hashOf({ ...row, digest: written, previousHash });
        }
        seals.push({ seq: row.seq, previousHash, hash });
        previousHash = hash;
      }
      const last = seals.at(-1);
      if (!last) return anchor;
      await writeSeals(d1, seals);
      // D1 may have been restored meanwhile, and found to be.
      if (log.readAnchor(sql).hash === anchor.hash) log.moveAnchor(sql, last);
    }
  };

  return async () => {
    try {
      return await sealing.next();
    } catch (error) {
      console.error(`the audit log could not be sealed: ${causeOf(error).message}`);
      return log.readAnchor(sql);
    }
  };
}
