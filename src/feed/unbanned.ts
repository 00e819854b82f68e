// Look-ups of addresses that nothing bans, as nearly all are. This isolate has a copy of the object's filter and adds to it
// what it follows, so it knows of most addresses that nothing bans them. A mistake here keeps a ban from a bouncer.

import type { Network } from '../formats/ip.ts';
import { extend, isFull, mayCover } from '../mirror/lookup-filter.ts';
import type { Mirror } from '../mirror/memory.ts';
import { sinceMs } from '../runtime/clock.ts';
import type { Filtered } from './questions.ts';

/** How long after a question for the filter the next one comes: the object may have none yet. */
const pauseMs = 10_000;
/** Rows that are put in for one look-up: 1-3 ms. */
const mostAtOnce = 1_000;

/** What an isolate has followed of the feed. */
export interface Known {
  readonly part: Mirror;
  /** The object that it is from (invalidated.ts in stream). */
  readonly instance: string;
}

export function createUnbanned() {
  let copy: Filtered | null = null;
  let askedMs = -Infinity;

  /** The filter has all that was there before the part begins. */
  const goesWith = ({ instance, filter }: Filtered, known: Known): boolean => {
    return instance === known.instance && filter.sequence >= known.part.purgedSequence;
  };

  return {
    /**
     * Whether no decision covers all of a network. `follow`: this isolate has to follow the feed first. `ask`: only the
     * object knows. `isFresh`: `known` has all that others have followed. `isOfSome`: for a view of some upstreams.
     */
    look(
      network: Network,
      known: Known | null,
      isFresh: boolean,
      isOfSome: boolean,
    ): 'unbanned' | 'follow' | 'ask' {
      if (copy && known && !goesWith(copy, known)) copy = null;
      if (!copy || (isOfSome && !copy.isForAll)) return 'ask';
      const isComplete = known !== null && extend(copy.filter, known.part, mostAtOnce);
      if (mayCover(copy.filter, network)) return 'ask';
      if (!known || !isFresh) return 'follow';
      return isComplete ? 'unbanned' : 'ask';
    },

    /** Whether the object is to be asked for its filter now. */
    isWanted(nowMs: number): boolean {
      if ((copy && !isFull(copy.filter)) || sinceMs(askedMs, nowMs) < pauseMs) return false;
      askedMs = nowMs;
      return true;
    },

    /** Null: the object has none yet. */
    take(filtered: Filtered | null): void {
      if (filtered) copy = filtered;
    },
  };
}
