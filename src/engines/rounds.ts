// Rounds of sync with one engine: which requests go to it, in which order, and what follows a warning or an error. A round
// is a delta and, if it is due, a tail. A full list may take minutes and runs beside the rounds. Of each kind one runs at
// a time; who asks meanwhile shares the next one. Whatever goes wrong at the engine, the last good state stays served.

import type { Unreadable } from '../formats/lapi-json.ts';
import { digestOf } from '../crypto/secret.ts';
import type { Settings } from '../config/settings.ts';
import type { EngineKey, EngineKeys } from './keys.ts';
import { changedLink } from './link.ts';
import type { EngineState } from '../mirror/engines.sql.ts';
import * as progress from '../mirror/progress.ts';
import type { Link, LinkState, Progress } from '../mirror/progress.ts';
import { shared } from '../runtime/shared.ts';
import { engineState, saveProgress, type Store } from '../mirror/mirror.ts';
import { commitSync, type Plan } from '../mirror/sync.ts';
import { createPlanner, removalPolicies, withinCeiling, type RemovalPolicy, type RoundKind } from './plan.ts';
import * as upstream from './upstream.ts';

/** What one round did. `warning`: what was kept, and why another full list has to confirm it. */
export interface RoundResult {
  readonly ok: boolean;
  readonly added: number;
  readonly removed: number;
  readonly error: string | null;
  readonly warning: string | null;
}

export interface Rounds {
  state(): { readonly link: LinkState; readonly lastError: string | null };
  /** Runs a round: a delta, a tail if it is due, and a full list if it is due or asked for. */
  run(ask?: { readonly full?: boolean; readonly policy?: RemovalPolicy }): Promise<RoundResult>;
  /** Runs a round that sees what a machine has just written at the engine. All who wait for one share it. */
  runAfter(write: Write): Promise<RoundResult>;
  /** Settles when a full list was accepted for the first time. */
  readonly known: Promise<void>;
}

/** What a machine wrote through us, once the engine had acknowledged it. */
export interface Write {
  /** It `added` decisions (an alert), `ended` some, or `dropped` them with their alerts, which no delta shows. */
  readonly effect: 'added' | 'ended' | 'dropped';
  /** The engine says that it did something. So missing decisions are no surprise. */
  readonly certain: boolean;
  /** From the request to the engine's answer. */
  readonly tookMs: number;
}

/**
 * How far our clock and the engine's timestamps may be apart. MariaDB and MySQL keep whole seconds, so a ban in the second
 * of a poll is in no delta; the rest is for the network.
 */
const stampSlackMs = 1_500;
/** LAPI looks back 2 s for decisions that ended. If the commit took longer, no delta may have the end. */
const slowEndMs = 1_500;
/** A full list that is needed but has to wait for longer comes with the next alarm. */
const mostPatienceMs = 2_000;

const nothing: RoundResult = { ok: true, added: 0, removed: 0, error: null, warning: null };

