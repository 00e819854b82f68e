// What the Worker asks the feed's object, and its answers: plain data, since both cross the object's RPC.

import type { Batch } from '../counters/counting.ts';
import type { ReportedSighting, Sighting } from '../stream/clients.ts';
import type { Mark } from '../stream/invalidated.ts';
import type { Names } from '../mirror/engine-names.ts';
import type { Hold } from '../mirror/memory.ts';
import type { LookupFilter } from '../mirror/lookup-filter.ts';
import type { Touched } from '../mirror/touched.ts';
import type { EngineStatus, Freshness } from '../engines/engines.ts';
import type { StoreNews } from '../writer/remembered-keys.ts';
import type { Poll } from '../stream/poll.ts';
import type { Busy, LinesAnswer, LinesAsk } from '../lists/lines.ts';
import type { LongList, ShortList } from '../stream/list.ts';
import type { ListQuery } from '../stream/query.ts';

/** What each question of an isolate has with it. */
interface Asked {
  /** Polls that the isolate answered by itself since it last asked. */
  readonly sightings: readonly ReportedSighting[];
  /** A name of the isolate, which no other has. Left out by the release before. */
  readonly isolate?: string;
  /** What the isolate knows of the object. Null: nothing yet. Left out by the release before. */
  readonly mark?: Mark | null;
  /** What the isolate has counted. Left out where there is nothing, or it is under way already. */
  readonly counts?: Batch | undefined;
  /** What the isolate knows of D1. Left out if it knows nothing yet. */
  readonly store?: StoreNews | undefined;
}

interface Polled extends Asked {
  readonly poll: Sighting;
}

/** `since`: the sequence up to which the isolate has followed the feed; -1: it has not. */
export interface FollowAsk extends Asked {
  readonly since: number;
  /** How many polls wait in the isolate for a change. Left out by the release before. */
  readonly waiting?: number;
}

export interface Followed {
  readonly mark: Mark;
  /** The clients whose cursors the isolate has to forget. */
  readonly forget: readonly string[] | 'all';
  readonly sequence: number;
  /** No change beyond it counts as delivered (settled.ts in stream). */
  readonly settled: number;
  /** What changed since. Null: too much, so the isolate begins anew at `sequence`. */
  readonly touched: Touched | null;
  readonly holds: ReadonlyMap<string, Hold>;
  readonly names: Names;
  /** Of bouncers' names (memory.ts in mirror). Left out by the release before. */
  readonly patterns?: readonly string[];
}

/** The filter of all active decisions, of the object `instance`. */
export interface Filtered {
  readonly instance: string;
  readonly filter: LookupFilter;
  /** Every upstream is known, and with it every view. */
  readonly isForAll: boolean;
}

export type StreamAsk = Polled & Pick<Poll, 'view' | 'startup' | 'again' | 'gzip'>;

/** `lines`: what is asked for is the list of an appliance. The release before does not read it. */
export type ListAsk = Polled & ListQuery & { readonly lines?: LinesAsk };

/** `cold`: it is not known yet what the engines ban. */
export interface Cold {
  readonly kind: 'cold';
}

/** To a question without `lines`. */
export type ListAnswer = Cold | ShortList | LongList;

export type AnyListAnswer = ListAnswer | LinesAnswer | Busy;

export interface FeedStatus {
  readonly sequence: number;
  readonly decisions: number;
  readonly tombstones: number;
  readonly clients: number;
  readonly cursors: number;
  /** Polls that wait for a change, in all isolates. Left out by the release before. */
  readonly waiting?: number;
  /** Of bouncers' names, as `Followed` has them. Left out by the release before. */
  readonly patterns?: readonly string[];
  /** The worst of all engines. */
  readonly freshness: Freshness;
  /** The oldest of all engines; null: not known. */
  readonly ageSeconds: number | null;
  readonly fullAgeSeconds: number | null;
  /** Something could not be written, and waits. */
  readonly unwritable: boolean;
  readonly engines: readonly EngineStatus[];
}

export interface SyncAsk {
  /** Its name; undefined: all. */
  readonly engine?: string | undefined;
  readonly full: boolean;
  /** Accept a full list even where it is doubtful. */
  readonly force: boolean;
}
