// Whether the audit log is whole: its chain is followed, and its end compared with what the feed's object remembers. Operators
// ask for it (operators/audit.ts), and the object follows it by itself (events/audit.ts).

import { faultOf, rowsAfter, type AuditHead, type AuditRow } from '../store/audit.sql.ts';
import type { AuditMemory } from './revocations.sql.ts';

/** How long a row may wait to be sealed. */
const unsealedMs = 60_000;

export interface Followed {
  /** The last row that is right. */
  readonly head: AuditHead;
  /** Where the log is not right, and how; null: it is, as far as it was followed. */
  readonly fault: { readonly seq: number; readonly problem: string } | null;
  /** It was followed to its end. */
  readonly ended: boolean;
}

/**
 * Follows the chain from `start`, which is taken as it is, for some `most` rows. `remembered`: what the feed's object knows of
 * the log.
 */
export async function followChain(
  d1: D1Database,
  start: AuditHead,
  { anchor, lost }: AuditMemory,
  { most, pageRows }: { readonly most: number; readonly pageRows: number },
  nowMs: number,
): Promise<Followed> {
  let head = start;
  let rows: AuditRow[];
  const fault = (seq: number, problem: string): Followed => ({ head, fault: { seq, problem }, ended: false });
  do {
    rows = await rowsAfter(d1, head.seq, pageRows);
    for (const row of rows) {
      const problem = await problemOf(row, head, anchor, nowMs);
      if (problem !== null) return fault(Math.min(row.seq, head.seq + 1), problem);
      head = { seq: row.seq, hash: row.hash };
    }
  } while (rows.length === pageRows && head.seq - start.seq < most);
  if (head.seq - start.seq >= most) return { head, fault: null, ended: false };
  if (head.seq < anchor.seq) return fault(head.seq + 1, `the log ended at row ${anchor.seq} before`);
  const open = lost.find(({ acknowledgedMs }) => acknowledgedMs === null);
  if (!open) return { head, fault: null, ended: true };
  const problem =
    `the log ended at row ${open.seq} before, and goes on at row ${open.goesOnAt}: D1 was restored, or the end of ` +
    `the log was cut off or written anew. If you know why: POST /api/v1/audit/acknowledge`;
  return fault(open.goesOnAt, problem);
}

/** What is wrong with a row after `before`; null: nothing. */
async function problemOf(
  row: AuditRow,
  before: AuditHead,
  anchor: AuditHead,
  nowMs: number,
): Promise<string | null> {
  const fault = await faultOf(row, before);
  if (fault !== null) return fault;
  if (row.hash === '') {
    if (row.seq <= anchor.seq) return 'a row was changed';
    return nowMs - row.atMs > unsealedMs ? 'the row was never sealed' : null;
  }
  return row.seq === anchor.seq && row.hash !== anchor.hash ? 'the chain was written anew' : null;
}
