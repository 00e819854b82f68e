// Most requests are polls of bouncers that this isolate knows. They are answered before the router: its search for a route
// and its promises cost more than all the rest of such a poll. Nothing is refused here: whatever a rule of bouncers.ts may
// count, note or refuse goes on to the router.

import { recogniseBouncer } from '../bouncers/authenticate.ts';
import { isAllowed } from '../bouncers/policy.ts';
import type { Settings } from '../config/settings.ts';
import { clientAddress } from '../env.ts';
import { hasHost, readAddress, searchOf } from '../http/address.ts';
import { createGenerations } from '../runtime/generations.ts';
import { answerPoll, apiKey, readStreamQuery, type StreamQuery } from './poll.ts';

/** As routed: `readAddress`. */
export const streamPath = '/v1/decisions/stream';

const mostBytes = 256 * 1024;
const longestUrl = 1_000;
/** URL → what it asks for. Bouncers use the same few again and again. */
const queries = createGenerations<StreamQuery>(mostBytes, (url, { viewKey }) => {
  return 500 + 2 * url.length + 2 * viewKey.length;
});
/** The settings that they were read by. */
let readBy: Settings | undefined;

/** The answer to a poll of a bouncer that is known here; null: the router has to look at it. */
export function quickPoll(
  request: Request,
  env: Env,
  settings: Settings,
): Response | Promise<Response> | null {
  const { url, headers } = request;
  if (request.method !== 'GET' || !url.includes(streamPath) || !hasHost(headers)) return null;
  const bouncer = recogniseBouncer(env, apiKey(headers), Date.now());
  if (!bouncer || bouncer.policy.perMinute !== null || bouncer.version.firstUsedMs === null) return null;
  const address = clientAddress(request, settings);
  if (!isAllowed(bouncer.policy, address)) return null;
  const query = queryOf(url, settings);
  return query && answerPoll({ request, env, settings, address, bouncer }, query);
}

/** Null: no good query of the stream. */
function queryOf(url: string, settings: Settings): StreamQuery | null {
  if (readBy !== settings) queries.clear();
  readBy = settings;
  const known = queries.get(url);
  if (known) return known;
  if (!URL.canParse(url)) return null;
  const { path, engine } = readAddress(url, settings);
  const query = path === streamPath ? readStreamQuery(searchOf(url), engine) : null;
  if (!query?.ok) return null;
  if (url.length <= longestUrl) queries.set(url, query.value);
  return query.value;
}
