// Removes what has reached its age, here and in D1: revocations, audit rows, tokens, enrolments, rotations, hosts. One
// slice an hour, and one with each round while there is more. Nothing waits for it; what fails is tried an hour later.
// What expires within days is deleted by its own writers: idempotent answers, nonces, audiences, changes of keys.
//
// The audit log loses its oldest rows, once they are verified. The last of them is recorded here before D1 removes it. A
// crash in between leaves rows that no verification reads, and the next slice removes them. If somebody cuts off more,
// that shows, since the rest does not follow the recorded row.

import { sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { sinceMs } from '../runtime/clock.ts';
import { askD1, workMs } from '../store/ask.ts';
import {
  faultOf,
  hasRowStatement,
  removeRowsStatements,
  rowsAfter,
  type AuditHead,
  type AuditRow,
} from '../store/audit.sql.ts';
import {
  enrolments,
  hosts,
  operatorTokens,
  revokedDigests,
  rotationMembers,
  rotations,
} from '../store/schema.ts';
import { causeOf } from '../http/failure.ts';
import type { Settings } from '../config/settings.ts';
import { answerWithin } from '../runtime/wait.ts';
import * as recorded from './revocations.sql.ts';
import type { KeyStore } from './writer.ts';

const intervalMs = 3_600_000;

/** Rows of each kind that go at once. */
const sliceRows = 1000;
/** The same of rows that take others with them. */
const parentSliceRows = 10;

/** Removes a slice where one is due. */
export function createCleaning(
  storage: SqlStorage,
  d1: D1Database,
  keyStore: KeyStore,
  { auditKeptMs, adoptEngineKeys }: Pick<Settings, 'auditKeptMs' | 'adoptEngineKeys'>,
): (nowMs: number) => Promise<void> {
  let doneMs = -Infinity;

  /** Whether there may be more. */
  const clean = async (nowMs: number): Promise<boolean> => {
    // From a restored backup nothing is removed before it was put right.
    if (!(await keyStore.settle())) return false;
    const head = keyStore.head();
    if (head.seq === 0) return false;
    const beforeMs = nowMs - recorded.revocationsKeptMs;
    const start = await lastToGo(nowMs - auditKeptMs);
    recorded.moveStart(storage, start);
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
    recorded.forgetLostTails(storage);
    const forgotten = recorded.forgetRevocations(storage, beforeMs, sliceRows);
    return forgotten + removed.reduce((sum, { meta }) => sum + meta.changes, 0) > 0;
  };

  /** The last row of a slice that is older than `beforeMs`; where there is none, the last one that was removed. */
  const lastToGo = async (beforeMs: number): Promise<AuditHead> => {
    const start = recorded.readStart(storage);
    const [oldest] = await rowsAfter(d1, start.seq, 1);
    if (!oldest || oldest.atMs >= beforeMs) return start;
    const rows = await rowsAfter(d1, start.seq, sliceRows);
    const { last, fault } = await verifiedUntil(rows, start, recorded.readAnchor(storage), beforeMs);
    if (fault !== null) {
      console.error(
        `the audit log is kept from row ${last.seq + 1} on, which does not fit the chain: ${fault}. ` +
          'See GET /api/v1/audit/verify',
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
      console.error(`old rows could not be removed; tried again in an hour: ${causeOf(error).message}`);
    }
  };
}

/** How far rows after `start` are old and in one chain. The last sealed row stays: the log never becomes empty. */
async function verifiedUntil(
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

/**
 * The statements that remove a slice of what ended before a moment. `adopts`: an unknown key may be adopted from the
 * engine, so a revoked one has to stay known.
 */
function removeOldStatements(db: DrizzleD1Database, beforeMs: number, adopts: boolean) {
  const isBefore = (column: string): SQL => sql`${sql.raw(column)} < ${beforeMs}`;
  const slice = (table: string, which: SQL, rows = sliceRows): SQL =>
    sql`rowid IN (SELECT rowid FROM ${sql.raw(table)} WHERE ${which} LIMIT ${rows})`;
  // A name is not given again while the audit log names it.
  const oldTokens = sql`${isBefore('COALESCE(revoked_ms, expires_ms)')}
    AND NOT EXISTS (SELECT 1 FROM audit WHERE actor = 'token:' || name)
    AND NOT EXISTS (SELECT 1 FROM audit WHERE target = name AND action LIKE 'operator-token.%')`;
  // The newest is what the next one counts from.
  const oldRotations = sql`${isBefore('created_ms')} AND id < (SELECT MAX(id) FROM rotations)`;
  const isRotationGone = sql`rotation_id < (SELECT MIN(id) FROM rotations)`;
  // An instance can prove for as long as it runs that it is that instance: such a host stays removed.
  const oldHosts = sql`${isBefore('removed_ms')} AND instance IS NULL`;
  return [
    ...(adopts ? [] : [db.delete(revokedDigests).where(slice('revoked_digests', isBefore('revoked_ms')))]),
    db.delete(operatorTokens).where(slice('operator_tokens', oldTokens)),
    db.delete(enrolments).where(slice('enrolments', isBefore('expires_ms'), parentSliceRows)),
    db.delete(rotations).where(slice('rotations', oldRotations)),
    db.delete(rotationMembers).where(slice('rotation_members', isRotationGone)),
    db.delete(hosts).where(slice('hosts', oldHosts)),
  ];
}
