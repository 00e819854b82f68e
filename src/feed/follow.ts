// What the feed's object answers to an isolate that follows it (follower.ts).

import type { Store } from '../mirror/mirror.ts';
import { touchedSince } from '../mirror/touched.ts';
import { invalidatedSince, markOf } from '../stream/invalidated.ts';
import type { Stream } from '../stream/poll.ts';
import { noteFollowed, settledAt } from '../stream/settled.ts';
import type { FollowAsk, Followed } from './questions.ts';

/** Changes in one answer: some 2 MB. An isolate that has missed more begins anew. */
const mostTouched = 5_000;

export function answerFollow(
  { mirror, names }: Store,
  { invalidated, settled }: Stream,
  ask: FollowAsk,
  nowMs: number,
): Followed {
  const { sequence, holds } = mirror;
  const mark = markOf(invalidated);
  if (ask.isolate !== undefined) noteFollowed(settled, ask.isolate, sequence, nowMs, ask.waiting);
  return {
    mark,
    forget: ask.mark ? invalidatedSince(invalidated, ask.mark) : 'all',
    sequence,
    settled: settledAt(settled, sequence, nowMs),
    touched: ask.mark?.instance === mark.instance ? touchedSince(mirror, ask.since, mostTouched) : null,
    holds,
    names,
    patterns: mirror.patterns,
  };
}
