// Bans, unbans and syncs by operators. The decision lives in the feed's object, its audit row in D1: the row is written
// first, so what can't be recorded does not happen. A crash between the two leaves the row of a change that did
// not happen; nothing is ever changed without a row.

import { askFeed } from '../env.ts';
import { always } from '../store/audit.sql.ts';
import { succeed, type Result } from '../http/failure.ts';
import type { Decision } from '../formats/decision.ts';
import type { Removal } from '../mirror/local.ts';
import type { SyncAsk } from '../feed/questions.ts';
import type { RoundResult } from '../engines/rounds.ts';
import { isoTime } from '../bouncers/describe.ts';
import type { DecisionMatch, NewDecision } from './input.ts';
import { mutate, nothingRead, type Answer, type Mutation } from '../operations/mutate.ts';
import { settleStore } from '../operations/settle.ts';

export interface Banned {
  readonly decision: Decision;
  readonly replayed: boolean;
}

/**
 * Bans. With an `Idempotency-Key` a repetition gets the decision of the first time, and is what makes it if the first
 * time stopped half-way.
 */
export async function ban(env: Env, mutation: Mutation, asked: NewDecision): Promise<Result<Banned>> {
  const { durationMs, ...target } = asked;
  // Kept with the answer: a repetition asks the feed for the same, to the same end.
  const plan = { request: crypto.randomUUID(), until_ms: mutation.nowMs + durationMs };
  const { value, type, scope, scenario } = target;
  const detail = { type, scope, scenario, until: isoTime(plan.until_ms) };
  const noted = await note(mutation, 'decision.ban', value, detail, plan);
  if (!noted.ok) return noted;
  const { request, until_ms: untilMs } = noted.value.body as typeof plan;
  const decision = await askFeed(env, async (feed) => feed.addLocal({ ...target, untilMs }, request));
  return succeed({ decision, replayed: noted.value.replayed ?? false });
}

/** Takes back what was decided here. Without an `Idempotency-Key`: done twice it does no more than once. */
export async function unban(env: Env, mutation: Mutation, match: DecisionMatch): Promise<Result<Removal>> {
  const { value, ...detail } = match;
  const noted = await note({ ...mutation, idempotency: null }, 'decision.unban', value, detail);
  if (!noted.ok) return noted;
  // Asked again, when the object went away over it, it says what it did at first.
  const request = crypto.randomUUID();
  return succeed(await askFeed(env, async (feed) => feed.removeLocal(match, request)));
}

/** One round of sync now, which is a change when an engine has one. */
export async function syncFeed(env: Env, mutation: Mutation, ask: SyncAsk): Promise<Result<RoundResult>> {
  const { engine, full, believe } = ask;
  const detail = { full, believe, ...(engine === undefined ? {} : { engine }) };
  const noted = await note({ ...mutation, idempotency: null }, 'feed.sync', 'feed', detail);
  if (!noted.ok) return noted;
  return succeed(await askFeed(env, async (feed) => feed.sync(ask)));
}

/** That the log breaks off somewhere is known to an operator, and `GET /audit/verify` may say so and be content. */
export async function acknowledgeLostTails(env: Env, mutation: Mutation): Promise<Result<number>> {
  // Of a D1 that was restored just now the break may not be known yet.
  await settleStore(env);
  const lost = await askFeed(env, async (feed) => feed.lostTails());
  const open = lost.filter(({ acknowledgedMs }) => acknowledgedMs === null);
  const last = open.at(-1);
  if (!last) return succeed(0);
  const rows = open.map(({ seq, goesOnAt }) => ({ ended_at: seq, goes_on_at: goesOnAt }));
  const target = `row ${last.goesOnAt}`;
  const noted = await note({ ...mutation, idempotency: null }, 'audit.acknowledge', target, { rows });
  if (!noted.ok) return noted;
  await askFeed(env, async (feed) => feed.acknowledgeLostTails(last.foundMs));
  return succeed(open.length);
}

/** Writes the audit row of what is about to be done. */
async function note(
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
