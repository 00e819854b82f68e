// Seals D1's audit log: gives its rows their places in the hash chain, in their order, after the mutations that wrote
// them. A crash leaves rows without a place, and the next sealing begins with them.

import { workMs } from '../store/ask.ts';
import { chainStart, hashOf, rowsAfter, writeSeals, type AuditHead, type Seal } from '../store/audit.sql.ts';
import { causeOf } from '../http/failure.ts';
import { answerWithin } from '../runtime/wait.ts';
import * as recorded from './revocations.sql.ts';
import { shared } from '../runtime/shared.ts';

const pageRows = 1000;

/** Seals every row, if it can; answers the last that is sealed. `begin`: before the first row is read. */
export function createSealing(
  sql: SqlStorage,
  d1: D1Database,
  begin: () => Promise<void>,
): () => Promise<AuditHead> {
  const sealing = shared(() => answerWithin(sealAll(), workMs));

  const sealAll = async (): Promise<AuditHead> => {
    await begin();
    for (;;) {
      const anchor = recorded.readAnchor(sql);
      const rows = await rowsAfter(d1, anchor.seq, pageRows);
      const digests = recorded.readUnsealed(sql);
      const seals: Seal[] = [];
      let previousHash = anchor.seq === 0 ? chainStart : anchor.hash;
      for (const row of rows) {
        let hash = await hashOf({ ...row, previousHash });
        const written = digests.get(row.seq);
        // The row is sealed as it was written. One that was changed since does not fit its seal, which shows.
        if (written !== undefined && written !== (row.digest ?? hash)) {
          hash = await hashOf({ ...row, digest: written, previousHash });
        }
        seals.push({ seq: row.seq, previousHash, hash });
        previousHash = hash;
      }
      const last = seals.at(-1);
      if (!last) return anchor;
      await writeSeals(d1, seals);
      // D1 may have been found restored meanwhile.
      if (recorded.readAnchor(sql).hash === anchor.hash) recorded.moveAnchor(sql, last);
    }
  };

  return async () => {
    try {
      return await sealing.next();
    } catch (error) {
      console.error(`the audit log could not be sealed: ${causeOf(error).message}`);
      return recorded.readAnchor(sql);
    }
  };
}