export function createRounds(
  store: Store,
  settings: Settings,
  engine: upstream.Reached & { readonly handle: string },
  keys: EngineKeys,
): Rounds {
  const { handle } = engine;
  const state = (): EngineState => engineState(store, handle);
  const now = (): Progress => state().progress;
  const save = (change: Partial<Progress>): void => saveProgress(store, handle, { ...now(), ...change });
  /** What is known of the engine besides its stored state. A restart may lose it. */
  const live = {
    /** It answered the newest delta. If not, it has no full list for us either. */
    answers: true,
    /** For the next full list. */
    policy: 'confirm' as RemovalPolicy,
    /** Kinds of unreadable elements that are in the log already. */
    logged: new Set<string>(),
    known: Promise.withResolvers<void>(),
  };
  if (state().lastResyncMs > 0) live.known.resolve();

  const linked = (list: 'delta' | 'full', linkState: LinkState, error: string | null): Link =>
    changedLink(`engine ${engine.name}`, now()[list], linkState, error);

  const failed = (kind: RoundKind, pull: upstream.Pull & { readonly ok: false }): RoundResult => {
    const { startedMs, late, away, refused, failure } = pull;
    const error = failure.kind === 'unavailable' ? failure.problem : failure.kind;
    const link = linked(kind === 'full' ? 'full' : 'delta', refused ? 'refused' : 'failing', error);
    const { failures, lateLists, lateDeltas } = now();
    const urgency = progress.urgent(now().urgency, 'spared');
    if (kind === 'full') {
      const listMs = Date.now();
      const attempt = { listMs, listTookMs: listMs - startedMs, lateLists: late ? lateLists + 1 : 0 };
      save({ full: link, urgency, failures: failures + 1, ...attempt });
    } else {
      live.answers = !away && !refused;
      save({ delta: link, urgency, lateDeltas: late ? lateDeltas + 1 : 0, roundMs: startedMs });
    }
    return { ...nothing, ok: false, error };
  };

  /** Makes one request and applies its plan. `idGreaterThan`: of a tail. */
  const pullAndApply = async (
    kind: RoundKind,
    from: upstream.Engine,
    policy: RemovalPolicy,
    idGreaterThan = 0,
  ): Promise<RoundResult> => {
    const { lastResyncMs, trusted, held, url } = state();
    const planner = createPlanner(store.mirror, {
      kind,
      engine: handle,
      sequence: store.mirror.sequence,
      trusted,
      moved: !['', engine.url].includes(url),
      numbered: false,
      held,
      policy,
      most: settings.maxDecisions,
    });
    const unreadable: Unreadable[] = [];
    let skipped = 0;
    let ignored = false;
    const reader: upstream.Reader = {
      take(list, decision, spreadMs) {
        if (kind === 'tail' && decision.id <= idGreaterThan) ignored = true;
        else planner.take(list, decision, spreadMs);
      },
      passOver(list, element) {
        skipped++;
        if (!unreadable.some(({ problem }) => problem === element.problem)) unreadable.push(element);
        planner.passOver(list, element.id);
      },
    };
    const patienceMs = kind === 'full' ? progress.listPatienceMs : progress.deltaPatienceMs;
    const firstByteMs = patienceMs(now(), from.timeoutMs);
    const pull = await (kind === 'delta'
      ? upstream.pullDelta(from, firstByteMs, reader)
      : kind === 'full'
        ? upstream.pullFull(from, firstByteMs, reader)
        : upstream.pullTail(from, idGreaterThan, firstByteMs, reader));
    if (!pull.ok) return failed(kind, pull);
    // No await from here on: the plan is made and applied against one and the same mirror.
    const nowMs = Date.now();
    const plan = withinCeiling(planner.finish(nowMs), handle, store, settings.maxDecisions);
    logUnreadable(unreadable);
    const answered = {
      kind,
      plan,
      link: linked(kind === 'full' ? 'full' : 'delta', 'ok', plan.warning ?? null),
      startedMs: pull.startedMs,
      nowMs,
      isFirst: lastResyncMs === 0,
      skipped: { count: skipped, sample: unreadable[0] ? describe(unreadable[0]) : null },
      ignored,
    };
    const sync = {
      ...plan,
      engine: handle,
      url: engine.url,
      held: kind === 'full' ? plan.held : null,
      progress: (after: EngineState) => progressAfter(after, answered),
    };
    commitSync(store, sync, nowMs);
    if (state().lastResyncMs > 0) live.known.resolve();
    const added = plan.add.length + plan.renew.length;
    return { ...nothing, added, removed: plan.remove.length, warning: plan.warning ?? null };
  };

  const logUnreadable = (elements: readonly Unreadable[]): void => {
    for (const element of elements) {
      if (live.logged.has(element.problem)) continue;
      live.logged.add(element.problem);
      console.error(`engine ${engine.name}: left out of its answer: ${describe(element)}`);
    }
  };

  const accepts = (key: string): Promise<boolean> => upstream.acceptsKey(engine, key);
  /** Works with a key and, if the engine refuses it, once more with the next one that it accepts. */
  const withKey = async (
    key: EngineKey | null,
    work: (from: upstream.Engine, key: EngineKey) => Promise<RoundResult>,
  ): Promise<RoundResult> => {
    const workWith = (each: EngineKey): Promise<RoundResult> =>
      work({ ...engine, apiKey: each.key, keyName: each.name }, each);
    if (!key) {
      live.answers = false;
      return { ...nothing, ok: false, error: keys.problem() };
    }
    const result = await workWith(key);
    if (now().delta.state !== 'refused' && now().full.state !== 'refused') return result;
    const other = await keys.choose(accepts, true);
    if (!other || other.key === key.key) return result;
    return sum({ ...result, ok: true, error: null }, await workWith(other));
  };

  /** Sets the cursor of this key in the engine's stream, if that is not done yet. */
  const placeCursor = async (from: upstream.Engine): Promise<RoundResult> => {
    const start = digestOf(from.apiKey).slice(0, 16);
    if (now().cursorOf === start) return nothing;
    const touch = await upstream.touchCursor(from);
    if (!touch.ok) return failed('delta', touch);
    // No delta of this key has what came between the last pull with another key and now.
    save({ cursorOf: start, urgency: 'now' });
    return nothing;
  };

  const syncOnce = async (): Promise<RoundResult> =>
    withKey(await keys.choose(accepts, false), async (from, key) => {
      const placed = await placeCursor(from);
      if (!placed.ok) return placed;
      // LAPI stamps a decision before it waits for its database. If a delta is pulled between stamp and commit, no delta
      // ever has the decision.
      const { writtenMs, deltaMs } = now();
      // The answer to an open delta was lost, and only a full list has what it carried.
      const urgency = now().deltaOpen ? progress.urgent(now().urgency, 'spared') : now().urgency;
      save({ roundMs: Date.now(), deltaOpen: true, writtenMs: null, urgency });
      const delta = await pullAndApply('delta', from, 'confirm');
      if (!delta.ok) return delta;
      live.answers = true;
      keys.noteAnswered(key);
      const stampedMs = writtenMs === null ? Infinity : writtenMs - stampSlackMs;
      const { tail } = now();
      const tailId = progress.tailFrom(tail, settings, writtenMs !== null, Date.now());
      const reaches = writtenMs !== null && progress.tailReaches(tail, stampedMs, Date.now());
      const done = tailId === null ? delta : sum(delta, await pullAndApply('tail', from, 'confirm', tailId));
      // The tail may just have shown that the engine ignores `id_gt`.
      const isFound = tailId !== null && reaches && progress.knowsTail(now().tail, Date.now());
      if (stampedMs <= deltaMs && !isFound) save({ listOwed: true });
      return done;
    });

  const sync = shared(syncOnce);
  const list = shared(() => {
    const { policy } = live;
    live.policy = 'confirm';
    // With the key of the delta before it.
    return withKey(keys.current(), (from) => {
      save({ listOwed: false });
      return pullAndApply('full', from, policy);
    });
  });

  const listDueMs = (): number => progress.listDueInMs(now(), settings, state().lastResyncMs > 0, Date.now());
  /** How long until a full list that a write needs; Infinity: none is needed. */
  const neededInMs = (): number => (now().listOwed ? progress.restLeftMs(now(), Date.now()) : Infinity);

  const run: Rounds['run'] = async ({ full = false, policy = 'confirm' } = {}) => {
    const delta = await sync.next();
    if (!delta.ok && !live.answers) return delta;
    if (full) live.policy = stronger(policy, live.policy);
    else if (list.running() || (listDueMs() > 0 && neededInMs() > 0)) return delta;
    return sum(delta, await list.next());
  };

  return {
    state() {
      const { delta, full } = now();
      if (keys.state().source === null) return { link: 'waiting-for-key', lastError: keys.problem() };
      return { link: delta.state === 'ok' ? full.state : delta.state, lastError: delta.error ?? full.error };
    },
    run,
    known: live.known.promise,
    async runAfter({ effect, certain, tookMs }) {
      if (effect === 'added') {
        save({ writtenMs: Math.min(now().writtenMs ?? Infinity, Date.now() - tookMs) });
      }
      const full = effect === 'dropped' || (effect === 'ended' && tookMs >= slowEndMs);
      const wasHeld = state().held.size > 0;
      const done = await run({ full });
      // The machine may have dropped most of the list. What was held before was missing for another reason.
      if (effect === 'dropped' && done.warning !== null) {
        return run({ full, policy: certain && !wasHeld ? 'same-database' : 'confirm' });
      }
      const waitMs = neededInMs();
      if (waitMs > mostPatienceMs) return done;
      await scheduler.wait(waitMs);
      return run();
    },
  };
}

