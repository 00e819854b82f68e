// The audit log as operators read it, and whether it is whole.

import { chainStart, hashOf, type AuditRow } from '../db/audited.ts';
import type { AuditAnchor } from '../feed/feed.ts';
import { isoTime } from './describe.ts';

export function describeAudit(row: AuditRow): Record<string, unknown> {
  const { seq, atMs, actor, action, target, detailJson, hash } = row;
  return { seq, at: isoTime(atMs), actor, action, target, detail: JSON.parse(detailJson) as unknown, hash };
}

export type Verdict =
  | { readonly ok: true; readonly rows: number; readonly head: AuditAnchor }
  | { readonly ok: false; readonly seq: number; readonly problem: string };

/**
 * Follows the chain from its start. `rows` in order of `seq`, in pages; `anchor` is what the feed remembers: a cut
 * tail leaves a chain that is whole but ends too early.
 */
export async function verifyChain(
  pages: AsyncIterable<readonly AuditRow[]>,
  anchor: AuditAnchor,
): Promise<Verdict> {
  let head: AuditAnchor = { seq: 0, hash: chainStart };
  let anchored = anchor.seq === 0;
  for await (const rows of pages) {
    for (const row of rows) {
      if (row.seq !== head.seq + 1) return { ok: false, seq: head.seq + 1, problem: 'a row is missing' };
      if (row.previousHash !== head.hash || row.hash !== (await hashOf(row))) {
        return { ok: false, seq: row.seq, problem: 'a row was changed' };
      }
      head = { seq: row.seq, hash: row.hash };
      if (row.seq === anchor.seq) {
        if (row.hash !== anchor.hash)
          return { ok: false, seq: row.seq, problem: 'the chain was written anew' };
        anchored = true;
      }
    }
  }
  if (!anchored)
    return { ok: false, seq: head.seq + 1, problem: `the log ended at row ${anchor.seq} before` };
  return { ok: true, rows: head.seq, head };
}
