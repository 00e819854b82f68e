// Look-ups that an isolate remembers: many repeat one of a moment ago. A mistake here keeps a ban from a bouncer, so nothing
// counts unless it was found at the feed's latest sequence, and that was seen within the last second.

import { sinceMs } from '../runtime/clock.ts';
import { createGenerations } from '../runtime/generations.ts';
import type { ShortList } from '../stream/list.ts';
import { freshMs } from './follower.ts';

const mostBytes = 8 * 1024 * 1024;
/** What a decision takes, and what an entry does besides. */
const decisionBytes = 250;
const entryBytes = 100;
/** A longer one is not asked again and again. */
const lookupLength = 2_000;

export function createLookups() {
  /** The feed's latest sequence, and the time of the question that learnt it. */
  let latest = { sequence: -1, seenMs: -Infinity };
  /** A look-up → what the feed found at its latest sequence. */
  const found = createGenerations<ShortList>(mostBytes, (lookup, { decisions }) => {
    return entryBytes + lookup.length + decisions.length * decisionBytes;
  });

  const learnLatest = (sequence: number, askedMs: number): void => {
    // Of two answers that of the later question counts, unless the clock was set back in between.
    const isLate = askedMs < latest.seenMs && sinceMs(latest.seenMs, askedMs) < Infinity;
    if (isLate) return;
    if (sequence !== latest.sequence) found.clear();
    latest = { sequence, seenMs: askedMs };
  };

  return {
    /** Learns the feed's latest sequence from any of its answers. */
    learnLatest,

    /** What the feed found for the same look-up, if it would find the same now. */
    recall(lookup: string, nowMs: number): ShortList | undefined {
      const isFresh = nowMs >= latest.seenMs && nowMs - latest.seenMs <= freshMs;
      return isFresh ? found.get(lookup) : undefined;
    },

    learn(lookup: string, list: ShortList, askedMs: number): void {
      learnLatest(list.sequence, askedMs);
      if (list.sequence === latest.sequence && lookup.length <= lookupLength) found.set(lookup, list);
    },

    /** For a change made through this isolate: what was learnt from questions before it does not count. */
    forget(nowMs: number): void {
      found.clear();
      latest = { sequence: -1, seenMs: nowMs };
    },
  };
}
