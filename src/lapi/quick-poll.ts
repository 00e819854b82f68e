// Most requests are polls of bouncers that this isolate knows. They are answered before the router: its search for a route
// and its promises cost more than all the rest of such a poll. Nothing is refused here: whatever a rule of bouncers.ts may
// count, note or refuse goes on to the router.

import { recogniseBouncer } from '../bouncers/authenticate.ts';
import { isAllowed } from '../bouncers/policy.ts';
import type { Settings } from '../config/settings.ts';
import { counted } from '../counters/counting.ts';
import { clientAddress } from '../env.ts';
import { count } from '../feed/client.ts';
import { hasHost, readAddress, searchOf, type Address } from '../http/address.ts';
import { createGenerations } from '../runtime/generations.ts';
import { parseListQuery } from '../stream/query.ts';
import { answerList, apiKey, readStreamQuery, type StreamQuery } from './poll.ts';
import { answerStream } from './waiting.ts';

/** As routed: `readAddress`. */
const streamPath = '/v1/decisions/stream';
const listPath = '/v1/decisions';

const mostBytes = 256 * 1024;
const longestUrl = 1_000;
/** URL → what it asks for. Bouncers use the same few again and again. */
const queries = createGenerations<StreamQuery>(mostBytes, (url, { viewKey }) => {
  return 500 + 2 * url.length + 2 * viewKey.length;
});
/** URL without its query → where it leads. All look-ups have the same few. */
const places = createGenerations<Address>(mostBytes, (place) => 500 + 2 * place.length);
/** The settings that they were read by. */
let readBy: Settings | undefined;

/** The answer to a poll of a bouncer that is known here; null: the router has to look at it. */
export function quickPoll(
  request: Request,
  env: Env,
  settings: Settings,
): Response | Promise<Response> | null {
  const { url, headers } = request;
  if (request.method !== 'GET' || !url.includes(listPath) || !hasHost(headers)) return null;
  const nowMs = Date.now();
  const bouncer = recogniseBouncer(env, apiKey(headers), nowMs);
  if (!bouncer || bouncer.policy.perMinute !== null || bouncer.version.firstUsedMs === null) return null;
  const address = clientAddress(request, settings);
  if (!isAllowed(bouncer.policy, address)) return null;
  const asker = { request, env, settings, address, bouncer, nowMs };
  if (readBy !== settings) forgetUrls(settings);
  // Each look-up has a URL of its own, which would be looked for in vain.
  const query = url.includes(streamPath) ? queryOf(url, settings) : null;
  if (query) {
    count(bouncer.id, counted.polls);
    return answerStream(asker, query);
  }
  const place = placeOf(url, settings);
  if (place?.path !== listPath) return null;
  const lookUp = parseListQuery(searchOf(url));
  if (!lookUp.ok) return null;
  count(bouncer.id, counted.lookUps);
  return answerList(asker, lookUp.value, place.engine);
}

function forgetUrls(settings: Settings): void {
  queries.clear();
  places.clear();
  readBy = settings;
}

/** Null: no good address. */
function placeOf(url: string, settings: Settings): Address | null {
  const mark = url.indexOf('?');
  const place = mark < 0 ? url : url.slice(0, mark);
  const known = places.get(place);
  if (known) return known;
  if (!URL.canParse(place)) return null;
  const address = readAddress(place, settings);
  if (place.length <= longestUrl) places.set(place, address);
  return address;
}

/** Null: no good query of the stream. */
function queryOf(url: string, settings: Settings): StreamQuery | null {
  const known = queries.get(url);
  if (known) return known;
  const place = placeOf(url, settings);
  const query = place?.path === streamPath ? readStreamQuery(searchOf(url), place.engine) : null;
  if (!query?.ok) return null;
  if (url.length <= longestUrl) queries.set(url, query.value);
  return query.value;
}
