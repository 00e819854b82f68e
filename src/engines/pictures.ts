// Sources that are no engine. Each gives a complete picture of its decisions once in an interval, and nothing between. What
// changes is planned and applied as after a full list of an engine (plan.ts, mirror.ts); this file decides when a source is
// asked, and under which ids its decisions are kept. A mistake here asks a stranger's server too often, or never again.

import type { Settings } from '../config/settings.ts';
import type { HostedSettings, ListSettings } from '../config/upstreams.ts';
import { digestOf } from '../crypto/secret.ts';
import { canonicalValue } from '../formats/canonical.ts';
import { contentKey, decisionOf, sameContent, type Row, type Said } from '../formats/decision.ts';
import { SplitError } from '../formats/json-split.ts';
import { intern } from '../formats/texts.ts';
import type { EngineState } from '../mirror/engines.sql.ts';
import { rowsOf, type Mirror } from '../mirror/memory.ts';
import { engineState, saveProgress, type Store } from '../mirror/mirror.ts';
import { commitSync, type Plan } from '../mirror/sync.ts';
import type { KnownPicture, Progress, Validators } from '../mirror/progress.ts';
import { sinceMs } from '../runtime/clock.ts';
import { changedLink } from './link.ts';
import { pullHosted } from './hosted-pull.ts';
import { failed, pullList, type Answer, type Failed } from './list-pull.ts';
import { valueOf } from './list-text.ts';
import { createPlanner, withinCeiling, type Planner, type RemovalPolicy } from './plan.ts';
import type { RoundResult, Rounds } from './rounds.ts';
import type { Enter } from './upstream.ts';

type In<Kind> = Kind & { readonly handle: string; readonly enter: Enter };
export type Source = In<ListSettings> | In<HostedSettings>;

interface Rules {
  readonly what: string;
  /** A picture that shrank by more than half is asked for again so soon. */
  readonly confirmAfterMs: number;
  /** Whoever wants it, it is not asked more often. */
  readonly leastGapMs: number;
  /** If the object ends in the middle of a pull, the next one is so much later. */
  readonly interruptedMs: number;
}

/** An integration counts what is pulled, so nobody hurries it. */
const pullRules: Readonly<Record<Source['kind'], Rules>> = {
  list: { what: 'the list', confirmAfterMs: 300_000, leastGapMs: 60_000, interruptedMs: 300_000 },
  hosted: {
    what: 'the integration',
    confirmAfterMs: Infinity,
    leastGapMs: Infinity,
    interruptedMs: 3_600_000,
  },
};

/** A publisher's mistake lasts for longer than it takes to fetch the list twice. */
const emptied =
  'is empty, and what it had stays for now. If it is right: "may_be_empty": true in its entry of UPSTREAMS';

const firstBackoffMs = 60_000;
const longestBackoffMs = 3_600_000;
/** So that not all sources are asked at once, nor one by all feeds of the world at the full hour. */
const jitterShare = 1 / 20;
const mostJitterMs = 600_000;
/** An integration that wants to be left alone for longer is asked all the same. */
const longestRetryMs = 7 * 86_400_000;
/** Bans of a list outlast a feed that is gone for half of it. What the list removes ends at once all the same. */
const leastDurationMs = 2 * 86_400_000;
/** They outlast a list that is gone for so long. */
const leastKeptMs = 7 * 86_400_000;
/** An integration that gives more decisions is read no further, where `MAX_DECISIONS` sets no bound. As a list's most. */
const mostHosted = 1_000_000;

const nothing: RoundResult = { ok: true, added: 0, removed: 0, error: null, warning: null };

/** Whether its first pull is over, well or not. */
export function wasPulled({ lastSyncMs, progress }: EngineState): boolean {
  return lastSyncMs > 0 || progress.failures > 0;
}

