// Follows the audit log round and round, some rows a minute, and says where it is not whole.

import { sinceMs } from '../runtime/clock.ts';
import { rowsAfter, type AuditHead } from '../store/audit.sql.ts';
import type { AuditMemory } from '../writer/revocations.sql.ts';
import { followChain } from '../writer/verify.ts';
import type { Trouble } from './trouble.ts';

const everyMs = 60_000;
/** A log of 100,000 rows is followed in 7 hours. */
const rowsAtOnce = 250;

const whole: Trouble = { wrong: [], items: new Map() };
const unproven: Trouble = { wrong: [{ type: 'audit.broken', subject: 'audit' }], items: new Map() };

/** `remembered`: what the object knows of the log. */
export function createAuditWatch(
  d1: D1Database,
  remembered: () => Promise<AuditMemory>,
): (nowMs: number, isRaised: boolean) => Promise<Trouble> {
  /** How far it was followed; null: it begins anew. */
  let head: AuditHead | null = null;
  let found: Trouble | null = null;
  /** Since the start or the last fault it was followed to its end. */
  let isWhole = false;
  let readMs = -Infinity;

  /** A row that was removed by its age, or is another one since D1 was restored, is no place to go on from. */
  const startAfter = async (removed: AuditHead): Promise<AuditHead> => {
    if (head === null || head.seq <= removed.seq) return removed;
    const [row] = await rowsAfter(d1, head.seq - 1, 1);
    return row?.seq === head.seq && row.hash === head.hash ? head : removed;
  };

  /** What was said of it is over only once it was followed to its end: after a restart it begins anew. */
  const troubleNow = (isRaised: boolean): Trouble => found ?? (isRaised && !isWhole ? unproven : whole);

  return async (nowMs, isRaised) => {
    if (sinceMs(readMs, nowMs) < everyMs) return troubleNow(isRaised);
    const memory = await remembered();
    const start = await startAfter(memory.removed);
    const most = { most: rowsAtOnce, pageRows: rowsAtOnce };
    const { head: reached, fault, ended } = await followChain(d1, start, memory, most, nowMs);
    head = ended ? null : reached;
    readMs = nowMs;
    isWhole = ended || (isWhole && !fault);
    found = fault
      ? { wrong: [{ type: 'audit.broken', subject: 'audit' }], items: new Map([['audit', { ...fault }]]) }
      : null;
    return troubleNow(isRaised);
  };
}
