// A poll of the stream: what it asks for, and its answer. Nothing is waited for where the feed's object need not be asked.

import type { BouncerIdentity } from '../bouncers/authenticate.ts';
import { storeNews } from '../bouncers/authenticate.ts';
import type { EngineSettings } from '../config/engines.ts';
import type { Settings } from '../config/settings.ts';
import { counted } from '../counters/counting.ts';
import { count, list, stream } from '../feed/client.ts';
import type { StreamBody } from '../feed/follower.ts';
import type { Cold, ListAnswer } from '../feed/questions.ts';
import { emptyList, emptyStream } from '../formats/lapi-json.ts';
import { cut } from '../formats/texts.ts';
import { acceptsGzip } from '../http/accept.ts';
import { lapiError, succeed, type Result } from '../http/failure.ts';
import { viewKey, type View } from '../mirror/view.ts';
import { userAgentLength, type Sighting } from '../stream/clients.ts';
import type { ShortList } from '../stream/list.ts';
import { parseStreamQuery, type ListQuery } from '../stream/query.ts';
import { renderList } from '../stream/render.ts';

/** Who asks, from where, and when. */
export interface Asker {
  readonly request: Request;
  readonly env: Env;
  readonly settings: Settings;
  /** As `clientAddress` gives it. */
  readonly address: string;
  readonly bouncer: BouncerIdentity;
  readonly nowMs: number;
}

/** LAPI takes the first value of a repeated header. vyos sends its key as `apikey`. */
export function apiKey(headers: Headers): string {
  return (headers.get('x-api-key') ?? headers.get('apikey') ?? '').split(', ')[0] as string;
}

/** What an address asks of the stream, whoever asks. */
export interface StreamQuery {
  readonly startup: boolean;
  /** How long its answer may wait for a change; 0: not at all. */
  readonly waitMs: number;
  /** Of no bouncer. */
  readonly view: View;
  readonly viewKey: string;
}

/** `search`: the query of the address, which names `engine`, or none. */
export function readStreamQuery(search: string, engine: EngineSettings | null): Result<StreamQuery> {
  const query = parseStreamQuery(search);
  if (!query.ok) return query;
  const { startup, waitMs } = query.value;
  const view = viewAt(query.value.view, engine);
  return succeed({ startup, waitMs, view, viewKey: viewKey(view) });
}

/** A view of what a request asks for: of the engine that its address names. */
export function viewAt(view: View, engine: EngineSettings | null): View {
  return engine ? { ...view, engines: [engine.name] } : view;
}

/** A view of its bouncer: within its limits, and without what is allowed for it. */
export function viewFor(view: View, { name, policy }: BouncerIdentity): View {
  return { ...view, limits: policy.limits, bouncer: name };
}

/**
 * `no-transform` keeps proxies from compressing for clients that did not ask: lua, halua and .NET can't read it.
 * `no-store` keeps caches from giving one bouncer's answer to another.
 */
export const answerHeaders = {
  'content-type': 'application/json',
  'cache-control': 'no-store, no-transform',
};

const plain = { headers: new Headers(answerHeaders) };
const listed = {
  headers: new Headers({ ...answerHeaders, 'content-type': 'application/json; charset=utf-8' }),
};
const gzipped = {
  headers: new Headers({ ...answerHeaders, 'content-encoding': 'gzip', vary: 'accept-encoding' }),
  encodeBody: 'manual',
} as const;

/** The answer to a poll by a bouncer that may ask: at once if nothing has changed for it. */
export function answerPoll(asker: Asker, query: StreamQuery): Response | Promise<Response> {
  const { settings } = asker;
  const { poll, view, besides, key } = questionOf(asker, query);
  const answer = stream(asker.env, poll, view, query.startup, besides, key);
  return answer instanceof Promise
    ? answer.then((late) => responseOf(late, settings))
    : responseOf(answer, settings);
}

/** What a poll asks of the feed, within its bouncer's limits. */
export function questionOf(asker: Asker, query: Pick<StreamQuery, 'view' | 'viewKey'>) {
  const { request, bouncer } = asker;
  const poll = sighting(asker);
  const view = viewFor(query.view, bouncer);
  const besides = { gzip: () => acceptsGzip(request), store: () => storeNews(bouncer, poll.seenMs) };
  return { poll, view, besides, key: view.limits ? viewKey(view) : query.viewKey };
}

/** The answer to a look-up, or the list of a view: at once where the feed's object need not be asked. */
export function answerList(
  asker: Asker,
  query: ListQuery,
  engine: EngineSettings | null,
): Response | Promise<Response> {
  const { env, settings, bouncer } = asker;
  const poll = sighting(asker);
  const view = viewFor(viewAt(query.view, engine), bouncer);
  const answer = list(env, poll, { ...query, view }, () => storeNews(bouncer, poll.seenMs));
  return answer instanceof Promise
    ? answer.then((late) => listResponse(late, settings, bouncer))
    : listResponse(answer, settings, bouncer);
}

function listResponse(answer: ListAnswer, settings: Settings, { id }: BouncerIdentity): Response {
  if (answer.kind === 'cold') return cold(settings);
  const isFound = answer.kind === 'long' || answer.decisions.length > 0;
  count(id, isFound ? counted.found : counted.foundNone);
  return new Response(answer.kind === 'long' ? answer.body : shortBody(answer.decisions), listed);
}

function shortBody(decisions: ShortList['decisions']): string {
  return decisions.length === 0 ? emptyList : [...renderList(decisions, Date.now())].join('');
}

export function responseOf(answer: StreamBody | Cold, settings: Settings): Response {
  if (answer && 'kind' in answer) return cold(settings);
  return new Response(answer?.body ?? emptyStream, answer?.gzip ? gzipped : plain);
}

/** As from a LAPI that is not ready: the bouncer's own policy decides what to do meanwhile. Never an empty list. */
export function cold({ syncIntervalMs }: Settings): Response {
  const waitSeconds = Math.ceil(syncIntervalMs / 1000);
  return lapiError({
    kind: 'unavailable',
    problem: 'the decisions of the engine are not known yet',
    waitSeconds,
  });
}

export function sighting({ request, address, bouncer, nowMs }: Asker): Sighting {
  return {
    bouncerId: bouncer.id,
    versionId: bouncer.version.id,
    address,
    seenMs: nowMs,
    userAgent: cut(request.headers.get('user-agent') ?? '', userAgentLength),
  };
}