export function createPictures(store: Store, { maxDecisions }: Settings, source: Source): Rounds {
  const { handle, intervalMs } = source;
  const { what, confirmAfterMs, leastGapMs, interruptedMs } = pullRules[source.kind];
  const key = source.kind === 'hosted' ? source.apiKey : '';
  const from = digestOf(JSON.stringify([source.url, key])).slice(0, 16);
  const who = `${source.kind} ${source.name}`;
  const state = (): EngineState => engineState(store, handle);
  const now = (): Progress => state().progress;
  const save = (change: Partial<Progress>): void => saveProgress(store, handle, { ...now(), ...change });
  const first = Promise.withResolvers<void>();
  if (wasPulled(state())) first.resolve();
  let running: Promise<RoundResult> | null = null;

  const noteFailed = ({ problem, waitMs, refused }: Failed): RoundResult => {
    const { failures, pull, full } = now();
    const error = `${what} ${problem}`;
    const backoffMs = Math.min(intervalMs, longestBackoffMs, firstBackoffMs * 2 ** failures);
    // A server that wants to be left alone for longer is asked all the same: the bans of a list must not end meanwhile.
    const longestMs =
      source.kind === 'list' ? Math.max(intervalMs, durationOf(intervalMs) / 8) : longestRetryMs;
    const nextMs = Math.min(longestMs, Math.max(backoffMs, waitMs ?? 0));
    save({
      full: changedLink(who, full, refused ? 'refused' : 'failing', error),
      failures: failures + 1,
      pull: { ...pull, atMs: Date.now(), waitMs: nextMs },
    });
    if (source.kind === 'list') keepOn(Date.now());
    return { ...nothing, ok: false, error };
  };

  /** What a list bans has no end of its own: while it fails it stands on, for a week after the last good fetch. */
  const keepOn = (nowMs: number): void => {
    const mostMs = state().lastResyncMs + keptMsOf(intervalMs);
    const renew = [...rowsOf(store.mirror, handle).values()].flatMap((row) => {
      const untilMs = Math.min(endOf(row, intervalMs, nowMs), mostMs);
      if (untilMs <= row.untilMs) return [];
      return [{ row, decision: { ...decisionOf(row), id: row.engineId, untilMs } }];
    });
    if (renew.length === 0) return;
    const plan = { add: [], renew, remove: [], orphan: [], held: null, isSilent: true as const };
    const progress = ({ progress: same }: EngineState): Progress => same;
    commitSync(store, { ...plan, engine: handle, url: source.url, progress }, nowMs);
  };

  /** It may mean that nothing is new. So it takes nothing back, and what is known ends when it ends. */
  const foundNothing = (pull: Progress['pull'], nowMs: number): RoundResult => {
    const warning = `${what} says that there is nothing: what it gave before stays until it ends`;
    const full = changedLink(who, now().full, 'ok', warning);
    const progress = ({ progress: before }: EngineState): Progress => ({
      ...before,
      full,
      failures: 0,
      pull,
    });
    const plan = { add: [], renew: [], remove: [], orphan: [], held: null };
    commitSync(store, { ...plan, engine: handle, url: source.url, progress }, nowMs);
    return { ...nothing, warning };
  };

  const pullAndApply = async (policy: RemovalPolicy): Promise<RoundResult> => {
    const startedMs = Date.now();
    // Written before the request goes out: an object that ends meanwhile does not ask again as soon as it starts.
    const openMs = Math.min(intervalMs, interruptedMs);
    save({ roundMs: startedMs, pull: { atMs: startedMs, waitMs: openMs, from } });
    const { mirror } = store;
    const { trusted, held } = state();
    const planner = createPlanner(mirror, {
      kind: 'full',
      engine: handle,
      moved: false,
      numbered: true,
      sequence: mirror.sequence,
      trusted,
      held,
      policy,
      most: maxDecisions,
    });
    const skipped = { count: 0, sample: null as string | null };
    const passOver = (problem: string): void => {
      skipped.count++;
      skipped.sample ??= problem;
    };
    const reading = { mirror, state: state(), planner, startedMs, passOver };
    const answer = await (source.kind === 'list'
      ? readList(source, reading)
      : readHosted(source, reading, maxDecisions));
    if (answer.kind === 'failed') return noteFailed(answer);
    // No await from here on: the plan is made and applied against one and the same mirror.
    const nowMs = Date.now();
    const own = rowsOf(mirror, handle);
    const jitterMs = Math.random() * Math.min(mostJitterMs, intervalMs * jitterShare);
    const pull = { atMs: startedMs, waitMs: intervalMs + jitterMs, from };
    const picture = planner.finish(nowMs, answer.kind !== 'whole' || answer.isMeasured);
    const isEmptied = picture.highestId === 0 && own.size > 0 && policy !== 'force';
    if (answer.kind === 'nothing' || (source.kind === 'hosted' && isEmptied))
      return foundNothing(pull, nowMs);
    if (isEmptied && source.kind === 'list' && !source.mayBeEmpty) {
      return noteFailed(failed(emptied));
    }
    const plan = withinCeiling(picture, handle, store, maxDecisions);
    const full = changedLink(who, now().full, 'ok', plan.warning ?? null);
    const decisions = own.size + plan.add.length - plan.remove.length;
    const knownNow = (list: ListSettings): KnownPicture | null =>
      answer.kind === 'same' ? now().known : knownBy(answer.validators, plan, list, decisions);
    const known = source.kind === 'list' ? knownNow(source) : null;
    const progress = ({ progress: before }: EngineState): Progress => ({
      ...before,
      full,
      failures: 0,
      ...doubt(before.doubts, pull, plan, Math.min(intervalMs, confirmAfterMs)),
      skipped: answer.kind === 'same' ? before.skipped : skipped,
      leftOut: plan.leftOut,
      known,
    });
    commitSync(store, { ...plan, engine: handle, url: source.url, progress }, nowMs);
    const added = plan.add.length + plan.renew.length;
    return { ...nothing, added, removed: plan.remove.length, warning: plan.warning ?? null };
  };

  /** How long until the next pull. A clock that was set back makes the wait begin anew: it is neither endless nor over. */
  const dueInMs = (nowMs: number): number => {
    const { pull } = now();
    // With another address or key it was not asked yet.
    if (pull.atMs === 0 || (pull.from ?? from) !== from) return 0;
    const passedMs = sinceMs(pull.atMs, nowMs);
    if (passedMs < Infinity) return Math.max(0, pull.waitMs - passedMs);
    save({ pull: { ...pull, atMs: nowMs } });
    return pull.waitMs;
  };

  const run: Rounds['run'] = async ({ full = false, policy = 'confirm' } = {}) => {
    if (running) return running;
    const nowMs = Date.now();
    const dueMs = dueInMs(nowMs);
    const restMs = Math.min(dueMs, leastGapMs - sinceMs(now().pull.atMs, nowMs));
    if (dueMs > 0 && !full) return nothing;
    if (restMs > 0) return { ...nothing, warning: `${what} may be asked again in ${spanOf(restMs)}` };
    running = pullAndApply(policy).finally(() => {
      running = null;
      if (wasPulled(state())) first.resolve();
    });
    return running;
  };

  return {
    state() {
      const { full } = now();
      return { link: wasPulled(state()) ? full.state : 'cold', lastError: full.error };
    },
    run,
    known: first.promise,
    runAfter: () => run(),
  };
}

