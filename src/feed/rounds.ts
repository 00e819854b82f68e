// Rounds of sync with one engine: which requests go to the engine, in which order, and what a doubt or a fault leads to.
// One round at a time; whoever asks for one while it runs shares it or the next. Whatever happens upstream,
// the last good state stays served.

import type { EngineSettings } from '../engines.ts';
import type { Settings } from '../settings.ts';
import type { EngineKey, EngineKeys } from './engine-keys.ts';
import type { EngineState } from './log.ts';
import { commitSync, engineState, type Store } from './store.ts';
import { beliefs, createPlanner, type Belief, type RoundKind } from './sync.ts';
import * as upstream from './upstream.ts';

/**
 * `waiting-for-key`: there is nothing to ask the engine with. `refused`: it does not know our key. `failing`: anything
 * else went wrong in the newest round.
 */
export const linkStates = ['waiting-for-key', 'cold', 'ok', 'failing', 'refused'] as const;
export type LinkState = (typeof linkStates)[number];

/** What one round did; `doubt` says what was held back and why. */
export interface RoundResult {
  readonly ok: boolean;
  readonly added: number;
  readonly removed: number;
  readonly error: string | null;
  readonly doubt: string | null;
}

export interface Rounds {
  state(): { readonly link: LinkState; readonly lastError: string | null };
  /** Runs a round: a delta, and the full list or the tail where they are due or asked for. */
  run(ask?: { readonly full?: boolean; readonly belief?: Belief }): Promise<RoundResult>;
  /** Runs a round that sees what a machine wrote at the engine just now. All who wait for one share it. */
  runAfter(write: Write): Promise<RoundResult>;
}

/** What a machine wrote through us, once the engine had acknowledged it. */
export interface Write {
  /** It brought decisions (an alert), ended some, or dropped them with their alerts, of which no delta tells. */
  readonly effect: 'added' | 'ended' | 'dropped';
  /** Whether the engine says that it did something: that something is missing then is no surprise. */
  readonly certain: boolean;
  /** From the request to the engine's answer. */
  readonly tookMs: number;
}

/** How far the Worker's clock and ours, and the way between, may be apart. */
const clockSlackMs = 500;
/** LAPI looks back 2 s for what ended; an end whose commit took longer may be in no delta. */
const slowEndMs = 1_500;
/** Full lists that a write asks for take at most one part in this many of the engine's time. */
const fullListShare = 10;
/** A full list that is owed for longer comes with the next alarm. */
const mostPatienceMs = 2_000;

interface Running {
  readonly full: boolean;
  readonly belief: Belief;
  readonly done: Promise<RoundResult>;
}

const nothing: RoundResult = { ok: true, added: 0, removed: 0, error: null, doubt: null };

