// Rounds of sync with one engine: which requests go to the engine, in which order, and what a doubt or a fault leads to.
// A delta with its tail is one round; a full list may take minutes and goes beside them. One of each at a time; whoever
// asks for one while it runs shares the next. Whatever happens upstream, the last good state stays served.

import type { Unreadable } from '../formats/lapi-json.ts';
import { digestOf } from '../crypto/secret.ts';
import type { Settings } from '../config/settings.ts';
import { withinCeiling } from './ceiling.ts';
import type { EngineKey, EngineKeys } from './keys.ts';
import type { EngineState } from '../mirror/engines.sql.ts';
import * as progress from '../mirror/progress.ts';
import type { Link, LinkState, Progress } from '../mirror/progress.ts';
import { shared } from '../runtime/shared.ts';
import { commitSync, engineState, saveProgress, type Store } from '../mirror/mirror.ts';
import { beliefs, createPlanner, type Belief, type RoundKind } from './plan.ts';
import * as upstream from './upstream.ts';
import type { Plan } from '../mirror/plan.ts';

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
  /** Runs a round: a delta, the tail where it is due, and the full list where it is due or asked for. */
  run(ask?: { readonly full?: boolean; readonly belief?: Belief }): Promise<RoundResult>;
  /** Runs a round that sees what a machine wrote at the engine just now. All who wait for one share it. */
  runAfter(write: Write): Promise<RoundResult>;
  /** Settles when a full list was believed for the first time. */
  readonly known: Promise<void>;
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

/**
 * How far apart our clock and the engine's stamps may be: MariaDB and MySQL keep whole seconds (a ban in the second of
 * a poll is in no delta), the rest is for the way between.
 */
const stampSlackMs = 1_500;
/** LAPI looks back 2 s for what ended; an end whose commit took longer may be in no delta. */
const slowEndMs = 1_500;
/** A full list that is owed for longer comes with the next alarm. */
const mostPatienceMs = 2_000;

const nothing: RoundResult = { ok: true, added: 0, removed: 0, error: null, doubt: null };

