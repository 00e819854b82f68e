// The Worker's side of the feed: its polls are answered from the fast path, or else by the feed's object. A question is
// asked again if the object went away under it.

import { causeOf } from '../http/failure.ts';
import type { DecisionFeed } from './object.ts';
import { isJurisdiction } from '../config/location.ts';
import { withRetries } from './retry.ts';
import { settingsOf } from '../env.ts';
import { viewKey, type View } from '../mirror/view.ts';
import type { Sighting } from '../stream/clients.ts';
import type { ListQuery } from '../stream/query.ts';
import { isUpToDate, learnList, learnStream, recall, takeSightings } from './fast-path.ts';
import type { Cold, ListAnswer, ShortList, StreamAsk } from './questions.ts';
import type { StreamAnswer } from '../stream/poll.ts';

type Feed = DurableObjectStub<DecisionFeed>;

/** Asks the feed's object. `ask` may run twice; `again`: its answer may have been made before, and lost. */
export function askFeed<T>(env: Env, ask: (feed: Feed, again: boolean) => Promise<T>): Promise<T> {
  // A stub that has failed once fails from then on.
  return withRetries((again) => ask(feedOf(env), again));
}

/** What goes to the object with a poll. It is made only when the object is asked. */
type Besides = Pick<StreamAsk, 'gzip' | 'store'>;

/** The answer to a poll of the stream. Null: nothing has changed for this client, and the object need not be asked. */
export function stream(
  env: Env,
  poll: Sighting,
  view: View,
  startup: boolean,
  besides: () => Besides,
): Promise<StreamAnswer | Cold> | null {
  const key = viewKey(view);
  return !startup && isUpToDate(poll, key)
    ? null
    : askStream(env, key, { poll, view, startup, ...besides() });
}

async function askStream(
  env: Env,
  key: string,
  ask: Omit<StreamAsk, 'sightings' | 'again'>,
): Promise<StreamAnswer | Cold> {
  const sightings = takeSightings();
  const answer = await askFeed(env, async (feed, again) => feed.stream({ ...ask, sightings, again }));
  if (answer.kind === 'stream') learnStream(ask.poll, key, answer);
  return answer;
}

/** The active decisions of a view: at once where the same was asked a moment ago. */
export function list(
  env: Env,
  poll: Sighting,
  query: ListQuery,
  store: () => StreamAsk['store'],
): ShortList | Promise<ListAnswer> {
  const { limit, offset, idGreaterThan, view } = query;
  // Nobody asks for the same page again.
  const isPage = limit !== null || offset > 0 || idGreaterThan > 0;
  const lookup = viewKey(view);
  return (
    (isPage ? undefined : recall(lookup, poll)) ?? askList(env, poll, query, isPage ? null : lookup, store())
  );
}

async function askList(
  env: Env,
  poll: Sighting,
  query: ListQuery,
  lookup: string | null,
  store: StreamAsk['store'],
): Promise<ListAnswer> {
  const ask = { ...query, poll, sightings: takeSightings(), store };
  const answer = await askFeed(env, async (feed) => feed.list(ask));
  if (answer.kind === 'short' && lookup !== null) learnList(poll, lookup, answer);
  return answer;
}

function feedOf(env: Env): Feed {
  const { feedLocation: location } = settingsOf(env);
  if (isJurisdiction(location)) return within(env.DECISION_FEED, location).getByName('default');
  return env.DECISION_FEED.getByName('default', location === '' ? {} : { locationHint: location });
}

let jurisdictionNoted = false;

/** The objects of a jurisdiction. Plain workerd has only one place, and throws. */
function within(feeds: Env['DECISION_FEED'], jurisdiction: DurableObjectJurisdiction): Env['DECISION_FEED'] {
  try {
    return feeds.jurisdiction(jurisdiction);
  } catch (error) {
    if (!causeOf(error).message.includes('not implemented in workerd')) throw error;
    if (!jurisdictionNoted)
      console.error(`FEED_LOCATION=${jurisdiction} has no effect: this is not Cloudflare`);
    jurisdictionNoted = true;
    return feeds;
  }
}
