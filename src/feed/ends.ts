// What the feed's object remembers of D1: which keys and tokens ended, and how far the audit log had come. It is how a
// restored D1 is known for one (broker/restore.ts); a mistake here lets a revoked key open again.

import { forgetBouncersAfter, type Clients } from './clients.ts';
import * as log from './ends-log.ts';
import type { NewKeys } from './new-keys.ts';

/** The newest row of the audit log that the feed was told of. */
export interface AuditAnchor {
  readonly seq: number;
  readonly hash: string;
}

/** From `endsMs` on the key or token with this digest opens nothing. */
export interface End {
  readonly digest: string;
  readonly endsMs: number;
}

export interface KeptEnd extends End {
  readonly rowId: number;
}

/** What D1 has that the object is to remember. */
export interface StoreReport {
  readonly ends: readonly End[];
  readonly head: AuditAnchor;
  readonly lost: AuditAnchor | null;
  readonly highestBouncerId: number;
}

/** How far the audit log had come when a mutation last told. */
export function readAnchor(sql: SqlStorage): AuditAnchor {
  return log.readAuditAnchor(sql) ?? { seq: 0, hash: '' };
}

/**
 * Keeps ends of keys and tokens, and how far the audit log has come, in one transaction. With `lost` (the anchor
 * that D1 does not have any more) the anchor may go back, if it still is that one. Answers the anchor.
 */
export function keepEnds(
  sql: SqlStorage,
  clients: Clients,
  newKeys: NewKeys,
  { ends, head, lost, highestBouncerId }: StoreReport,
  nowMs: number,
): AuditAnchor {
  for (const { digest, endsMs } of ends) log.writeEnd(sql, digest, endsMs);
  const anchor = readAnchor(sql);
  if (!lost) log.writeAuditAnchor(sql, head);
  else if (anchor.seq === lost.seq && anchor.hash === lost.hash) {
    log.replaceAuditAnchor(sql, head);
    log.writeLostTail(sql, { ...lost, goesOnAt: head.seq, foundMs: nowMs });
    // D1 gives their ids again: a new bouncer must not start where another one was.
    forgetBouncersAfter(clients, highestBouncerId);
    newKeys.forgetBouncersAfter(highestBouncerId);
  }
  return readAnchor(sql);
}
