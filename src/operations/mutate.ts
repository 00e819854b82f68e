// How every mutation runs: decided on what is, written with its audit row and its answer in one batch, and decided
// again when what it was decided on had changed. Safe to repeat with an `Idempotency-Key`, safe against a lost
// update with `If-Match` (RFC 9110 §13.1.1).

import { sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { askFeed } from '../feed/client.ts';
import { askD1 } from '../store/ask.ts';
import { type AuditEntry, type RowsOf, type Statements, always } from '../store/audit.sql.ts';
import { selectText } from '../store/facts.ts';
import { keepStatements, selectAnswer, type IdempotentAnswer } from '../store/idempotency.sql.ts';
import { badInput, causeOf, fail, succeed, type Failure, type Result } from '../http/failure.ts';
import type { SeenClient } from '../stream/clients.ts';
import type { Done, News } from '../writer/commit.ts';
import { sha256Hex } from '../crypto/secret.ts';
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

/** What nobody asked for with a revision or a key of its own. */
export function mutationBy(env: Env, actor: string, nowMs: number): Mutation {
  return { env, actor, nowMs, expectedRevision: null, idempotency: null };
}

/** A decision, not written yet. */
export interface Draft {
  readonly entry: Omit<AuditEntry, 'actor'>;
  /** SQL that must still hold when it is written. */
  readonly unchanged: SQL;
  readonly statements: (d: DrizzleD1Database) => Statements;
  /** Without a body: what is shown. */
  readonly answer: Pick<Answer, 'status' | 'secret'> & Partial<Pick<Answer, 'body'>>;
  /** What the caller is told instead, once it is written: of a suspicion. */
  readonly refusal?: Failure;
  /** What a unique column's clash means; `bouncers.name` and the like. */
  readonly clash?: (column: string) => Failure;
  /** What the feed's object is told with it. */
  readonly news?: News;
}

/** Nothing is to be written: things are as they were asked to be. */
export interface Unchanged {
  readonly as: Answer;
}

export interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
  /** Shown once: in no table, and in no repeated answer. */
  readonly secret?: Readonly<Record<string, unknown>>;
  /** True when this is the answer to an earlier request with the same `Idempotency-Key`. */
  readonly replayed?: boolean;
}

export type ClientsOf = (bouncerId: number) => readonly SeenClient[];

/**
 * What a mutation's answer shows as it is once that is written. It is read in the same batch, kept there for the request's
 * repetition, and described as a GET describes it.
 */
export interface Shown<Facts> {
  /** SQL for it, as JSON; null: the draft has the facts in its body, as `facts`. */
  readonly json: SQL | null;
  readonly describe: (facts: Facts, clientsOf: ClientsOf) => Answer['body'];
  /** The bouncers whose clients are in it. They are not kept: a bouncer may have 50,000, and they change by themselves. */
  readonly bouncersIn?: (facts: Facts) => readonly number[];
}

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

export const restored: Failure = {
  kind: 'unavailable',
  problem: 'the key store was restored from a backup, and is put right now; nothing was written: try again',
  waitSeconds: 1,
};

const answerKeptMs = 86_400_000;
const mostTries = 50;

/** `reads` of a mutation whose unique columns say all that it is decided on. */
export function nothingRead(): readonly [] {
  return [];
}

/**
 * Decides and writes. `reads`: all that is decided on, read in one batch and afresh at each try, so that a mutation takes
 * two trips to D1.
 */
export async function mutate<const Reads extends Statements, Facts = unknown>(
  mutation: Mutation,
  reads: (d: DrizzleD1Database) => Reads,
  decide: (rows: RowsOf<Reads>) => Result<Draft | Unchanged> | Promise<Result<Draft | Unchanged>>,
  shown: Shown<Facts> | null = null,
): Promise<Result<Answer>> {
  const { env, actor, breakGlass, nowMs } = mutation;
  for (let attempt = 0; attempt < mostTries; attempt++) {
    const read = await readAll(mutation, reads);
    if (!read.ok) return read;
    const { rows, earlier } = read.value;
    if (earlier) return replay(mutation, earlier, shown);
    const draft = await decide(rows);
    if (!draft.ok) return draft;
    if ('as' in draft.value) return succeed(draft.value.as);
    const { entry, unchanged, statements, answer, refusal, clash, news } = draft.value;
    const all = (d: DrizzleD1Database) => [
      ...statements(d),
      ...bodyStatements(d, mutation, answer, shown?.json ?? null),
    ];
    const detail = breakGlass ? { ...entry.detail, break_glass: true } : entry.detail;
    const written = await commit(env, { ...entry, detail, actor }, unchanged, all, nowMs, news);
    if (written.kind === 'done') {
      if (refusal) return fail(refusal);
      const bodyJson = written.bodyJson ?? (await readBody(env, bodyOf(answer.body, shown?.json ?? null)));
      return answerOf(answer, shown, { ...written, bodyJson }, news);
    }
    if (written.kind === 'unreachable') return fail(unreachable);
    if (written.kind === 'unwritable') {
      return fail({ kind: 'unavailable', problem: `${written.problem}; nothing was changed` });
    }
    // The caller, too, may be one that only the backup knows: who he is is asked again.
    if (written.kind === 'restored') return fail(restored);
    if (written.kind === 'clash' && !written.column.startsWith('idempotent_answers.')) {
      if (!clash) throw new Error(`an unexpected clash on ${written.column}`);
      // A copy of this request may have been the faster one.
      const again = mutation.idempotency && (await readAll(mutation, () => []));
      if (again?.ok && again.value.earlier) return replay(mutation, again.value.earlier, shown);
      return fail(clash(written.column));
    }
    // Stale, or the same request at the same moment: the next try decides on what is there now.
  }
  return fail({ kind: 'unavailable', problem: 'too many changes of the same thing at once; try again' });
}