export function createRounds(
  storage: DurableObjectStorage,
  store: Store,
  settings: Settings,
  engine: upstream.Reached & { readonly handle: string },
  keys: EngineKeys,
): Rounds {
  const { handle } = engine;
  const state = (): EngineState => engineState(store, handle);
  const now = (): Progress => state().progress;
  const save = (change: Partial<Progress>): void =>
    saveProgress(storage, store, handle, { ...now(), ...change });
  const known = Promise.withResolvers<void>();
  if (state().lastResyncMs > 0) known.resolve();
  /** Kinds of elements that can't be read, of which the log has told. */
  const named = new Set<string>();
  /** Whether the engine answered the newest delta, and to us: one that does not has no list for us either. */
  let answers = true;

  /** The log has what changes, once: whoever reads it at night has no status to compare it with. */
  const linked = (list: 'delta' | 'full', linkState: LinkState, error: string | null): Link => {
    const before = now()[list];
    const wasWell = before.error === null;
    if (error === null ? !wasWell : wasWell || before.state !== linkState) {
      const well = before.state === 'ok' ? 'it is believed again' : 'it answers again';
      console.error(`engine ${engine.name}: ${error ?? well}`);
    }
    return { state: linkState, error };
  };

  const failed = (kind: RoundKind, pull: upstream.Pull & { readonly ok: false }): RoundResult => {
    const { startedMs } = pull;
    const error = pull.failure.kind === 'unavailable' ? pull.failure.problem : pull.failure.kind;
    const link = linked(kind === 'full' ? 'full' : 'delta', pull.refused ? 'refused' : 'failing', error);
    const { failures, lateLists, lateDeltas } = now();
    const urgency = progress.urgent(now().urgency, 'spared');
    if (kind === 'full') {
      const listMs = Date.now();
      const late = pull.late ? lateLists + 1 : 0;
      const attempt = { listMs, listTookMs: listMs - startedMs, failures: failures + 1, lateLists: late };
      save({ full: link, urgency, ...attempt });
    } else {
      answers = !pull.away && !pull.refused;
      save({ delta: link, urgency, lateDeltas: pull.late ? lateDeltas + 1 : 0, roundMs: startedMs });
    }
    return { ...nothing, ok: false, error };
  };

  /** One request and its plan, applied. `idGreaterThan`: of a tail. */
  const pullAndApply = async (
    kind: RoundKind,
    from: upstream.Engine,
    belief: Belief,
    idGreaterThan = 0,
  ): Promise<RoundResult> => {
    const isFirst = state().lastResyncMs === 0;
    const planner = createPlanner(store.mirror, {
      kind,
      engine: handle,
      sequence: store.mirror.sequence,
      trusted: state().trusted,
      moved: !['', engine.url].includes(state().url),
      held: state().held,
      belief,
      most: settings.maxDecisions,
    });
    const passedOver: Unreadable[] = [];
    let skipped = 0;
    let ignored = false;
    const reader: upstream.Reader = {
      take(list, decision, spreadMs) {
        if (kind === 'tail' && decision.id <= idGreaterThan) ignored = true;
        else planner.take(list, decision, spreadMs);
      },
      passOver(list, element) {
        skipped++;
        if (!passedOver.some(({ problem }) => problem === element.problem)) passedOver.push(element);
        planner.passOver(list, element.id);
      },
    };
    const timeoutMs = from.timeoutMs;
    const pull = await (kind === 'delta'
      ? upstream.pullDelta(from, progress.deltaPatienceMs(now(), timeoutMs), reader)
      : kind === 'full'
        ? upstream.pullFull(from, progress.listPatienceMs(now(), timeoutMs), reader)
        : upstream.pullTail(from, idGreaterThan, progress.deltaPatienceMs(now(), timeoutMs), reader));
    if (!pull.ok) return failed(kind, pull);
    const { startedMs: startMs } = pull;
    // No await from here on: the plan is made and applied against one and the same mirror.
    const nowMs = Date.now();
    const { plan, leftOut } = withinCeiling(planner.finish(nowMs), store.mirror, settings.maxDecisions);
    nameSkipped(passedOver);
    const held = kind === 'full' ? plan.held : null;
    const told = { engine: handle, url: engine.url, held };
    const link = linked(kind === 'full' ? 'full' : 'delta', 'ok', plan.doubt ?? null);
    const about = {
      kind,
      plan,
      link,
      startMs,
      nowMs,
      isFirst,
      skipped,
      leftOut,
      sample: sampleOf(passedOver),
      ignored,
    };
    commitSync(storage, store, { ...plan, ...told, progress: (after) => progressAfter(after, about) }, nowMs);
    if (state().lastResyncMs > 0) known.resolve();
    return {
      ...nothing,
      added: plan.add.length + plan.renew.length,
      removed: plan.remove.length,
      doubt: plan.doubt ?? null,
    };
  };

  const nameSkipped = (passedOver: readonly Unreadable[]): void => {
    for (const element of passedOver) {
      if (named.has(element.problem)) continue;
      named.add(element.problem);
      console.error(`engine ${engine.name}: left out of its answer: ${describe(element)}`);
    }
  };

  const accepts = (key: string): Promise<boolean> => upstream.acceptsKey(engine, key);
  /** Works with a key, and where the engine refuses that one, with the next that it accepts. */
  const withKey = async (
    key: EngineKey | null,
    work: (from: upstream.Engine, key: EngineKey) => Promise<RoundResult>,
  ): Promise<RoundResult> => {
    const workWith = (each: EngineKey): Promise<RoundResult> =>
      work({ ...engine, apiKey: each.key, keyName: each.name }, each);
    if (!key) {
      answers = false;
      return { ...nothing, ok: false, error: keys.problem() };
    }
    const result = await workWith(key);
    if (now().delta.state !== 'refused' && now().full.state !== 'refused') return result;
    const other = await keys.choose(accepts, true);
    if (!other || other.key === key.key) return result;
    return sum({ ...result, ok: true, error: null }, await workWith(other));
  };

  /** The place in the engine's stream, where this key has none of ours yet. */
  const placeCursor = async (from: upstream.Engine): Promise<RoundResult> => {
    const head = (await digestOf(from.apiKey)).slice(0, 16);
    if (now().cursorOf === head) return nothing;
    const touch = await upstream.touchCursor(from);
    if (!touch.ok) return failed('delta', touch);
    // The cursor of this key begins here: what came since the last pull with another one is in no delta of it.
    save({ cursorOf: head, urgency: 'now' });
    return nothing;
  };

  const syncOnce = async (): Promise<RoundResult> =>
    withKey(await keys.choose(accepts, false), async (from, key) => {
      const placed = await placeCursor(from);
      if (!placed.ok) return placed;
      // LAPI stamps a decision before it waits for its database: a delta pulled between stamp and commit has
      // passed it by, and no later one has it.
      const { writtenMs, deltaMs } = now();
      // The answer to a delta that is still open was lost: only a full list has what it carried.
      const urgency = now().deltaOpen ? progress.urgent(now().urgency, 'spared') : now().urgency;
      save({ roundMs: Date.now(), deltaOpen: true, writtenMs: null, urgency });
      const delta = await pullAndApply('delta', from, 'judge');
      if (!delta.ok) return delta;
      answers = true;
      keys.noteAnswered(key);
      const tail = progress.tailFrom(now().tail, settings, writtenMs !== null, Date.now());
      const raced = writtenMs !== null && writtenMs - stampSlackMs <= deltaMs;
      const reaches =
        writtenMs !== null && progress.tailReaches(now().tail, writtenMs - stampSlackMs, Date.now());
      const done = tail === null ? delta : sum(delta, await pullAndApply('tail', from, 'judge', tail));
      // An engine that ignores `id_gt` may have shown so just now.
      const found = tail !== null && reaches && progress.knowsTail(now().tail, Date.now());
      if (raced && !found) save({ listOwed: true });
      return done;
    });

  const sync = shared(syncOnce);
  let belief: Belief = 'judge';
  const list = shared(() => {
    const asked = belief;
    belief = 'judge';
    // The one that the delta before it was pulled with.
    return withKey(keys.current(), (from) => {
      save({ listOwed: false });
      return pullAndApply('full', from, asked);
    });
  });

  const listDueMs = (): number => progress.listDueInMs(now(), settings, state().lastResyncMs > 0, Date.now());
  const owedInMs = (): number => (now().listOwed ? progress.owedInMs(now(), Date.now()) : Infinity);

  const run: Rounds['run'] = async ({ full = false, belief: asked = 'judge' } = {}) => {
    const delta = await sync.next();
    if (!delta.ok && !answers) return delta;
    if (full) {
      if (beliefs.indexOf(asked) > beliefs.indexOf(belief)) belief = asked;
      return sum(delta, await list.next());
    }
    if (list.running() || (listDueMs() > 0 && owedInMs() > 0)) return delta;
    return sum(delta, await list.next());
  };

  return {
    state() {
      const { delta, full } = now();
      if (keys.state().source === null) return { link: 'waiting-for-key', lastError: keys.problem() };
      return { link: delta.state === 'ok' ? full.state : delta.state, lastError: delta.error ?? full.error };
    },
    run,
    known: known.promise,
    async runAfter({ effect, certain, tookMs }) {
      if (effect === 'added') {
        const fromMs = Date.now() - tookMs;
        save({ writtenMs: Math.min(now().writtenMs ?? Infinity, fromMs) });
      }
      const full = effect === 'dropped' || (effect === 'ended' && tookMs >= slowEndMs);
      const doubted = state().held.size > 0;
      const done = await run({ full });
      // What was dropped may be most of the list, or all of it. What was doubted before was so for another reason.
      if (effect === 'dropped' && done.doubt !== null) {
        return run({ full, belief: certain && !doubted ? 'own' : 'judge' });
      }
      const waitMs = owedInMs();
      if (waitMs > mostPatienceMs) return done;
      await scheduler.wait(waitMs);
      return run();
    },
  };
}

