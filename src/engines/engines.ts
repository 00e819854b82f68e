// The upstreams of the feed: engines, and sources that are none (pictures.ts). Each has its own rounds, an engine its own key
// and forwarder besides, so one that is silent, wrong or gone does not disturb the others.

import { digestOf } from '../crypto/secret.ts';
import { sinceMs, type Clock } from '../runtime/clock.ts';
import { withinMs } from '../runtime/wait.ts';
import type { Settings } from '../config/settings.ts';
import { isUnwritable } from '../store/unwritable.ts';
import { createAllowLists } from './allow-lists.ts';
import { createEngineKeys } from './keys.ts';
import { handleOf } from '../mirror/engine-names.ts';
import { createForwarder, type Report } from './metrics.ts';
import { listIntervalMs } from '../mirror/progress.ts';
import { createPictures, wasPulled } from './pictures.ts';
import { createRounds, type RoundResult, type Rounds } from './rounds.ts';
import { createTurns } from './upstream.ts';
import { engineState, type Store } from '../mirror/mirror.ts';
import { isChosen, type OfSome, type View } from '../mirror/view.ts';

export type Engine = ReturnType<typeof createEngines>[number];

/**
 * How current the decisions of an engine are. `cold`: no full list was ever accepted, so nobody knows what it bans.
 * `stale`: three syncs in a row failed, or no full list was accepted for twice the time in which one is due.
 */
export const freshnesses = ['fresh', 'stale', 'cold'] as const;
export type Freshness = (typeof freshnesses)[number];

export function createEngines(store: Store, settings: Settings, clock: Clock) {
  const turns = createTurns();
  return settings.upstreams.map((each) => {
    const handle = handleOf(store.names, each.name);
    const { kind, name } = each;
    if (kind !== 'lapi') {
      const rounds = createPictures(store, settings, { ...each, handle, enter: turns() });
      const intervals = { syncIntervalMs: each.intervalMs, resyncIntervalMs: each.intervalMs };
      const apiKey = each.kind === 'hosted' ? each.apiKey : null;
      return { kind, name, handle, rounds, intervals, keys: null, apiKey, forwarder: null, allowLists: null };
    }
    const engine = { ...each, handle, enter: turns() };
    const { allowLists } = engine;
    const keys = createEngineKeys(store.storage, settings, engine, handle);
    return {
      kind,
      name,
      /** Its decisions are kept under it (engine-names.ts). */
      handle,
      rounds: createRounds(store, settings, engine, keys),
      /** How often it is asked. */
      intervals: settings,
      keys,
      apiKey: null,
      forwarder: createForwarder(engine, keys),
      allowLists: allowLists && createAllowLists(store, { ...engine, allowLists }, clock),
    };
  });
}

/** The engine that hosts and machines reach who name none. */
export function defaultOf(engines: readonly Engine[]): (Engine & { readonly kind: 'lapi' }) | undefined {
  return engines.find((engine) => engine.kind === 'lapi');
}

/** The SHA-512 of each key that the feed pulls with. */
export async function keyDigests(engines: readonly Engine[]): Promise<string[]> {
  const all = engines.map(async ({ keys, apiKey }) =>
    keys ? keys.digests() : apiKey === null ? [] : [digestOf(apiKey)],
  );
  return (await Promise.all(all)).flat();
}

/** Hands a bouncer's report to engines by their names (null: all), which get it with their next rounds. */
export function takeReport(
  engines: readonly Engine[],
  store: Store,
  report: Report,
  names: readonly string[] | null,
): void {
  const handles = names?.map((name) => handleOf(store.names, name)) ?? null;
  for (const { handle, forwarder } of engines) {
    if (handles === null || handles.includes(handle)) forwarder?.take(report);
  }
}

