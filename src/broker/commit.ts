// The one way in which the key store is changed: the audit row and the statements in one batch, written by the feed's
// object, which keeps what a restored backup must not undo before this answers. What this isolate remembered is forgotten.

import { sql, type SQL } from 'drizzle-orm';
import { drizzle, type DrizzleD1Database } from 'drizzle-orm/d1';
import { askFeedOnce } from '../context.ts';
import {
  appendStatement,
  textOf,
  type AuditEntry,
  type Refusal,
  type Statement,
  type Statements,
} from '../db/audited.ts';
import { causeOf, fail, succeed, type Result } from '../failure.ts';
import type { Commit, CommitAsk, News } from '../feed/key-store.ts';
import { withinMs } from '../wait.ts';
import { foundRight } from './restore.ts';

/** The feed's object or D1 may be silent. Then it is not known whether the batch was written. */
const patienceMs = 30_000;

const memories = new Set<() => void>();

/** `forget` is called after each commit of this isolate, also one that may have failed: what it remembers may be different now. */
export function afterCommit(forget: () => void): void {
  memories.add(forget);
}

export type Committed =
  /** `results`: of each statement, as drizzle gives them. */
  | { readonly kind: 'done'; readonly results: readonly unknown[] }
  | Refusal
  /** Whether it was written is not known. */
  | { readonly kind: 'unreachable' };

/** `unchanged`: SQL that must hold before any of the statements. `news`: what the feed's object is told with them. */
export async function commit(
  env: Env,
  entry: AuditEntry,
  unchanged: SQL,
  statements: (d: DrizzleD1Database) => Statements,
  nowMs: number,
  news: News = {},
): Promise<Committed> {
  const text = await textOf(entry, nowMs);
  const sent: { written?: Commit } = {};
  const d = drizzle(
    forwardingD1(async (list) => {
      const written = (sent.written = await send(env, { digest: text.digest, statements: list, news }));
      return written.kind === 'done' ? written.results : list.map(() => ({ results: [] }));
    }),
  );
  const results: unknown[] = await d.batch([appendStatement(d, text, unchanged), ...statements(d)]);
  const written = sent.written ?? { kind: 'unreachable' };
  // It may have been written.
  if (written.kind === 'done' || written.kind === 'unreachable') for (const forget of memories) forget();
  if (written.kind !== 'done') return written;
  foundRight(written.mark);
  return { kind: 'done', results: results.slice(1) };
}

async function send(env: Env, ask: CommitAsk): Promise<Commit> {
  let written: Commit = { kind: 'unreachable' };
  try {
    const asked = askFeedOnce(env, async (feed) => feed.commit(ask));
    await withinMs(
      asked.then((answer) => (written = answer as Commit)),
      patienceMs,
    );
  } catch (error) {
    console.error(`a mutation could not be written: ${causeOf(error).message}`);
  }
  return written;
}

/** As much of D1 as drizzle's `batch` uses; what it would run is given to `send`. */
function forwardingD1(
  send: (statements: readonly Statement[]) => Promise<readonly { readonly results: unknown }[]>,
): D1Database {
  const prepare = (text: string) => ({ bind: (...params: unknown[]): Statement => ({ sql: text, params }) });
  return { prepare, batch: send } as unknown as D1Database;
}

/** Writes the audit row of something that changes nothing in the key store. */
export async function writeAuditRow(env: Env, entry: AuditEntry, nowMs: number): Promise<Result<'written'>> {
  const written = await commit(env, entry, sql`1`, () => [], nowMs);
  if (written.kind === 'done') return succeed('written');
  return fail({ kind: 'unavailable', problem: 'the audit log can not be written now; try again' });
}
