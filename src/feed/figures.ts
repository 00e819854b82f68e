// What operators see of the feed: how it stands, what it holds by kind, and who polls. Each look is bounded in its turn.

import * as engines from '../engines/engines.ts';
import { takeCensus, type Kind } from '../mirror/census.ts';
import { byHandles } from '../mirror/engine-names.ts';
import type { Store } from '../mirror/mirror.ts';
import { sizesOf } from '../mirror/view-sizes.ts';
import { viewOf, type Limits, type View } from '../mirror/view.ts';
import { sinceMs } from '../runtime/clock.ts';
import type { Stream } from '../stream/poll.ts';
import { waitingIn } from '../stream/settled.ts';
import type { FeedStatus } from './questions.ts';
import { pause } from '../runtime/wait.ts';

export function statusOf(
  store: Store,
  all: readonly engines.Engine[],
  { clients, settled }: Pick<Stream, 'clients' | 'settled'>,
  nowMs: number,
): FeedStatus {
  const { mirror, failedWriteMs } = store;
  const each = all.map((engine) => engines.statusOf(engine, store, nowMs));
  // Other sources are asked so seldom that the age of an engine would not be seen behind theirs.
  const asked = each.filter(({ kind }) => kind === 'lapi');
  return {
    sequence: mirror.sequence,
    decisions: mirror.byId.size,
    tombstones: mirror.removed.length,
    clients: clients.records.size(),
    cursors: clients.cursors,
    waiting: waitingIn(settled, nowMs),
    patterns: mirror.patterns,
    freshness: engines.worstOf(each),
    ageSeconds: engines.oldestOf(asked.map(({ ageSeconds }) => ageSeconds)),
    fullAgeSeconds: engines.oldestOf(asked.map(({ fullAgeSeconds }) => fullAgeSeconds)),
    unwritable: failedWriteMs !== null,
    engines: each,
  };
}

const censusKeptMs = 5_000;

/** Active decisions by kind, counted at most every 5 s. */
export function createCensus(store: Store): (nowMs: number) => Promise<Kind[]> {
  let takenMs = -Infinity;
  let kinds: Promise<Kind[]> | undefined;
  return (nowMs) => {
    if (!kinds || sinceMs(takenMs, nowMs) >= censusKeptMs) {
      takenMs = nowMs;
      kinds = takeCensus(store.mirror, store.names, pause);
    }
    return kinds;
  };
}

/** A client's view, as its cursor names it, and the limits of its bouncer. `patterns`: that its name fits; absent: none. */
export interface LimitedView {
  readonly request: string;
  readonly limits: Limits | null;
  readonly patterns?: readonly string[] | undefined;
}

/** How many values each of some views has decisions on. */
export function viewSizes(store: Store, asked: readonly LimitedView[]): Promise<number[]> {
  const views = asked.map(({ request, limits, patterns }): View => {
    const view = viewOf(request);
    // A cursor names engines by their handles already.
    return { ...byHandles({ ...view, engines: null, limits, patterns }, store.names), engines: view.engines };
  });
  return sizesOf(store.mirror, views, pause);
}