/** A pull that is under way, and where what it says goes. */
interface Reading {
  readonly mirror: Mirror;
  /** When it began. */
  readonly state: EngineState;
  readonly startedMs: number;
  readonly planner: Planner;
  /** Something that can't be read. */
  readonly passOver: (problem: string) => void;
}

async function readList(source: In<ListSettings>, reading: Reading): Promise<Answer> {
  const { mirror, state, planner, startedMs, passOver } = reading;
  const numbered = createNumbers(mirror, state, source.handle, ({ value }) => value);
  const take = (said: Said): void => {
    const { row, id } = numbered(said);
    planner.take('new', { ...said, id, untilMs: endOf(row, source.intervalMs, startedMs) });
  };
  const scenario = intern(source.name);
  const answer = await pullList(source, conditionOf(state, mirror, source), {
    take: (network) => take({ ...valueOf(network), origin: 'lists', scenario, type: 'ban' }),
    passOver,
  });
  if (answer.kind === 'same') {
    for (const row of rowsOf(mirror, source.handle).values()) take(decisionOf(row));
  }
  return answer;
}

/** An integration's decisions are as it gives them. Of two that say the same the longer one counts. */
function readHosted(source: In<HostedSettings>, reading: Reading, maxDecisions: number): Promise<Answer> {
  const { mirror, state, planner, passOver } = reading;
  const { handle } = source;
  const numbered = createNumbers(mirror, state, handle, (said) => contentKey({ ...said, engine: handle }));
  const ends = new Map<number, number>();
  const most = maxDecisions === Infinity ? mostHosted : 2 * maxDecisions;
  return pullHosted(source, {
    take(list, decision, spreadMs) {
      if (list === 'deleted') return;
      const { id } = numbered(decision);
      const endMs = ends.get(id) ?? 0;
      ends.set(id, Math.max(endMs, decision.untilMs));
      if (ends.size > most) throw new SplitError(`more than ${most} decisions (see MAX_DECISIONS)`);
      if (endMs < decision.untilMs) planner.take('new', { ...decision, id }, spreadMs);
    },
    passOver(list, { problem }) {
      passOver(`an element ${problem}`);
      // Its number is not ours: it may be any of the decisions that are missing.
      planner.passOver(list, null);
    },
  });
}

