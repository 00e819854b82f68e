// What is remembered of keys, operators and hosts goes at its age, here and in D1: a slice every hour, and while there is
// more, one with each round. Nobody waits for it; what fails is tried again an hour later.
//
// The audit log loses its oldest rows, after they were found to be whole. The last of them is remembered here before
// D1 removes it: a crash between the two leaves rows that nobody looks at, and the next slice takes them. Whoever cuts
// off more shows, since the rest does not follow that row.

import { sinceMs } from '../runtime/clock.ts';
import { endsKeptMs, removeOldStatements, sliceRows } from '../store/ages.sql.ts';
import { askD1, workMs } from '../store/ask.ts';
import {
  faultOf,
  hasRowStatement,
  removeRowsStatements,
  rowsAfter,
  type AuditHead,
  type AuditRow,
} from '../store/audit.sql.ts';
import { causeOf } from '../http/failure.ts';
import type { Settings } from '../config/settings.ts';
import { answerWithin } from '../runtime/wait.ts';
import * as log from './revocations.sql.ts';
import type { KeyStore } from './writer.ts';

const intervalMs = 3_600_000;

/** Removes a slice where one is due. */
export function createCleaning(
  sql: SqlStorage,
  d1: D1Database,
  keyStore: KeyStore,
  { auditKeptMs, adoptEngineKeys }: Pick<Settings, 'auditKeptMs' | 'adoptEngineKeys'>,
): (nowMs: number) => Promise<void> {
  let doneMs = -Infinity;

  /** Whether there may be more. */
  const clean = async (nowMs: number): Promise<boolean> => {
    // D1 as it is now, not a backup of it that was not put right yet.
    if (!(await keyStore.settle())) return false;
    const head = log.readHead(sql);
    if (head.seq === 0) return false;
    const beforeMs = nowMs - endsKeptMs;
    const start = await lastToGo(nowMs - auditKeptMs);
    log.moveStart(sql, start);
    const [, ...removed] = await askD1(
      d1,
      (d) =>
        d.batch([
          hasRowStatement(d, head),
          ...removeRowsStatements(d, start),
          ...removeOldStatements(d, beforeMs, adoptEngineKeys),
        ]),
      workMs,
    );
    log.forgetLostTails(sql);
    const forgotten = log.forgetEnds(sql, beforeMs, sliceRows);
    return forgotten + removed.reduce((sum, { meta }) => sum + meta.changes, 0) > 0;
  };

  /** The last row of a slice that is older than `beforeMs`; where there is none, the one that went last. */
  const lastToGo = async (beforeMs: number): Promise<AuditHead> => {
    const start = log.readStart(sql);
    const [oldest] = await rowsAfter(d1, start.seq, 1);
    if (!oldest || oldest.atMs >= beforeMs) return start;
    const rows = await rowsAfter(d1, start.seq, sliceRows);
    const { last, fault } = await wholeUntil(rows, start, log.readAnchor(sql), beforeMs);
    if (fault !== null) {
      console.error(
        `the audit log stays as it is from row ${last.seq + 1} on, for an operator to look at: ${fault}`,
      );
    }
    return last;
  };

  return async (nowMs) => {
    if (sinceMs(doneMs, nowMs) < intervalMs) return;
    doneMs = nowMs;
    try {
      if (await answerWithin(clean(nowMs), workMs)) doneMs = -Infinity;
    } catch (error) {
      console.error(`what is too old could not be removed, and waits: ${causeOf(error).message}`);
    }
  };
}

/** How far rows behind `start` are old and in one chain. Not the last that is sealed: the log never becomes empty. */
async function wholeUntil(
  rows: readonly AuditRow[],
  start: AuditHead,
  anchor: AuditHead,
  beforeMs: number,
): Promise<{ readonly last: AuditHead; readonly fault: string | null }> {
  let last = start;
  for (const row of rows) {
    if (row.atMs >= beforeMs || row.seq >= anchor.seq) break;
    const fault = row.hash === '' ? 'a row was changed' : await faultOf(row, last);
    if (fault !== null) return { last, fault };
    last = { seq: row.seq, hash: row.hash };
  }
  return { last, fault: null };
}
