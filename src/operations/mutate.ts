// The one way to change the key store (D1). A mutation is decided on what was just read, and written in one batch with its
// audit row and its answer. It is decided again when what it was decided on had changed. The feed's object writes the
// batch: before it answers it keeps what a restored backup of D1 must not undo.
//
// `Idempotency-Key` makes a request safe to repeat, `If-Match` (RFC 9110 §13.1.1) protects from a lost update.

import { lt, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { askFeed } from '../feed/client.ts';
import { askD1, statementBuilder } from '../store/ask.ts';
import {
  always,
  appendStatement,
  statementOf,
  textOf,
  type AuditEntry,
  type RowsOf,
  type Statements,
} from '../store/audit.sql.ts';
import { selectText } from '../store/facts.ts';
import { idempotentAnswers } from '../store/schema.ts';
import { causeOf, fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { withinMs } from '../runtime/wait.ts';
import type { SeenClient } from '../stream/clients.ts';
import type { Commit, CommitAsk, Done, News } from '../writer/commit.ts';
import { noteConfirmed, settleStore } from './settle.ts';

/** One request to change something. */
export interface Mutation {
  readonly env: Env;
  readonly actor: string;
  /** Asked for with `OPERATOR_TOKEN`: the audit row says so. */
  readonly breakGlass?: boolean;
  readonly nowMs: number;
  /** The revision that the caller saw (`If-Match`); null: any. */
  readonly expectedRevision: number | null;
  readonly idempotency: { readonly key: string; readonly requestHash: string } | null;
}

/** A mutation without `If-Match` and `Idempotency-Key`. */
export function mutationBy(env: Env, actor: string, nowMs: number): Mutation {
  return { env, actor, nowMs, expectedRevision: null, idempotency: null };
}

/** What was decided, not written yet. */
export interface Draft {
  readonly entry: Omit<AuditEntry, 'actor'>;
  /** SQL that must still hold when it is written. */
  readonly unchanged: SQL;
  readonly statements: (d: DrizzleD1Database) => Statements;
  /** Without a body: the one that `Shown` describes. */
  readonly answer: Pick<Answer, 'status' | 'secret'> & Partial<Pick<Answer, 'body'>>;
  /** The caller is refused once it is written: what is written is a suspicion. */
  readonly refusal?: Failure;
  /** What a violated unique column means. `column`: `bouncers.name` and the like. */
  readonly clash?: (column: string) => Failure;
  /** What the feed's object learns with it. */
  readonly news?: News;
}

/** Nothing needs to be written: all is as it was asked for. */
export interface Unchanged {
  readonly as: Answer;
}

export interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
  /** Shown once: it is in no table, and in no repeated answer. */
  readonly secret?: Readonly<Record<string, unknown>>;
  /** Whether this is the answer to an earlier request with the same `Idempotency-Key`. */
  readonly replayed?: boolean;
}

export type ClientsOf = (bouncerId: number) => readonly SeenClient[];

/**
 * The facts that an answer shows as they are after the mutation. They are read in its batch, kept there for a repeated
 * request, and described as a GET describes them.
 */
export interface Shown<Facts> {
  /** SQL for the facts, as JSON; null: the draft has them in its body, as `facts`. */
  readonly json: SQL | null;
  readonly describe: (facts: Facts, clientsOf: ClientsOf) => Answer['body'];
  /** The bouncers whose clients are shown. Clients are not kept: a bouncer may have 50,000, and they change. */
  readonly bouncersIn?: (facts: Facts) => readonly number[];
}

/** What a mutation changed, and where D1 was then. */
type Written = Pick<Done, 'mark' | 'changed'>;

const memories = new Set<(written: Written | null) => void>();

/**
 * `forget` is called after each mutation of this isolate, before it is acknowledged: what was changed must not be
 * remembered as it was, since D1 may be silent from now on. Null: it is not known what was changed, or whether.
 */
export function afterMutation(forget: (written: Written | null) => void): void {
  memories.add(forget);
}

/** The feed's object or D1 may be silent. After this time it is not known whether the batch was written. */
const patienceMs = 30_000;
const answerKeptMs = 86_400_000;
const mostTries = 50;

const unread: Failure = {
  kind: 'unavailable',
  problem: 'the key store is out of reach; nothing was written: try again',
};

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

/** `reads` of a mutation that depends on nothing but its unique columns. */
export function nothingRead(): readonly [] {
  return [];
}

/**
 * Decides and writes. `reads`: all that the decision depends on. It is read in one batch and anew at each try, so that a
 * mutation takes two trips to D1.
 */
export async function mutate<const Reads extends Statements, Facts = unknown>(
  mutation: Mutation,
  reads: (d: DrizzleD1Database) => Reads,
  decide: (rows: RowsOf<Reads>) => Result<Draft | Unchanged> | Promise<Result<Draft | Unchanged>>,
  shown: Shown<Facts> | null = null,
): Promise<Result<Answer>> {
  const { env } = mutation;
  for (let attempt = 0; attempt < mostTries; attempt++) {
    const read = await readAll(mutation, reads);
    if (!read.ok) return read;
    const { rows, earlier } = read.value;
    if (earlier) return replay(mutation, earlier, shown);
    const draft = await decide(rows);
    if (!draft.ok) return draft;
    if ('as' in draft.value) {
      // What is written is compared with the object's memory as it is written. Here nothing is.
      return (await settleStore(env)) === 'restored' ? fail(restored) : succeed(draft.value.as);
    }
    const { answer, refusal, clash, news } = draft.value;
    const body = answer.body === undefined && shown?.json ? sql`json_object('facts', ${shown.json})` : null;
    const written = await commit(mutation, draft.value, body);
    if (written.kind === 'done') {
      if (refusal) return fail(refusal);
      return answerOf(answer, shown, written.bodyJson ?? (await readBody(env, body)), written, news);
    }
    if (written.kind === 'unreachable') return fail(unreachable);
    if (written.kind === 'unwritable') {
      return fail({ kind: 'unavailable', problem: `${written.problem}; nothing was changed` });
    }
    // Perhaps only the backup knows the caller, too: the caller has to be authenticated again.
    if (written.kind === 'restored') return fail(restored);
    if (written.kind === 'clash' && !written.column.startsWith('idempotent_answers.')) {
      if (!clash) throw new Error(`an unexpected clash on ${written.column}`);
      // A copy of this request may have been the faster one.
      const again = mutation.idempotency && (await readAll(mutation, nothingRead));
      if (again?.ok && again.value.earlier) return replay(mutation, again.value.earlier, shown);
      return fail(clash(written.column));
    }
    // Stale, or the same request at the same moment: the next try decides on what is there now.
  }
  return fail({ kind: 'unavailable', problem: 'too many changes of the same thing at once; try again' });
}

/** Writes the audit row of something that changes nothing in D1. `refusal`: asked for a request that is new. */
export function note(
  mutation: Mutation,
  action: string,
  target: string,
  detail: Readonly<Record<string, unknown>>,
  body: Readonly<Record<string, unknown>> = {},
  refusal: () => Promise<Failure | null> = () => Promise.resolve(null),
): Promise<Result<Answer>> {
  return mutate(mutation, nothingRead, async () => {
    const refused = await refusal();
    if (refused) return fail(refused);
    return succeed({
      entry: { action, target, detail },
      unchanged: always,
      statements: () => [],
      answer: { status: 201, body },
    });
  });
}

/** Has a draft written with its audit row, and this isolate forget what it changed. `body`: SQL for the answer's. */
async function commit(
  { env, actor, breakGlass, nowMs, idempotency }: Mutation,
  { entry, unchanged, statements, answer, news = {} }: Draft,
  body: SQL | null,
): Promise<Commit> {
  const detail = breakGlass ? { ...entry.detail, break_glass: true } : entry.detail;
  const text = await textOf({ ...entry, detail, actor }, nowMs);
  const d = statementBuilder(env.DB);
  const list: Statements[number][] = [appendStatement(d, text, unchanged), ...statements(d)];
  if (idempotency) {
    const bodyJson = body ?? JSON.stringify(answer.body ?? {});
    const kept = { actor, ...idempotency, status: answer.status, bodyJson, expiresMs: nowMs + answerKeptMs };
    list.push(
      d.delete(idempotentAnswers).where(lt(idempotentAnswers.expiresMs, nowMs)),
      d.insert(idempotentAnswers).values(kept).returning({ bodyJson: idempotentAnswers.bodyJson }),
    );
  } else if (body) {
    list.push(selectText(d, body));
  }
  const written = await send(env, { digest: text.digest, statements: list.map(statementOf), news });
  if (written.kind === 'done') noteConfirmed(written.mark);
  if (written.kind === 'done' || written.kind === 'unreachable') {
    for (const forget of memories) forget(written.kind === 'done' ? written : null);
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

/** The body of what an earlier try wrote, whose answer was lost; null: it can not be read now, or is gone again. */
async function readBody({ DB }: Env, body: SQL | null): Promise<string | null> {
  if (!body) return null;
  try {
    const [row] = await askD1(DB, (d) => selectText(d, sql`nullif(${body}, '{"facts":null}')`));
    return row?.bodyJson ?? null;
  } catch (error) {
    console.error(`what was written can not be shown: ${causeOf(error).message}`);
    return null;
  }
}

/** Without a body, which could not be read, the secret alone is better than no answer. */
function answerOf<Facts>(
  { status, body, secret }: Draft['answer'],
  shown: Shown<Facts> | null,
  bodyJson: string | null,
  { clients }: Done,
  news: News = {},
): Result<Answer> {
  const kept = body ?? (bodyJson === null ? {} : (JSON.parse(bodyJson) as Kept<Facts>));
  const described = describe(kept, shown, clientsById(news.clientsOf ?? [], clients));
  return succeed({ status, body: described, ...(secret ? { secret } : {}) });
}

/** A body as it is answered, or the facts for it. */
type Kept<Facts> = Answer['body'] | { readonly facts: Facts };

function isFacts<Facts>(kept: Kept<Facts>): kept is { readonly facts: Facts } {
  return 'facts' in kept;
}

function describe<Facts>(
  kept: Kept<Facts>,
  shown: Shown<Facts> | null,
  clientsOf: ClientsOf,
): Answer['body'] {
  return shown && isFacts(kept) ? shown.describe(kept.facts, clientsOf) : (kept as Answer['body']);
}

/** The clients of some bouncers. `clients`: in the order of `ids`. */
export function clientsById(ids: readonly number[], clients: readonly (readonly SeenClient[])[]): ClientsOf {
  const all = new Map(ids.map((id, index) => [id, clients[index]]));
  return (id) => all.get(id) ?? [];
}

type IdempotentAnswer = typeof idempotentAnswers.$inferSelect;

/** `earlier`: what an earlier request with the same `Idempotency-Key` was answered. */
async function readAll<const Reads extends Statements>(
  { env, actor, nowMs, idempotency }: Mutation,
  reads: (d: DrizzleD1Database) => Reads,
): Promise<Result<{ rows: RowsOf<Reads>; earlier: IdempotentAnswer | undefined }>> {
  const selectAnswer = (d: DrizzleD1Database, key: string) => {
    const same = sql`actor = ${actor} AND key = ${key} AND expires_ms > ${nowMs}`;
    return d.select().from(idempotentAnswers).where(same);
  };
  try {
    const rows: unknown[] = await askD1(env.DB, async (d) => {
      const [first, ...rest] = [...reads(d), ...(idempotency ? [selectAnswer(d, idempotency.key)] : [])];
      return first ? d.batch([first, ...rest]) : [];
    });
    const [earlier] = idempotency ? (rows.pop() as IdempotentAnswer[]) : [];
    return succeed({ rows: rows as unknown as RowsOf<Reads>, earlier });
  } catch (error) {
    console.error(`the key store is out of reach: ${causeOf(error).message}`);
    return fail(unread);
  }
}

async function replay<Facts>(
  { env, idempotency }: Mutation,
  { requestHash, status, bodyJson }: IdempotentAnswer,
  shown: Shown<Facts> | null,
): Promise<Result<Answer>> {
  if (requestHash !== idempotency?.requestHash) {
    return fail({
      kind: 'unprocessable',
      field: 'Idempotency-Key',
      problem: 'was sent with another request in the last 24 hours',
    });
  }
  const kept = JSON.parse(bodyJson) as Kept<Facts>;
  const ids = isFacts(kept) ? (shown?.bouncersIn?.(kept.facts) ?? []) : [];
  const clients = ids.length > 0 ? await askFeed(env, async (feed) => feed.clientsOf(ids)) : [];
  return succeed({ status, body: describe(kept, shown, clientsById(ids, clients)), replayed: true });
}

/** The ETag of a revision. */
export function etagOf(revision: number): string {
  return `"${revision}"`;
}

/** Refuses a caller that has not seen the newest revision (`If-Match`). */
export function checkRevision({ expectedRevision }: Mutation, revision: number): Result<void> {
  if (expectedRevision === null || expectedRevision === revision) return succeed(undefined);
  return fail({ kind: 'precondition-failed', etag: etagOf(revision) });
}