/** The statements that keep the answer's body and read it, where that is to be done. */
function bodyStatements(
  d: DrizzleD1Database,
  { actor, idempotency, nowMs }: Mutation,
  { status, body }: Draft['answer'],
  json: SQL | null,
): Statements {
  const read = bodyOf(body, json);
  if (!idempotency) return read ? [selectText(d, read)] : [];
  const kept = { actor, ...idempotency, status, expiresMs: nowMs + answerKeptMs };
  return keepStatements(d, kept, read ?? sql`${JSON.stringify(body ?? {})}`, nowMs);
}

/** SQL for a body that is to be read. */
function bodyOf(body: Answer['body'] | undefined, json: SQL | null): SQL | null {
  return body === undefined && json ? sql`json_object('facts', ${json})` : null;
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
  { bodyJson, clients }: Partial<Done>,
  news: News = {},
): Result<Answer> {
  const clientsOf = byId(news.clientsOf ?? [], clients ?? []);
  const all = body ?? (bodyJson ? (JSON.parse(bodyJson) as Kept<Facts>) : {});
  return succeed({ status, body: describe(all, shown, clientsOf), ...(secret ? { secret } : {}) });
}

/** Any body but facts is told as it is. */
function describe<Facts>(
  kept: Kept<Facts>,
  shown: Shown<Facts> | null,
  clientsOf: ClientsOf,
): Answer['body'] {
  return shown && isFacts(kept) ? shown.describe(kept.facts, clientsOf) : (kept as Answer['body']);
}

type Kept<Facts> = Answer['body'] | { readonly facts: Facts };

function isFacts<Facts>(kept: Kept<Facts>): kept is { readonly facts: Facts } {
  return 'facts' in kept;
}

/** The clients of some bouncers, in the order of their ids. */
export function byId(ids: readonly number[], clients: readonly (readonly SeenClient[])[]): ClientsOf {
  const all = new Map(ids.map((id, index) => [id, clients[index]]));
  return (id) => all.get(id) ?? [];
}

interface Read<Reads extends Statements> {
  readonly rows: RowsOf<Reads>;
  /** What an earlier request with the same `Idempotency-Key` was answered. */
  readonly earlier: IdempotentAnswer | undefined;
}

async function readAll<const Reads extends Statements>(
  { env, actor, nowMs, idempotency }: Mutation,
  reads: (d: DrizzleD1Database) => Reads,
): Promise<Result<Read<Reads>>> {
  try {
    const rows: unknown[] = await askD1(env.DB, async (d) => {
      const repeated = idempotency ? [selectAnswer(d, actor, idempotency.key, nowMs)] : [];
      const [first, ...rest] = [...reads(d), ...repeated];
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
  return succeed({ status, body: describe(kept, shown, byId(ids, clients)), replayed: true });
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

/** What `If-Match` may be. */
export const etagRule = /^(?:\*|(?:W\/)?"(\d{1,15})")$/;

/**
 * The revision of an `If-Match` (`"7"`); null without one, or for `*`. `W/"7"` counts as well, other than RFC 9110 has it:
 * ours are strong, and proxies that compress make them weak on the way.
 */
export function readIfMatch(header: string | null): Result<number | null> {
  if (header === null || header === '*') return succeed(null);
  const revision = etagRule.exec(header)?.[1];
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

/** Writes the audit row of what is about to be done. */
export async function note(
  mutation: Mutation,
  action: string,
  target: string,
  detail: Readonly<Record<string, unknown>>,
  plan: Readonly<Record<string, unknown>> = {},
): Promise<Result<Answer>> {
  return mutate(mutation, nothingRead, () =>
    succeed({
      entry: { action, target, detail },
      unchanged: always,
      statements: () => [],
      answer: { status: 201, body: plan },
    }),
  );
}
