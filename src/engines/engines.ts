// The engines of the feed, each with a key, rounds and a forwarder of its own, so that one that is silent, lies or is
// gone costs the others nothing.

import { sinceMs } from '../runtime/clock.ts';
import type { Settings } from '../config/settings.ts';
import { isUnwritable } from '../store/unwritable.ts';
import { createEngineKeys, type EngineKeys, type KeySource } from './keys.ts';
import { handleOf } from '../mirror/engine-names.ts';
import { createForwarder, type Forwarder } from './metrics.ts';
import { listIntervalMs, type Intervals, type LinkState } from '../mirror/progress.ts';
import { createPlaces } from './places.ts';
import { createRounds, type RoundResult, type Rounds } from './rounds.ts';
import { engineState, type Store } from '../mirror/mirror.ts';

export interface Engine {
  readonly name: string;
  /** What its decisions are kept under. */
  readonly handle: string;
  readonly keys: EngineKeys;
  readonly rounds: Rounds;
  readonly forwarder: Forwarder;
}

/**
 * How true what is served of an engine is. `cold`: no full list of it was ever believed, so nobody knows what it bans.
 * `stale`: three syncs in a row are missing, or no full list was believed for twice the time in which one is due.
 */
export const freshnesses = ['fresh', 'stale', 'cold'] as const;
export type Freshness = (typeof freshnesses)[number];

export interface EngineStatus {
  readonly name: string;
  readonly decisions: number;
  readonly freshness: Freshness;
  /** Since it was last heard, and since a full list of it was last believed; null: never, or the clock was set back. */
  readonly ageSeconds: number | null;
  readonly fullAgeSeconds: number | null;
  readonly link: LinkState;
  /** Where the key comes from that it is asked with; null: there is none. */
  readonly key: KeySource | null;
  /** There is a better one, which the engine does not accept yet. */
  readonly keyPending: boolean;
  readonly lastSyncMs: number;
  readonly lastResyncMs: number;
  readonly lastError: string | null;
  /** Elements of its newest answers that could not be read, and what is wrong with one of them. */
  readonly skipped: number;
  readonly skippedSample: string | null;
  /** Decisions of it for which there is no room (`MAX_DECISIONS`). */
  readonly leftOut: number;
}

export function createEngines(storage: DurableObjectStorage, store: Store, settings: Settings): Engine[] {
  const places = createPlaces();
  return settings.engines.map((each) => {
    const engine = { ...each, enter: places() };
    const handle = handleOf(store.names, engine.name);
    const keys = createEngineKeys(storage, settings, engine, handle);
    return {
      name: engine.name,
      handle,
      keys,
      rounds: createRounds(storage, store, settings, { ...engine, handle }, keys),
      forwarder: createForwarder(engine, keys),
    };
  });
}

/** A round with one engine that nobody waits for. */
export async function hear({ name, rounds, forwarder }: Engine): Promise<void> {
  try {
    const { ok } = await rounds.run();
    // Not waited for: the next round must not be late for it.
    if (ok) void forwarder.forward();
  } catch (error) {
    // Of what can't be written the log has told (store.ts).
    if (isUnwritable(error)) return;
    console.error(`engine ${name}: a round broke off: ${(error as Error).message}`);
  }
}

/** Of some engines at once, each at its own pace. What went wrong says where, when there are several. */
export async function runRounds(
  engines: readonly Engine[],
  run: (rounds: Rounds) => Promise<RoundResult>,
): Promise<RoundResult> {
  const results = await Promise.all(engines.map(({ rounds }) => run(rounds)));
  const joined = (kind: 'error' | 'doubt'): string | null => {
    const told = engines.flatMap(({ name }, index) => {
      const text = results[index]?.[kind] ?? null;
      return text === null ? [] : [engines.length === 1 ? text : `${name}: ${text}`];
    });
    return told.length === 0 ? null : told.join('; ');
  };
  return {
    ok: results.every(({ ok }) => ok),
    added: results.reduce((total, { added }) => total + added, 0),
    removed: results.reduce((total, { removed }) => total + removed, 0),
    error: joined('error'),
    doubt: joined('doubt'),
  };
}

export function statusOf(
  { name, handle, keys, rounds }: Engine,
  store: Store,
  intervals: Intervals,
  nowMs: number,
): EngineStatus {
  const { link, lastError } = rounds.state();
  const { source: key, pending: keyPending } = keys.state();
  const { lastSyncMs, lastResyncMs, progress } = engineState(store, handle);
  const heardMs = sinceMs(lastSyncMs, nowMs);
  const listMs = sinceMs(lastResyncMs, nowMs);
  const isStale = heardMs > 3 * intervals.syncIntervalMs || listMs > 2 * listIntervalMs(progress, intervals);
  return {
    name,
    decisions: store.mirror.byEngine.get(handle)?.size ?? 0,
    freshness: lastResyncMs === 0 ? 'cold' : isStale ? 'stale' : 'fresh',
    ageSeconds: lastSyncMs === 0 ? null : wholeSeconds(heardMs),
    fullAgeSeconds: lastResyncMs === 0 ? null : wholeSeconds(listMs),
    link,
    key,
    keyPending,
    lastSyncMs,
    lastResyncMs,
    lastError,
    skipped: progress.skipped.count,
    skippedSample: progress.skipped.sample,
    leftOut: progress.leftOut,
  };
}

function wholeSeconds(ms: number): number | null {
  return ms === Infinity ? null : Math.round(ms / 1000);
}

/** The oldest of all; null: the age of one is not known. Without an engine there is nothing to be old. */
export function oldestOf(ages: readonly (number | null)[]): number | null {
  return ages.reduce((oldest: number | null, age) => {
    return oldest === null || age === null ? null : Math.max(oldest, age);
  }, 0);
}

/** The worst of all: without an engine there is nothing to be old. */
export function worstOf(freshness: readonly Freshness[]): Freshness {
  return freshnesses.findLast((each) => freshness.includes(each)) ?? 'fresh';
}
