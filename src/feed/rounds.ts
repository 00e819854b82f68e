// Rounds of sync: which requests go to the engine, in which order, and what a doubt or a fault leads to.
// One round at a time; whoever asks for one while it runs shares it or the next. Whatever happens upstream,
// the last good state stays served.

import type { Settings } from '../settings.ts';
import { commit, type Store } from './store.ts';
import { createPlanner, type RoundKind } from './sync.ts';
import * as upstream from './upstream.ts';
import type { UpstreamKeys } from './upstream-key.ts';

/**
 * `refused`: the engine does not know our key. `waiting-for-key`: a host is to send it one day. `failing`: anything else
 * went wrong in the newest round.
 */
export type UpstreamState = 'none' | 'cold' | 'waiting-for-key' | 'ok' | 'failing' | 'refused';

/** What one round did; `doubt` says what was held back and why. */
export interface RoundResult {
  readonly ok: boolean;
  readonly added: number;
  readonly removed: number;
  readonly error: string | null;
  readonly doubt: string | null;
}

export interface Rounds {
  state(): { readonly upstream: UpstreamState; readonly lastError: string | null };
  /** Runs a round: a delta, and the full list or the tail where they are due or asked for. */
  run(ask?: { readonly full?: boolean; readonly believe?: boolean }): Promise<RoundResult>;
}

interface Running {
  readonly full: boolean;
  readonly believe: boolean;
  readonly done: Promise<RoundResult>;
}

const nothing: RoundResult = { ok: true, added: 0, removed: 0, error: null, doubt: null };

export function createRounds(
  storage: DurableObjectStorage,
  store: Store,
  settings: Settings,
  keys: UpstreamKeys,
): Rounds {
  const { upstream: address } = settings;
  // Of deltas and of full lists apart: a good delta does not mend a full list that failed or is doubted.
  const health = { delta: address ? 'cold' : 'none', full: 'ok' } as Record<'delta' | 'full', UpstreamState>;
  const errors: Record<'delta' | 'full', string | null> = { delta: null, full: null };
  // A fresh start may have lost an answer that the engine counts as delivered: compare everything first.
  let resyncDue = true;
  let touched = false;
  let held: ReadonlySet<number> = new Set();
  let running: Running | null = null;
  let tail: { honoured: boolean; lastMs: number; olderId: number; newerId: number } | null = null;

  const failed = (kind: RoundKind, pull: upstream.Pull & { readonly ok: false }): RoundResult => {
    const error = pull.failure.kind === 'unavailable' ? pull.failure.problem : pull.failure.kind;
    resyncDue = true;
    note(kind, pull.refused ? 'refused' : 'failing', error);
    return { ...nothing, ok: false, error };
  };

  const note = (kind: RoundKind, state: UpstreamState, error: string | null): void => {
    const list = kind === 'full' ? 'full' : 'delta';
    health[list] = state;
    errors[list] = error;
  };

  /** One request and its plan, applied. */
  const pullAndApply = async (
    kind: RoundKind,
    from: upstream.Upstream,
    believe: boolean,
  ): Promise<RoundResult> => {
    const { sequence } = store.mirror;
    const planner = createPlanner(store.mirror, {
      kind,
      sequence,
      trusted: store.state.trusted,
      held,
      believe,
    });
    const idGreaterThan = tail?.olderId ?? 0;
    let tailIgnored = false;
    const take: upstream.Take = (list, decision) => {
      if (kind === 'tail' && decision.id <= idGreaterThan) tailIgnored = true;
      else planner.take(list, decision);
    };
    const pull = await (kind === 'delta'
      ? upstream.pullDelta(from, take)
      : kind === 'full'
        ? upstream.pullFull(from, take)
        : upstream.pullTail(from, idGreaterThan, take));
    if (!pull.ok) return failed(kind, pull);
    if (tail && tailIgnored) tail.honoured = false;
    // No await from here on: the plan is made and applied against one and the same mirror.
    const nowMs = Date.now();
    const plan = planner.finish(nowMs);
    held = plan.held;
    commit(storage, store, plan, nowMs, { believed: kind === 'full' && held.size === 0 });
    if (kind === 'full') resyncDue = held.size > 0;
    else if (plan.doubt) resyncDue = true;
    note(kind, 'ok', plan.doubt ?? null);
    return {
      ...nothing,
      added: plan.add.length + plan.renew.length,
      removed: plan.remove.length,
      doubt: plan.doubt ?? null,
    };
  };

  const tailDue = (nowMs: number): boolean => {
    tail ??= {
      honoured: true,
      lastMs: nowMs,
      olderId: store.state.highestId,
      newerId: store.state.highestId,
    };
    if (!tail.honoured || nowMs - tail.lastMs < settings.tailIntervalMs) return false;
    // Ids are given out before their rows are committed: ask from where the tail before last began.
    tail = { honoured: true, lastMs: nowMs, olderId: tail.newerId, newerId: store.state.highestId };
    return tail.olderId > 0;
  };

  const round = async (full: boolean, believe: boolean): Promise<RoundResult> => {
    if (!address) return nothing;
    const chosen = await keys.choose(async (key) => (await upstream.touchCursor({ ...address, key })).ok);
    if (!chosen) {
      const error = 'no host has sent the key of the engine yet, and UPSTREAM_API_KEY is not set';
      note('delta', 'waiting-for-key', error);
      return { ...nothing, ok: false, error };
    }
    const engine = { ...address, key: chosen.key };
    // The engine tells a new key nothing of what happened before: compare everything.
    if (chosen.isNew) touched = resyncDue = true;
    if (!touched) {
      const touch = await upstream.touchCursor(engine);
      if (!touch.ok) return failed('delta', touch);
      touched = true;
    }
    const delta = await pullAndApply('delta', engine, false);
    if (!delta.ok) return delta;
    if (full || resyncDue || Date.now() - store.state.lastResyncMs >= settings.resyncIntervalMs) {
      return sum(delta, await pullAndApply('full', engine, believe));
    }
    return tailDue(Date.now()) ? sum(delta, await pullAndApply('tail', engine, false)) : delta;
  };

  const start = (full: boolean, believe: boolean): Promise<RoundResult> => {
    const done = round(full, believe).finally(() => {
      running = null;
    });
    running = { full, believe, done };
    return done;
  };

  return {
    state: () => ({
      upstream: health.delta === 'ok' ? health.full : health.delta,
      lastError: errors.delta ?? errors.full,
    }),
    async run({ full = false, believe = false } = {}) {
      // A round under way may have asked the engine before the change that the caller wants to see: it waits
      // for that one and then shares the next.
      await running?.done;
      while (running) {
        const { done } = running;
        if ((running.full || !full) && (running.believe || !believe)) return done;
        await done;
      }
      return start(full, believe);
    },
  };
}

function sum(a: RoundResult, b: RoundResult): RoundResult {
  return {
    ok: a.ok && b.ok,
    added: a.added + b.added,
    removed: a.removed + b.removed,
    error: b.error ?? a.error,
    doubt: b.doubt,
  };
}