/** Runs a round with one engine. Never throws. */
export async function syncEngine({ name, rounds, forwarder, allowLists }: Engine): Promise<void> {
  void allowLists?.run();
  try {
    const { ok } = await rounds.run();
    // Not waited for: it must not delay the next round.
    if (ok) void forwarder?.forward();
  } catch (error) {
    // A write that failed is in the log already (mirror.ts).
    if (isUnwritable(error)) return;
    console.error(`engine ${name}: a round broke off: ${(error as Error).message}`);
  }
}

/** Runs rounds with some engines at once. With several engines, errors and warnings name theirs. */
export async function runRounds(
  engines: readonly Engine[],
  run: (rounds: Rounds) => Promise<RoundResult>,
): Promise<RoundResult> {
  const results = await Promise.all(engines.map(({ rounds }) => run(rounds)));
  const joined = (kind: 'error' | 'warning'): string | null => {
    const messages = engines.flatMap(({ name }, index) => {
      const text = results[index]?.[kind] ?? null;
      return text === null ? [] : [engines.length === 1 ? text : `${name}: ${text}`];
    });
    return messages.length === 0 ? null : messages.join('; ');
  };
  const sum = (kind: 'added' | 'removed'): number => results.reduce((total, each) => total + each[kind], 0);
  const ok = results.every((each) => each.ok);
  return {
    ok,
    added: sum('added'),
    removed: sum('removed'),
    error: joined('error'),
    warning: joined('warning'),
  };
}

export type EngineStatus = ReturnType<typeof statusOf>;

export function statusOf(engine: Engine, store: Store, nowMs: number) {
  const { kind, name, handle, keys, apiKey, rounds, intervals, allowLists } = engine;
  const { link, lastError } = rounds.state();
  const { source: key, pending: keyPending } = keys?.state() ?? {
    source: apiKey === null ? null : ('setting' as const),
    pending: false,
  };
  const { lastSyncMs, lastResyncMs, progress } = engineState(store, handle);
  const answeredMs = sinceMs(lastSyncMs, nowMs);
  const listMs = sinceMs(lastResyncMs, nowMs);
  const isStale =
    answeredMs > 3 * intervals.syncIntervalMs || listMs > 2 * listIntervalMs(progress, intervals);
  const freshness: Freshness = lastResyncMs === 0 ? 'cold' : isStale ? 'stale' : 'fresh';
  return {
    kind,
    name,
    decisions: store.mirror.byEngine.get(handle)?.size ?? 0,
    freshness,
    /** Since its last answer, and since its last accepted full list; null: never, or the clock was set back. */
    ageSeconds: lastSyncMs === 0 ? null : wholeSeconds(answeredMs),
    fullAgeSeconds: lastResyncMs === 0 ? null : wholeSeconds(listMs),
    link,
    /** Where its key comes from; null: there is none, or none is needed. */
    key,
    /** There is a newer key that the engine does not accept yet. */
    keyPending,
    lastSyncMs,
    lastResyncMs,
    lastError,
    /** Unreadable elements of its newest answers, and what is wrong with one of them. */
    skipped: progress.skipped.count,
    skippedSample: progress.skipped.sample,
    /** Its decisions for which there is no room (`MAX_DECISIONS`). */
    leftOut: progress.leftOut,
    /** Its own allow-lists; null: they are not read. */
    allowLists: allowLists?.status() ?? null,
  };
}

function wholeSeconds(ms: number): number | null {
  return ms === Infinity ? null : Math.round(ms / 1000);
}

/** The oldest age; null: one is not known. Without an engine: 0. */
export function oldestOf(ages: readonly (number | null)[]): number | null {
  return ages.reduce((oldest: number | null, age) => {
    return oldest === null || age === null ? null : Math.max(oldest, age);
  }, 0);
}

/**
 * The worst freshness. Without an engine: fresh. A source that is no engine makes nothing cold, unless there is nothing else
 * (`decisive`).
 */
export function worstOf(all: readonly Pick<EngineStatus, 'kind' | 'freshness'>[]): Freshness {
  const isNothingKnown = decisive(all).length > 0 && all.every(({ freshness }) => freshness === 'cold');
  if (isNothingKnown) return 'cold';
  const states = all.map(({ kind, freshness }) =>
    kind !== 'lapi' && freshness === 'cold' ? 'stale' : freshness,
  );
  return freshnesses.findLast((each) => states.includes(each)) ?? 'fresh';
}

