// How the Worker asks the one feed.

import { causeOf } from '../http/failure.ts';
import type { DecisionFeed } from './object.ts';
import { isJurisdiction } from '../config/location.ts';
import { withRetries } from './retry.ts';
import { settingsOf } from '../env.ts';

type Feed = DurableObjectStub<DecisionFeed>;

/** Asks the one feed; again where the object went away under the question, so `ask` is what may be done twice. */
export function askFeed<T>(env: Env, ask: (feed: Feed, again: boolean) => Promise<T>): Promise<T> {
  // A stub that has failed does so from then on.
  return withRetries((again) => ask(feedOf(env), again));
}

function feedOf(env: Env): Feed {
  const { feedLocation: location } = settingsOf(env);
  if (isJurisdiction(location)) return within(env.DECISION_FEED, location).getByName('default');
  return env.DECISION_FEED.getByName('default', location === '' ? {} : { locationHint: location });
}

let jurisdictionNoted = false;

/** Plain workerd has one place, and throws. */
function within(feeds: Env['DECISION_FEED'], jurisdiction: DurableObjectJurisdiction): Env['DECISION_FEED'] {
  try {
    return feeds.jurisdiction(jurisdiction);
  } catch (error) {
    if (!causeOf(error).message.includes('not implemented in workerd')) throw error;
    if (!jurisdictionNoted)
      console.error(`FEED_LOCATION=${jurisdiction} means nothing here: this is no Cloudflare`);
    jurisdictionNoted = true;
    return feeds;
  }
}
