// Lists for appliances: whoever can fetch a text over HTTP, with a bouncer's key. What a status does to a device is in
// docs/lists.md. Palo Alto gives up its list on a 401 and keeps it while a server is out of order, so any trouble of ours is
// a 503, and a list is never shorter than the truth.

import { Hono, type Context } from 'hono';
import { storeNews } from '../bouncers/authenticate.ts';
import { counted } from '../counters/counting.ts';
import type { EngineSettings } from '../config/engines.ts';
import type { AppEnv } from '../env.ts';
import { count, lines } from '../feed/client.ts';
import { acceptsGzip } from '../http/accept.ts';
import { searchOf } from '../http/address.ts';
import { problem } from '../http/failure.ts';
import { listView } from '../lists/entries.ts';
import type { LinesAnswer } from '../lists/lines.ts';
import { listNames, readListName } from '../lists/names.ts';
import { readListOptions, type ListOptions } from '../lists/options.ts';
import { admit, noteUse } from './admit.ts';
import { apiKey, sighting, viewAt, viewFor, type Asker } from './poll.ts';

export const listRoutes = new Hono<AppEnv>();

listRoutes.all('/:file', answer);

async function answer(c: Context<AppEnv>): Promise<Response> {
  const { method } = c.req;
  if (method !== 'GET' && method !== 'HEAD') {
    return problem({ kind: 'method-not-allowed', allow: ['GET', 'HEAD'] });
  }
  const name = readListName(c.req.param('file') ?? '');
  if (!name) {
    return problem({ kind: 'not-found', what: `a list of this name (there are ${listNames.join(', ')})` });
  }
  // What is wrong with the address is known without the key, and a key in it has to be said first.
  const asked = readListOptions(name, searchOf(c.req.url), null);
  if (!asked.ok) return problem(asked.failure);
  const key = keyOf(c.req.raw.headers);
  // Not counted as refused: many clients send no key before they are asked for it.
  if (key === '') return problem({ kind: 'key-refused' });
  const asker = await admit(c, key);
  if (!asker.ok) return problem(asker.failure);
  const { bouncer } = asker.value;
  count(bouncer.id, method === 'HEAD' ? counted.listHeads : counted.lists);
  const options = readListOptions(name, searchOf(c.req.url), bouncer.policy.list);
  if (!options.ok) return problem(options.failure);
  const [response] = await Promise.all([
    reply(asker.value, options.value, c.get('engine')),
    noteUse(c, asker.value),
  ]);
  return response;
}

/** As bouncers send it, as a bearer's token, or as the password of HTTP Basic with any user name. Empty: there is none. */
function keyOf(headers: Headers): string {
  const key = apiKey(headers);
  const [, scheme = '', credentials = ''] = /^(\w+) +(\S+) *$/.exec(headers.get('authorization') ?? '') ?? [];
  if (key !== '' || scheme.toLowerCase() === 'bearer') return key || credentials;
  if (scheme.toLowerCase() !== 'basic' || !/^[A-Za-z0-9+/]+={0,2}$/.test(credentials)) return '';
  const pair = decodePair(credentials);
  const colon = pair.indexOf(':');
  return colon < 0 ? '' : pair.slice(colon + 1);
}

/** Empty: it is no base64. */
function decodePair(base64: string): string {
  try {
    return atob(base64);
  } catch {
    return '';
  }
}

async function reply(asker: Asker, options: ListOptions, engine: EngineSettings | null): Promise<Response> {
  const { request, env, settings, bouncer } = asker;
  const { headers, method } = request;
  const poll = sighting(asker);
  const view = viewFor(viewAt(listView(options.origins), engine), bouncer);
  const ask = {
    options,
    conditions: {
      ifNoneMatch: headers.get('if-none-match'),
      ifModifiedSince: headers.get('if-modified-since'),
    },
    gzip: acceptsGzip(request),
    head: method === 'HEAD',
  };
  const list = await lines(env, poll, view, ask, storeNews(bouncer, poll.seenMs));
  if (list === null) {
    return problem({ kind: 'unavailable', problem: 'an update is under way; try again', waitSeconds: 5 });
  }
  if (list.kind === 'cold') {
    const waitSeconds = Math.ceil(settings.syncIntervalMs / 1000);
    return problem({ kind: 'unavailable', problem: 'what the engines ban is not known yet', waitSeconds });
  }
  if (list.kind === 'busy') {
    return problem({
      kind: 'unavailable',
      problem: 'many other lists are being made or sent; try again',
      waitSeconds: 5,
    });
  }
  count(bouncer.id, counted.omitted, list.omitted);
  return responseOf(list);
}

/** A cache may keep it for its own client, and has to ask each time. Nobody on the way compresses it for who did not ask. */
function responseOf({ etag, lastModified, contentType, omitted, ...list }: LinesAnswer): Response {
  const headers = new Headers({
    'cache-control': 'private, no-cache, no-transform',
    etag,
    vary: 'Authorization, X-Api-Key, Accept-Encoding',
  });
  if (lastModified !== null) headers.set('last-modified', lastModified);
  if (omitted > 0) headers.set('x-lapidary-omitted', String(omitted));
  if (list.unchanged) return new Response(null, { status: 304, headers });
  headers.set('content-type', contentType);
  headers.set('content-length', String(list.bytes));
  if (list.gzip) headers.set('content-encoding', 'gzip');
  if (list.body === null) return new Response(null, { headers });
  // A body that ends early cuts the connection, as its length says that more has to come.
  const body = list.body.pipeThrough(new FixedLengthStream(list.bytes));
  return new Response(body, { headers, encodeBody: list.gzip ? 'manual' : 'automatic' });
}
