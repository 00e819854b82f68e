// How many requests reach the feed's object from bouncers that are spread over the world, and what that costs a month: a
// model, which test/e2e/spread.test.ts holds against several isolates in one workerd. Pure.
import { daySeconds, dollarsOf, type Fleet, plain, usageWithCalls } from './cost.ts';

export interface Spread extends Fleet {
  /** Where bouncers are, and how many isolates answer them there. Each poll meets one of them by chance. */
  places: number;
  isolatesPerPlace: number;
  /** How long an isolate lives. */
  isolateSeconds: number;
  changesPerMinute: number;
  /** The share of bouncers that isolates can't answer after a change, such as those with `max_decisions`. */
  capped: number;
}

/** How many requests a second reach the object, and why. */
export interface Asks {
  /** By isolates that follow the feed. */
  follow: number;
  /** For clients that an isolate has not met yet. */
  firstSight: number;
  /** For capped clients until they have the last change. */
  unsettled: number;
  total: number;
}

/** follower.ts: for so long after an isolate has followed the feed it answers by itself. */
const freshSeconds = 1;
/** Each change goes out in two successive answers. */
const answersPerChange = 2;

export function asksPerSecond(spread: Spread): Asks {
  const { bouncers, pollSeconds, places, isolatesPerPlace, isolateSeconds, capped } = spread;
  const isolates = places * isolatesPerPlace;
  const polls = bouncers / pollSeconds;
  // A client meets each isolate of its place once in the isolate's life, if it polls often enough.
  const visits = isolateSeconds / (pollSeconds * isolatesPerPlace);
  const firstSight = ((bouncers * isolatesPerPlace) / isolateSeconds) * (1 - Math.exp(-visits));
  // Of the other polls the first one after the fresh time follows: one in each fresh time and pause until the next poll.
  const perIsolate = (polls - firstSight) / isolates;
  const follow = isolates * (perIsolate / (1 + perIsolate * freshSeconds));
  const unsettled = capped * polls * unsettledShare(spread);
  return { follow, firstSight, unsettled, total: follow + firstSight + unsettled };
}

/**
 * The share of a capped client's polls that ask: after a change both answers, and then one in each isolate that it has not
 * met since.
 */
function unsettledShare({ pollSeconds, isolatesPerPlace, changesPerMinute }: Spread): number {
  if (changesPerMinute === 0) return 0;
  const polls = 60 / changesPerMinute / pollSeconds;
  if (polls <= answersPerChange) return 1;
  const missed = 1 - 1 / isolatesPerPlace;
  let asking = answersPerChange;
  for (let poll = answersPerChange; poll < polls; poll++) {
    asking += Math.min(1, polls - poll) * missed ** (poll - answersPerChange + 1);
  }
  return asking / polls;
}

export function spreadDollarsAMonth(spread: Spread): number {
  return dollarsOf(usageWithCalls(spread, asksPerSecond(spread).total * daySeconds)).total;
}

/** Assumed, since Cloudflare says nothing of it. */
const assumed = { isolatesPerPlace: 2, isolateSeconds: 3_600, changesPerMinute: 6, capped: 0 };

/** docs/figures.md's table. */
export function spreadTable(): string[][] {
  return [1_000, 10_000, 100_000].flatMap((bouncers) =>
    [10, 60].flatMap((pollSeconds) =>
      [50, 300].map((places) => {
        const spread = { bouncers, pollSeconds, places, ...assumed };
        const polls = bouncers / pollSeconds;
        const { total } = asksPerSecond(spread);
        return [
          plain(bouncers),
          `${pollSeconds} s`,
          plain(places),
          plain(Math.round(polls)),
          plain(Math.round(total)),
          `${Math.round((100 * total) / polls)} %`,
          `$${plain(Math.round(spreadDollarsAMonth(spread)))}`,
        ];
      }),
    ),
  );
}
