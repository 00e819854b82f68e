// Sources that are no engine. Each gives a complete picture of its decisions once in an interval, and nothing between. What
// changes is planned and applied as after a full list of an engine (plan.ts, mirror.ts); this file decides when a source is
// asked, and under which ids its decisions are kept. A mistake here asks a stranger's server too often, or never again.

import type { Settings } from '../config/settings.ts';
import type { ListSettings } from '../config/upstreams.ts';
import { digestOf } from '../crypto/secret.ts';
import { canonicalValue } from '../formats/canonical.ts';
import { decisionOf, sameContent, type Row, type Said } from '../formats/decision.ts';
import { intern } from '../formats/texts.ts';
import type { EngineState } from '../mirror/engines.sql.ts';
import { rowsOf, type Mirror } from '../mirror/memory.ts';
import { commitSync, engineState, saveProgress, type Plan, type Store } from '../mirror/mirror.ts';
import type { KnownPicture, Progress, Validators } from '../mirror/progress.ts';
import { sinceMs } from '../runtime/clock.ts';
import { changedLink } from './link.ts';
import { pullList, type Answer } from './list-pull.ts';
import { valueOf } from './list-text.ts';
import { createPlanner, withinCeiling, type RemovalPolicy } from './plan.ts';
import type { RoundResult, Rounds } from './rounds.ts';
import type { Enter } from './upstream.ts';

export type Source = ListSettings & { readonly handle: string; readonly enter: Enter };

/** A list that shrank by more than half is fetched again so soon. */
const confirmAfterMs = 300_000;
/** Whoever asks for it, no list is fetched more often. */
const leastGapMs = 60_000;
const firstBackoffMs = 60_000;
const longestBackoffMs = 3_600_000;
/** So that not all sources are asked at once, nor one by all feeds of the world at the full hour. */
const jitterShare = 1 / 20;
const mostJitterMs = 600_000;
/** Bans outlast a source that is gone for so long. What it removes ends at once all the same. */
const leastDurationMs = 2 * 86_400_000;

const nothing: RoundResult = { ok: true, added: 0, removed: 0, error: null, warning: null };

/** Whether its first pull is over, well or not. */
export function wasPulled({ lastResyncMs, progress }: EngineState): boolean {
  return lastResyncMs > 0 || progress.failures > 0;
}

