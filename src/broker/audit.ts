// The audit log as operators read it, and whether it is whole.

import * as z from 'zod';
import { askFeed } from '../context.ts';
import { listAudit } from '../db/audit.ts';
import { chainStart, hashOf, type AuditRow } from '../db/audited.ts';
import type { AuditAnchor } from '../feed/feed.ts';
import { isoTime, time } from './describe.ts';

export const auditShape = z
  .object({
    seq: z.int(),
    at: time,
    actor: z.string(),
    action: z.string().meta({ example: 'bouncer.rotate' }),
    target: z.string(),
    detail: z.unknown(),
    hash: z.string().meta({ description: 'SHA-256 over the hash of the row before, and this row.' }),
  })
  .meta({ id: 'AuditRow' });

export const verdictShape = z.union([
  z.object({ ok: z.literal(true), rows: z.int(), head: z.object({ seq: z.int(), hash: z.string() }) }),
  z.object({ ok: z.literal(false), seq: z.int(), problem: z.string() }),
]);

/** The feed remembers how far the log has come, so that a cut tail is noticed. */
export async function anchorAudit(env: Env): Promise<void> {
  const [head] = await listAudit(env.DB, {}, null, 1);
  if (head) await askFeed(env, async (feed) => feed.anchorAudit({ seq: head.seq, hash: head.hash }));
}

export function describeAudit(row: AuditRow): z.input<typeof auditShape> {
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