interface Answered {
  readonly kind: RoundKind;
  readonly plan: Plan;
  readonly link: Link;
  readonly startMs: number;
  readonly nowMs: number;
  /** No full list was believed before it. */
  readonly isFirst: boolean;
  readonly skipped: number;
  readonly leftOut: number;
  readonly sample: string | null;
  /** A tail had what it was not asked for. */
  readonly ignored: boolean;
}

/** How far the rounds have come with this answer. `state`: of the engine, with the answer in it. */
function progressAfter(
  { progress: before, highestId, held }: EngineState,
  { kind, plan, link, startMs, nowMs, isFirst, skipped, leftOut, sample, ignored }: Answered,
): Progress {
  const doubted = plan.doubt !== undefined;
  // What there was no room for is known as well: it is not to be asked for again.
  const knownId = Math.max(highestId, plan.highestId);
  const skippedSince = { count: before.skipped.count + skipped, sample: sample ?? before.skipped.sample };
  if (kind === 'full') {
    const doubts = held.size > 0 ? before.doubts + 1 : 0;
    return {
      ...before,
      full: link,
      listMs: nowMs,
      listTookMs: nowMs - startMs,
      failures: 0,
      lateLists: 0,
      doubts,
      // The second list decides. What even that one does not is asked for again at the engine's pace.
      urgency: doubts === 0 ? 'none' : doubts === 1 ? 'now' : 'spared',
      missedMs: plan.add.length > 0 && !isFirst ? nowMs : before.missedMs,
      tail: progress.marked(before.tail, knownId, startMs),
      skipped: { count: skipped, sample },
      leftOut,
    };
  }
  const urgency = doubted ? progress.urgent(before.urgency, 'now') : before.urgency;
  if (kind === 'delta') {
    return {
      ...before,
      delta: link,
      deltaOpen: false,
      deltaMs: nowMs,
      lateDeltas: 0,
      urgency,
      skipped: skippedSince,
      leftOut: before.leftOut + leftOut,
    };
  }
  const found = plan.add.length > 0;
  return {
    ...before,
    delta: link,
    urgency,
    tail: {
      ...progress.marked(before.tail, knownId, startMs),
      endMs: nowMs,
      tookMs: nowMs - startMs,
      foundMs: found ? nowMs : before.tail.foundMs,
      ignoredMs: ignored ? nowMs : 0,
    },
  };
}

function describe({ id, problem }: Unreadable): string {
  return id === null ? `an element ${problem}` : `decision ${id} ${problem}`;
}

function sampleOf([first]: readonly Unreadable[]): string | null {
  return first ? describe(first) : null;
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
