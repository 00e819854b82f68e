// How every mutation runs: decided on what is, written with its audit row and its answer in one batch, and decided
// again when what it was decided on had changed. Safe to repeat with an `Idempotency-Key`, safe against a lost
// update with `If-Match` (RFC 9110 §13.1.1).

import type { SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import type { AuditEntry, Statements } from '../db/audited.ts';
import { findAnswer, keepStatements, type IdempotentAnswer } from '../db/idempotency.ts';
import { badInput, fail, succeed, type Failure, type Result } from '../failure.ts';
import { sha256Hex } from '../secret.ts';
import { commit } from './commit.ts';

/** One request to change something. */
export interface Mutation {
  readonly env: Env;
  readonly actor: string;
  /** By `OPERATOR_TOKEN`: the audit row says so. */
  readonly breakGlass?: boolean;
  readonly nowMs: number;
  /** The revision that the caller saw (`If-Match`); null: any. */
  readonly expectedRevision: number | null;
  readonly idempotency: { readonly key: string; readonly requestHash: string } | null;
}

/** A decision, not written yet. */
export interface Draft {
  readonly entry: Omit<AuditEntry, 'actor'>;
  /** SQL that must still hold when it is written. */
  readonly unchanged: SQL;
  readonly statements: (db: DrizzleD1Database) => Statements;
  readonly answer: Answer;
  /** What a unique column's clash means; `bouncers.name` and the like. */
  readonly clash?: (column: string) => Failure;
}

export interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
  /** Shown once: in no table, and in no repeated answer. */
  readonly secret?: Readonly<Record<string, unknown>>;
  /** True when this is the answer to an earlier request with the same `Idempotency-Key`. */
  readonly replayed?: boolean;
}

const unreachable: Failure = {
  kind: 'unavailable',
  problem:
    'the key store is out of reach, and whether this was written is not known: look, or send it again with its ' +
    'Idempotency-Key',
};

const restored: Failure = {
  kind: 'unavailable',
  problem: 'the key store was restored from a backup, and is put right now; nothing was written: try again',
  waitSeconds: 1,
};

const answerKeptMs = 86_400_000;
const mostTries = 50;

/** Decides and writes; `decide` reads afresh at each try. */
export async function mutate(
  mutation: Mutation,
  decide: () => Promise<Result<Draft>>,
): Promise<Result<Answer>> {
  const { env, actor, breakGlass, nowMs, idempotency } = mutation;
  const answered = async (): Promise<Result<Answer> | undefined> => {
    const earlier = idempotency && (await findAnswer(env.DB, actor, idempotency.key, nowMs));
    return earlier ? replay(earlier, idempotency.requestHash) : undefined;
  };
  for (let attempt = 0; attempt < mostTries; attempt++) {
    const before = await answered();
    if (before) return before;
    const draft = await decide();
    // A copy of this request may have been done since it was looked for, and be the very reason for the refusal.
    if (!draft.ok) return (await answered()) ?? draft;
    const { entry, unchanged, statements, answer, clash } = draft.value;
    const kept = idempotency && {
      actor,
      key: idempotency.key,
      requestHash: idempotency.requestHash,
      status: answer.status,
      bodyJson: JSON.stringify(answer.body),
      expiresMs: nowMs + answerKeptMs,
    };
    const all = (db: DrizzleD1Database) => [
      ...statements(db),
      ...(kept ? keepStatements(db, kept, nowMs) : []),
    ];
    const detail = breakGlass ? { ...entry.detail, break_glass: true } : entry.detail;
    const written = await commit(env, { ...entry, detail, actor }, unchanged, all, nowMs);
    if (written.kind === 'done') return succeed(answer);
    if (written.kind === 'unreachable') return fail(unreachable);
    // The caller, too, may be one that only the backup knows: who he is is asked again.
    if (written.kind === 'restored') return fail(restored);
    if (written.kind === 'clash' && !written.column.startsWith('idempotent_answers.')) {
      if (!clash) throw new Error(`an unexpected clash on ${written.column}`);
      return (await answered()) ?? fail(clash(written.column));
    }
    // Stale, or the same request at the same moment: the next try decides on what is there now.
  }
  return fail({ kind: 'unavailable', problem: 'too many changes of the same thing at once; try again' });
}

async function replay(earlier: IdempotentAnswer, requestHash: string): Promise<Result<Answer>> {
  if (earlier.requestHash !== requestHash) {
    return fail({
      kind: 'unprocessable',
      field: 'Idempotency-Key',
      problem: 'was sent with another request in the last 24 hours',
    });
  }
  const body = JSON.parse(earlier.bodyJson) as Record<string, unknown>;
  return succeed({ status: earlier.status, body, replayed: true });
}

/** The `Idempotency-Key` of a request with what it asks for; null when it has none. */
export async function readIdempotency(
  header: string | null,
  method: string,
  path: string,
  body: string,
): Promise<Result<Mutation['idempotency']>> {
  if (header === null) return succeed(null);
  if (!/^[\x21-\x7e]{1,255}$/.test(header))
    return badInput('Idempotency-Key', 'must be 1 to 255 printable characters');
  return succeed({ key: header, requestHash: await sha256Hex(`${method} ${path}\n${body}`) });
}

/** The revision of an `If-Match` (`"7"`); null without one, or for `*`. */
export function readIfMatch(header: string | null): Result<number | null> {
  if (header === null || header === '*') return succeed(null);
  const revision = /^"(\d{1,15})"$/.exec(header)?.[1];
  if (revision === undefined) return badInput('If-Match', 'must be an ETag as it was answered, or *');
  return succeed(Number(revision));
}

export function etagOf(revision: number): string {
  return `"${revision}"`;
}

/** Whether the caller saw what is there. */
export function checkRevision(mutation: Mutation, revision: number): Result<'seen'> {
  if (mutation.expectedRevision === null || mutation.expectedRevision === revision) return succeed('seen');
  return fail({ kind: 'precondition-failed', etag: etagOf(revision) });
}