function stronger(a: RemovalPolicy, b: RemovalPolicy): RemovalPolicy {
  return removalPolicies.indexOf(a) > removalPolicies.indexOf(b) ? a : b;
}

interface Answered {
  readonly kind: RoundKind;
  readonly plan: Plan;
  readonly link: Link;
  readonly startedMs: number;
  readonly nowMs: number;
  /** No full list was accepted before it. */
  readonly isFirst: boolean;
  readonly skipped: Progress['skipped'];
  /** A tail had decisions that were not asked for. */
  readonly ignored: boolean;
}

/** How far the rounds have come with this answer. The engine's state has the answer in it. */
function progressAfter(
  { progress: before, highestId, held }: EngineState,
  { kind, plan, link, startedMs, nowMs, isFirst, skipped, ignored }: Answered,
): Progress {
  const tookMs = nowMs - startedMs;
  // Decisions that were left out are known as well: no tail should ask for them again.
  const tail = (): progress.Tail =>
    progress.marked(before.tail, Math.max(highestId, plan.highestId), startedMs);
  if (kind === 'full') {
    const doubts = held.size > 0 ? before.doubts + 1 : 0;
    return {
      ...before,
      full: link,
      listMs: nowMs,
      listTookMs: tookMs,
      failures: 0,
      lateLists: 0,
      doubts,
      // The second list decides. If even that one does not, the next one comes at the engine's pace.
      urgency: doubts === 0 ? 'none' : doubts === 1 ? 'now' : 'spared',
      missedMs: plan.add.length > 0 && !isFirst ? nowMs : before.missedMs,
      tail: tail(),
      skipped,
      leftOut: plan.leftOut,
    };
  }
  const urgency = plan.warning === undefined ? before.urgency : progress.urgent(before.urgency, 'now');
  if (kind === 'tail') {
    const foundMs = plan.add.length > 0 ? nowMs : before.tail.foundMs;
    const ignoredMs = ignored ? nowMs : 0;
    return { ...before, delta: link, urgency, tail: { ...tail(), endMs: nowMs, tookMs, foundMs, ignoredMs } };
  }
  return {
    ...before,
    delta: link,
    deltaOpen: false,
    deltaMs: nowMs,
    lateDeltas: 0,
    urgency,
    skipped: {
      count: before.skipped.count + skipped.count,
      sample: skipped.sample ?? before.skipped.sample,
    },
    leftOut: before.leftOut + plan.leftOut,
  };
}

function describe({ id, problem }: Unreadable): string {
  return id === null ? `an element ${problem}` : `decision ${id} ${problem}`;
}

/** The result of two requests of one round. */
function sum(a: RoundResult, b: RoundResult): RoundResult {
  return {
    ok: a.ok && b.ok,
    added: a.added + b.added,
    removed: a.removed + b.removed,
    error: b.error ?? a.error,
    warning: b.warning,
  };
}