export function createPictures(store: Store, { maxDecisions }: Settings, source: Source): Rounds {
  const { handle, intervalMs } = source;
  const who = `${source.kind} ${source.name}`;
  const state = (): EngineState => engineState(store, handle);
  const now = (): Progress => state().progress;
  const save = (change: Partial<Progress>): void => saveProgress(store, handle, { ...now(), ...change });
  const first = Promise.withResolvers<void>();
  if (wasPulled(state())) first.resolve();
  let running: Promise<RoundResult> | null = null;

  const failed = ({ problem, waitMs }: Answer & { readonly kind: 'failed' }): RoundResult => {
    const { failures, pull, full } = now();
    const error = `the list ${problem}`;
    const backoffMs = Math.min(intervalMs, longestBackoffMs, firstBackoffMs * 2 ** failures);
    // A server that wants to be left alone for longer is asked all the same: the bans must not end meanwhile.
    const longestMs = Math.max(intervalMs, durationOf(intervalMs) / 8);
    const nextMs = Math.min(longestMs, Math.max(backoffMs, waitMs ?? 0));
    save({
      full: changedLink(who, full, 'failing', error),
      failures: failures + 1,
      pull: { ...pull, waitMs: nextMs },
    });
    return { ...nothing, ok: false, error };
  };

  const pullAndApply = async (policy: RemovalPolicy): Promise<RoundResult> => {
    const startedMs = Date.now();
    // Written before the request goes out: an object that ends meanwhile does not ask again as soon as it starts.
    save({ roundMs: startedMs, pull: { atMs: startedMs, waitMs: Math.min(intervalMs, confirmAfterMs) } });
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
    const numbered = createNumbers(mirror, state(), handle);
    const take = (said: Said): void => {
      const { row, id } = numbered(said);
      planner.take('new', { ...said, id, untilMs: endOf(row, intervalMs, startedMs) });
    };
    const skipped = { count: 0, sample: null as string | null };
    const scenario = intern(source.name);
    const answer = await pullList(source, conditionOf(state(), mirror, source), {
      take: (network) => take({ ...valueOf(network), origin: 'lists', scenario, type: 'ban' }),
      passOver(problem) {
        skipped.count++;
        skipped.sample ??= problem;
      },
    });
    if (answer.kind === 'failed') return failed(answer);
    const own = rowsOf(mirror, handle);
    if (answer.kind === 'same') for (const row of own.values()) take(decisionOf(row));
    // No await from here on: the plan is made and applied against one and the same mirror.
    const nowMs = Date.now();
    const plan = withinCeiling(planner.finish(nowMs), mirror, maxDecisions);
    const full = changedLink(who, now().full, 'ok', plan.warning ?? null);
    const decisions = own.size + plan.add.length - plan.remove.length;
    const known = answer.kind === 'same' ? now().known : knownBy(answer.validators, plan, source, decisions);
    const jitterMs = Math.random() * Math.min(mostJitterMs, intervalMs * jitterShare);
    const pull = { atMs: startedMs, waitMs: intervalMs + jitterMs };
    const progress = ({ progress: before }: EngineState): Progress => ({
      ...before,
      full,
      failures: 0,
      ...doubt(before.doubts, pull, plan, intervalMs),
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
    if (pull.atMs === 0) return 0;
    const passedMs = sinceMs(pull.atMs, nowMs);
    if (passedMs < Infinity) return Math.max(0, pull.waitMs - passedMs);
    save({ pull: { ...pull, atMs: nowMs } });
    return pull.waitMs;
  };

  const run: Rounds['run'] = async ({ full = false, policy = 'confirm' } = {}) => {
    if (running) return running;
    const nowMs = Date.now();
    const dueMs = dueInMs(nowMs);
    const restMs = leastGapMs - sinceMs(now().pull.atMs, nowMs);
    if (dueMs > 0 && !full) return nothing;
    if (dueMs > 0 && restMs > 0) {
      return { ...nothing, warning: `asked less than a minute ago: again in ${Math.ceil(restMs / 1000)} s` };
    }
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

/** What a plan that has to be confirmed means for the next pull. Only the first doubt hurries. */
function doubt(
  doubts: number,
  pull: Progress['pull'],
  { held }: Plan,
  intervalMs: number,
): Pick<Progress, 'doubts' | 'pull'> {
  if (held.size === 0) return { doubts: 0, pull };
  const waitMs = doubts === 0 ? Math.min(intervalMs, confirmAfterMs) : pull.waitMs;
  return { doubts: doubts + 1, pull: { ...pull, waitMs } };
}

/**
 * Finds the row of a decision that the source has given before, else gives it the next number: the ids that planner and
 * mirror know its decisions by. The source has none of its own, or none that stay.
 */
function createNumbers(mirror: Mirror, { highestId }: EngineState, handle: string) {
  const given = new Map<string, number>();
  return (said: Said): { readonly row: Row | undefined; readonly id: number } => {
    const { scope, value } = said;
    const siblings = mirror.byCanonicalValue.get(canonicalValue(scope, value)) ?? [];
    const row = siblings.find(
      (each) => each.engine === handle && each.engineId > 0 && sameContent(each, said),
    );
    if (row) return { row, id: row.engineId };
    const id = given.get(value) ?? highestId + given.size + 1;
    given.set(value, id);
    return { row, id };
  };
}

/** The condition of a request; null: the text has to be read, whether it has changed or not. */
function conditionOf({ held, progress }: EngineState, mirror: Mirror, source: Source): Validators | null {
  const { known } = progress;
  const isWhole = known?.decisions === rowsOf(mirror, source.handle).size && held.size === 0;
  return known && isWhole && known.settings === settingsOf(source) ? known : null;
}

function knownBy(
  validators: Validators,
  { held, leftOut }: Plan,
  source: Source,
  decisions: number,
): KnownPicture | null {
  const { etag, modified } = validators;
  if ((etag === null && modified === null) || held.size > 0 || leftOut > 0) return null;
  return { etag, modified, settings: settingsOf(source), decisions };
}

function settingsOf({ url, name, allowReserved }: Source): string {
  return digestOf(JSON.stringify([url, name, allowReserved])).slice(0, 16);
}