/**
 * When a ban ends that the picture has. A renewal is a change that every bouncer gets, so there is none before half of the
 * time is over. What is left after each good pull is more than twice the interval.
 */
function endOf(row: Row | undefined, intervalMs: number, nowMs: number): number {
  const durationMs = durationOf(intervalMs);
  return row && row.untilMs - nowMs > durationMs / 2 ? row.untilMs : nowMs + durationMs;
}

function durationOf(intervalMs: number): number {
  return Math.max(leastDurationMs, 6 * intervalMs);
}

/** No shorter than a duration: nothing ends sooner since its list has failed. */
function keptMsOf(intervalMs: number): number {
  return Math.max(leastKeptMs, durationOf(intervalMs));
}

function spanOf(ms: number): string {
  return ms > 120_000 ? `${Math.ceil(ms / 60_000)} min` : `${Math.ceil(ms / 1000)} s`;
}

/** What a plan that has to be confirmed means for the next pull. Only the first doubt hurries, to `confirmMs` from now. */
function doubt(
  doubts: number,
  pull: Progress['pull'],
  { held }: Plan,
  confirmMs: number,
): Pick<Progress, 'doubts' | 'pull'> {
  if (held.size === 0) return { doubts: 0, pull };
  const waitMs = doubts === 0 ? Math.min(pull.waitMs, confirmMs) : pull.waitMs;
  return { doubts: doubts + 1, pull: { ...pull, waitMs } };
}

/**
 * Finds the row of a decision that the source has given before, else gives it the next number: the ids that planner and
 * mirror know its decisions by. The source has none of its own, or none that stay. `nameOf`: equal for decisions that the
 * source may give twice.
 */
function createNumbers(
  mirror: Mirror,
  { highestId }: EngineState,
  handle: string,
  nameOf: (said: Said) => string,
) {
  const given = new Map<string, number>();
  return (said: Said): { readonly row: Row | undefined; readonly id: number } => {
    const { scope, value } = said;
    const siblings = mirror.byCanonicalValue.get(canonicalValue(scope, value)) ?? [];
    const row = siblings.find(
      (each) => each.engine === handle && each.engineId > 0 && sameContent(each, said),
    );
    if (row) return { row, id: row.engineId };
    const name = nameOf(said);
    const id = given.get(name) ?? highestId + given.size + 1;
    given.set(name, id);
    return { row, id };
  };
}

/** The condition of a request; null: the text has to be read, whether it has changed or not. */
function conditionOf(
  { held, progress }: EngineState,
  mirror: Mirror,
  source: In<ListSettings>,
): Validators | null {
  const { known } = progress;
  const isWhole = known?.decisions === rowsOf(mirror, source.handle).size && held.size === 0;
  return known && isWhole && known.settings === settingsOf(source) ? known : null;
}

function knownBy(
  validators: Validators,
  { held, leftOut }: Plan,
  list: ListSettings,
  decisions: number,
): KnownPicture | null {
  const { etag, modified } = validators;
  if ((etag === null && modified === null) || held.size > 0 || leftOut > 0) return null;
  return { etag, modified, settings: settingsOf(list), decisions };
}

/** Of those by which it is read. */
function settingsOf({ url, name, allowReserved }: ListSettings): string {
  return digestOf(JSON.stringify([url, name, allowReserved])).slice(0, 16);
}
