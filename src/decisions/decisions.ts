// Bans, unbans and syncs by operators. The decision lives in the feed's object, its audit row in D1: the row is written
// first, so what can't be recorded does not happen. A crash between the two leaves the row of a change that did
// not happen; nothing is ever changed without a row.

import { askFeed } from '../feed/client.ts';
import { succeed, type Result } from '../http/failure.ts';
import type { Decision } from '../formats/decision.ts';
import type { Removal } from '../mirror/local.ts';
import type { SyncAsk } from '../feed/questions.ts';
import type { RoundResult } from '../engines/rounds.ts';
import { isoTime } from '../operations/fields.ts';
import type { DecisionMatch, NewDecision } from './input.ts';
import { type Mutation, note } from '../operations/mutate.ts';

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