/**
 * Those of some upstreams that decide whether nobody knows what is banned. Other sources don't where there is an engine: one
 * that is pulled once a day would else be a day of errors, when the feed's storage is lost. Where there is none, an empty
 * answer would say that nobody is banned.
 */
function decisive<T extends { readonly kind: Engine['kind'] }>(upstreams: readonly T[]): readonly T[] {
  const lapis = upstreams.filter(({ kind }) => kind === 'lapi');
  return lapis.length > 0 ? lapis : upstreams;
}

/**
 * How long a client waits for the first full lists, from the feed's first request on. A start-up may take as long as
 * LAPI's own of a large list, since Debian's firewall bouncer ends when its first poll fails. A live lookup delays
 * somebody's page.
 */
export const startUpPatienceMs = 25_000;
export const lookupPatienceMs = 2_000;

/** Whether a full list of an engine was ever accepted. */
function hasList(store: Store, { handle }: Engine): boolean {
  return engineState(store, handle).lastResyncMs > 0;
}

/** Whether a first answer may come soon. */
function isAwaited(store: Store, engine: Engine): boolean {
  return engine.kind === 'lapi' ? !hasList(store, engine) : !wasPulled(engineState(store, engine.handle));
}

/** Whether the decisions of at least one upstream of a view that counts are known. A view without an upstream is known. */
export function isKnown(engines: readonly Engine[], store: Store, view: OfSome): boolean {
  const chosen = decisive(engines.filter(({ handle }) => isChosen(view, handle)));
  return chosen.length === 0 || chosen.some((engine) => hasList(store, engine));
}

/**
 * Whether a list of a view is whole: a device takes it in place of all that it has. The decisions of every engine of the view
 * are known; where it has other sources alone, those of one.
 */
export function isWhole(engines: readonly Engine[], store: Store, view: OfSome): boolean {
  const lapis = engines.filter(({ kind, handle }) => kind === 'lapi' && isChosen(view, handle));
  return lapis.every((engine) => hasList(store, engine)) && isKnown(engines, store, view);
}

/** Whether no first answer of an upstream of a view is worth waiting for. */
export function isComplete(engines: readonly Engine[], store: Store, view: View): boolean {
  return engines.every((engine) => !isAwaited(store, engine) || !isChosen(view, engine.handle));
}

/** Whether the decisions of every engine are known; without an engine, those of another source. */
export function areKnown(engines: readonly Engine[], store: Store): boolean {
  return isWhole(engines, store, { engines: null, limits: null });
}

/** Whether the decisions of every upstream are: then those of any view are. */
export function areAllKnown(engines: readonly Engine[], store: Store): boolean {
  return engines.every((engine) => hasList(store, engine));
}

/**
 * Waits until a view is known, for no longer than `patienceMs` after the first request: at first for all its engines,
 * then for one. If it is not known then, the bouncer gets an error and its own policy decides; an empty list would say
 * that nobody is banned.
 */
export async function awaitKnown(
  engines: readonly Engine[],
  store: Store,
  view: View,
  firstRequestMs: number,
  patienceMs: number,
): Promise<boolean> {
  const missing = engines.filter((engine) => isAwaited(store, engine) && isChosen(view, engine.handle));
  const lists = (some: readonly Engine[]): Promise<void>[] => some.map(({ rounds }) => rounds.known);
  const leftMs = (limitMs: number): number => Math.max(0, limitMs - sinceMs(firstRequestMs, Date.now()));
  await withinMs(Promise.all(lists(missing)), leftMs(Math.min(patienceMs, lookupPatienceMs)));
  const cold = decisive(missing);
  if (cold.length > 0 && !isKnown(engines, store, view)) {
    await withinMs(Promise.race(lists(cold)), leftMs(patienceMs));
  }
  return isKnown(engines, store, view);
}
