// The audit log as operators read it, and whether it is whole.

import * as z from 'zod';
import { chainStart, hashOf, type AuditRow } from '../db/audited.ts';
import type { AuditAnchor } from '../feed/ends.ts';
import type { LostTail } from '../feed/ends-log.ts';
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
  z.object({
    ok: z.literal(true),
    rows: z.int(),
    head: z.object({ seq: z.int(), hash: z.string() }),
    lost: z
      .array(
        z.object({
          ended_at: z.int(),
          hash: z.string(),
          goes_on_at: z.int(),
          found_at: time,
          acknowledged_at: time.nullable(),
        }),
      )
      .optional()
      .meta({ description: 'Ends of the log that a restored D1 lost, and that an operator knows of.' }),
  }),
  z.object({ ok: z.literal(false), seq: z.int(), problem: z.string() }),
]);

export function describeAudit(row: AuditRow): z.input<typeof auditShape> {
  const { seq, atMs, actor, action, target, detailJson, hash } = row;
  return { seq, at: isoTime(atMs), actor, action, target, detail: JSON.parse(detailJson) as unknown, hash };
}

type Verdict = z.input<typeof verdictShape>;

/**
 * Follows the chain from its start. `rows` in order of `seq`, in pages; `anchor` is what the feed remembers: a cut
 * tail leaves a chain that is whole but ends too early. `lost` are tails that were missed when D1 was found restored:
 * a cut looks the same from here, so each is a fault until an operator says that he knows of it.
 */
export async function verifyChain(
  pages: AsyncIterable<readonly AuditRow[]>,
  anchor: AuditAnchor,
  lost: readonly LostTail[],
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
  const open = lost.find(({ acknowledgedMs }) => acknowledgedMs === null);
  if (open) {
    const problem =
      `the log ended at row ${open.seq} before, and goes on at row ${open.goesOnAt}: D1 was restored, or the end of ` +
      `the log was cut off or written anew. If you know why: POST /api/v1/audit/acknowledge`;
    return { ok: false, seq: open.goesOnAt, problem };
  }
  if (lost.length === 0) return { ok: true, rows: head.seq, head };
  return { ok: true, rows: head.seq, head, lost: lost.map(describeLostTail) };
}

function describeLostTail({ seq, hash, goesOnAt, foundMs, acknowledgedMs }: LostTail) {
  return {
    ended_at: seq,
    hash,
    goes_on_at: goesOnAt,
    found_at: isoTime(foundMs),
    acknowledged_at: isoTime(acknowledgedMs),
  };
}
