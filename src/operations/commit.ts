// The one way in which the key store is changed: the audit row and the statements in one batch, written by the feed's
// object, which keeps what a restored backup must not undo before this answers. What this isolate remembered is forgotten.

import type { SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { askFeed } from '../feed/client.ts';
import { statementBuilder } from '../store/ask.ts';
import {
  always,
  appendStatement,
  statementOf,
  textOf,
  type AuditEntry,
  type Statements,
} from '../store/audit.sql.ts';
import type { StoreMark } from '../store/epoch.sql.ts';
import { causeOf, fail, succeed, type Result } from '../http/failure.ts';
import type { Changed, Commit, CommitAsk, News } from '../writer/commit.ts';
import { withinMs } from '../runtime/wait.ts';
import { foundRight } from './settle.ts';

/** The feed's object or D1 may be silent. Then it is not known whether the batch was written. */
const patienceMs = 30_000;

/** What a commit changed, and where the key store was then. */
interface Written {
  readonly mark: StoreMark;
  readonly changed: Changed;
}

const memories = new Set<(written: Written | null) => void>();

/**
 * `forget` is called after each commit of this isolate, before it is acknowledged: what was changed must not be remembered
 * as it was, since D1 may be silent from now on. Null: what it changed is not known, or whether it did.
 */
export function afterCommit(forget: (written: Written | null) => void): void {
  memories.add(forget);
}

/** `unchanged`: SQL that must hold before any of the statements. `news`: what the feed's object is told with them. */
export async function commit(
  env: Env,
  entry: AuditEntry,
  unchanged: SQL,
  statements: (d: DrizzleD1Database) => Statements,
  nowMs: number,
  news: News = {},
): Promise<Commit> {
  const text = await textOf(entry, nowMs);
  const d = statementBuilder(env.DB);
  const list = [appendStatement(d, text, unchanged), ...statements(d)].map(statementOf);
  const written = await send(env, { digest: text.digest, statements: list, news });
  if (written.kind === 'done') {
    const { mark, changed }: Partial<Written> & Pick<Written, 'mark'> = written;
    foundRight(mark);
    // An object of the release before does not say what was changed.
    for (const forget of memories) forget(changed ? { mark, changed } : null);
  } else if (written.kind === 'unreachable') {
    // It may be written.
    for (const forget of memories) forget(null);
  }
  return written;
}

async function send(env: Env, ask: CommitAsk): Promise<Commit> {
  let written: Commit = { kind: 'unreachable' };
  try {
    const asked = askFeed(env, async (feed, again) => feed.commit({ ...ask, again }));
    await withinMs(
      asked.then((answer) => (written = answer as Commit)),
      patienceMs,
    );
  } catch (error) {
    console.error(`a mutation could not be written: ${causeOf(error).message}`);
  }
  return written;
}

/** Writes the audit row of something that changes nothing in the key store. */
export async function writeAuditRow(env: Env, entry: AuditEntry, nowMs: number): Promise<Result<'written'>> {
  const written = await commit(env, entry, always, () => [], nowMs);
  if (written.kind === 'done') return succeed('written');
  if (written.kind === 'unwritable') return fail({ kind: 'unavailable', problem: written.problem });
  return fail({ kind: 'unavailable', problem: 'the audit log can not be written now; try again' });
}