export function createRounds(
  storage: DurableObjectStorage,
  store: Store,
  settings: Settings,
  engine: EngineSettings & { readonly handle: string },
  keys: EngineKeys,
): Rounds {
  const { handle } = engine;
  const known = (): EngineState => engineState(store, handle);
  // Of deltas and of full lists apart: a good delta does not mend a full list that failed or is doubted.
  const health: Record<'delta' | 'full', LinkState> = { delta: 'cold', full: 'ok' };
  const errors: Record<'delta' | 'full', string | null> = { delta: null, full: null };
  // A fresh start may have lost an answer that the engine counts as delivered: compare everything first.
  let resyncDue = true;
  let touched: string | null = null;
  let held: ReadonlySet<number> = new Set();
  let running: Running | null = null;
  // Since when machines have written what no round has looked for.
  let writtenFromMs = Infinity;
  let deltaEndMs = -Infinity;
  // A write may be in no delta and in no tail: the full list has it, when the engine can stand one.
  let fullOwed = false;
  let fullList = { endMs: -Infinity, tookMs: 0 };
  let tail: {
    honoured: boolean;
    lastMs: number;
    olderId: number;
    /** When no higher id than `olderId` had been seen. */
    olderMs: number;
    newerId: number;
  } | null = null;

  const failed = (kind: RoundKind, pull: upstream.Pull & { readonly ok: false }): RoundResult => {
    const error = pull.failure.kind === 'unavailable' ? pull.failure.problem : pull.failure.kind;
    resyncDue = true;
    note(kind, pull.refused ? 'refused' : 'failing', error);
    return { ...nothing, ok: false, error };
  };

  /** The log has what changes, once: whoever reads it at night has no status to compare it with. */
  const note = (kind: RoundKind, state: LinkState, error: string | null): void => {
    const list = kind === 'full' ? 'full' : 'delta';
    const wasWell = errors[list] === null;
    if (error === null ? !wasWell : wasWell || health[list] !== state) {
      const well = health[list] === 'ok' ? 'it is believed again' : 'it answers again';
      console.error(`engine ${engine.name}: ${error ?? well}`);
    }
    health[list] = state;
    errors[list] = error;
  };

  /** One request and its plan, applied. */
  const pullAndApply = async (
    kind: RoundKind,
    from: upstream.Engine,
    belief: Belief,
  ): Promise<RoundResult> => {
    const { sequence } = store.mirror;
    const planner = createPlanner(store.mirror, {
      kind,
      engine: handle,
      sequence,
      trusted: known().trusted,
      moved: !['', engine.url].includes(known().url),
      held,
      belief,
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
    const believed = kind === 'full' && held.size === 0;
    commitSync(storage, store, { ...plan, engine: handle, url: engine.url, believed }, nowMs);
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
      olderId: known().highestId,
      olderMs: nowMs,
      newerId: known().highestId,
    };
    if (!tail.honoured || nowMs - tail.lastMs < settings.tailIntervalMs) return false;
    // Ids are given out before their rows are committed: ask from where the tail before last began.
    const { newerId: olderId, lastMs: olderMs } = tail;
    tail = { honoured: true, lastMs: nowMs, olderId, olderMs, newerId: known().highestId };
    return tail.olderId > 0;
  };

  const round = async (full: boolean, belief: Belief): Promise<RoundResult> => {
    const accepts = (key: string): Promise<boolean> => upstream.acceptsKey(engine, key);
    const roundWith = (key: EngineKey): Promise<RoundResult> =>
      pullAll({ ...engine, apiKey: key.key, keyName: key.name }, key, full, belief);
    const key = await keys.choose(accepts, false);
    if (!key) return { ...nothing, ok: false, error: keys.problem() };
    const result = await roundWith(key);
    if (health.delta !== 'refused' && health.full !== 'refused') return result;
    const other = await keys.choose(accepts, true);
    if (!other || other.key === key.key) return result;
    return sum({ ...result, ok: true, error: null }, await roundWith(other));
  };

  const pullAll = async (
    from: upstream.Engine,
    key: EngineKey,
    full: boolean,
    belief: Belief,
  ): Promise<RoundResult> => {
    if (touched !== from.apiKey) {
      const touch = await upstream.touchCursor(from);
      if (!touch.ok) return failed('delta', touch);
      touched = from.apiKey;
      // The cursor of this key begins here: what came since the last pull with another one is in no delta of it.
      resyncDue = true;
    }
    // LAPI stamps a decision before it waits for its database: a delta pulled between stamp and commit has
    // passed it by, and no later one has it.
    const fromMs = writtenFromMs;
    writtenFromMs = Infinity;
    const raced = fromMs - clockSlackMs <= deltaEndMs;
    const delta = await pullAndApply('delta', from, 'judge');
    if (!delta.ok) return delta;
    keys.noteAnswered(key);
    deltaEndMs = Date.now();
    let done = delta;
    const startMs = Date.now();
    if (!full && !resyncDue && startMs < known().lastResyncMs + settings.resyncIntervalMs) {
      const due = tailDue(startMs);
      const tailHasIt = raced && canTail(fromMs);
      if (due || tailHasIt) done = sum(done, await pullAndApply('tail', from, 'judge'));
      // An engine that ignores `id_gt` may have told so just now.
      if (raced && !(tailHasIt && tail?.honoured)) fullOwed = true;
      if (!fullOwed || owedInMs(Date.now()) > 0) return done;
    }
    fullOwed = false;
    const fullMs = Date.now();
    done = sum(done, await pullAndApply('full', from, belief));
    fullList = { endMs: Date.now(), tookMs: Date.now() - fullMs };
    return done;
  };

  /** Whether the tail has every decision of writes that began at `fromMs`: ids are given out in order. */
  const canTail = (fromMs: number): boolean =>
    tail !== null && tail.honoured && tail.olderId > 0 && tail.olderMs < fromMs - clockSlackMs;

  /** How long the engine is spared another full list. */
  const owedInMs = (nowMs: number): number => fullList.endMs + fullListShare * fullList.tookMs - nowMs;

  const start = (full: boolean, belief: Belief): Promise<RoundResult> => {
    const done = round(full, belief).finally(() => {
      running = null;
    });
    running = { full, belief, done };
    return done;
  };

  const run: Rounds['run'] = async ({ full = false, belief = 'judge' } = {}) => {
    // A round under way may have asked the engine before the change that the caller wants to see: it waits
    // for that one and then shares the next.
    await running?.done;
    while (running) {
      const { done } = running;
      const believes = beliefs.indexOf(running.belief) >= beliefs.indexOf(belief);
      if ((running.full || !full) && believes) return done;
      await done;
    }
    return start(full, belief);
  };

  return {
    state() {
      if (keys.state().source === null) {
        return { link: 'waiting-for-key', lastError: keys.problem() };
      }
      return {
        link: health.delta === 'ok' ? health.full : health.delta,
        lastError: errors.delta ?? errors.full,
      };
    },
    run,
    async runAfter({ effect, certain, tookMs }) {
      if (effect === 'added') writtenFromMs = Math.min(writtenFromMs, Date.now() - tookMs);
      const full = effect === 'dropped' || (effect === 'ended' && tookMs >= slowEndMs);
      const doubted = held.size > 0;
      const done = await run({ full });
      // What was dropped may be most of the list, or all of it. What was doubted before was so for another reason.
      if (effect === 'dropped' && done.doubt !== null) {
        return run({ full, belief: certain && !doubted ? 'own' : 'judge' });
      }
      const waitMs = owedInMs(Date.now());
      if (!fullOwed || waitMs > mostPatienceMs) return done;
      await scheduler.wait(Math.max(0, waitMs));
      return run();
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
