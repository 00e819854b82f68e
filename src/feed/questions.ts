// What the Worker asks of the feed, and what it is answered: plain data, since it crosses the object's RPC.

import type { Sighting } from '../stream/clients.ts';
import type { Decision } from '../formats/decision.ts';
import type { EngineStatus, Freshness } from '../engines/engines.ts';
import type { StoreNews } from '../writer/remembered-keys.ts';
import type { View } from '../mirror/view.ts';

export interface StreamAsk {
  readonly poll: Sighting;
  readonly view: View;
  readonly startup: boolean;
  readonly gzip: boolean;
  /** The answer may have been made before, and lost on its way. */
  readonly again?: boolean;
  /** Polls that the isolate answered by itself since it last asked. */
  readonly sightings: readonly Sighting[];
  /** Left out by an isolate that has not heard of D1 yet, or of a release before there was this. */
  readonly store?: StoreNews | undefined;
}

export interface ListAsk {
  readonly poll: Sighting;
  readonly view: View;
  readonly limit: number | null;
  readonly offset: number;
  readonly idGreaterThan: number;
  readonly sightings: readonly Sighting[];
  readonly store?: StoreNews | undefined;
}

/** `cold`: it is not known yet what the engines ban. */
export interface Cold {
  readonly kind: 'cold';
}

/** Few decisions as they are, for the isolate to keep and to write; many as LAPI's bytes. */
export type ListAnswer =
  | Cold
  | { readonly kind: 'short'; readonly sequence: number; readonly decisions: readonly Decision[] }
  | { readonly kind: 'long'; readonly body: ReadableStream<Uint8Array> };

export interface FeedStatus {
  readonly sequence: number;
  readonly decisions: number;
  readonly tombstones: number;
  readonly cursors: number;
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
