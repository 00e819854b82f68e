// LAPI's routes for bouncers. What an answer looks like here was tried on thirty of them: a status other than
// 200, a redirect, an error without `message`, `[]` for "nobody", each stops or crashes one of them.

import { Hono, type Context, type Next } from 'hono';
import { adopt } from '../bouncers/adoption.ts';
import { noteFirstUse } from '../bouncers/bouncers.ts';
import {
  authenticate,
  forgetRefusals,
  isStoreFailing,
  learnFirstUse,
  storeNews,
  type BouncerIdentity,
} from '../bouncers/authenticate.ts';
import { isAllowed } from '../bouncers/policy.ts';
import { clientAddress, type AppEnv } from '../env.ts';
import { cut } from '../formats/cut.ts';
import { saveMetrics } from '../bouncers/bouncers.sql.ts';
import { answerMs } from '../store/ask.ts';
import { saveFirstUse } from '../bouncers/keys.sql.ts';
import { badInput, causeOf, fail, lapiError, succeed, type Failure, type Result } from '../http/failure.ts';
import { userAgentLength, type Sighting } from '../stream/clients.ts';
import type { Decision } from '../formats/decision.ts';
import { reportOf, type Report } from '../engines/metrics.ts';
import { renderList } from '../stream/render.ts';
import { viewKey, type View } from '../mirror/view.ts';
import { withinMs } from '../runtime/wait.ts';
import { readJson } from '../http/body.ts';
import { isMachines, withMachines } from '../machines/routes.ts';
import { parseListQuery, parseStreamQuery } from '../stream/query.ts';
import { isQuiet, learn, recall, remember, takeSightings } from '../feed/fast-path.ts';
import { consumeRateLimit } from '../http/rate-limit.ts';
import { emptyStream } from '../formats/lapi-json.ts';
import { askFeed } from '../feed/client.ts';

export const bouncerRoutes = new Hono<AppEnv>();

type Reply = (c: Context<AppEnv>, bouncer: BouncerIdentity) => Promise<Response>;

bouncerRoutes.all('/decisions/stream', (c, next) => answer(c, next, ['GET', 'HEAD'], stream));
bouncerRoutes.all('/decisions', (c, next) => answer(c, next, ['GET', 'HEAD'], decisions));
bouncerRoutes.all('/usage-metrics', (c, next) => answer(c, next, ['POST'], usageMetrics));

/** Method, then key, as LAPI's router does it; then what the key may do; then the reply. */
async function answer(
  c: Context<AppEnv>,
  next: Next,
  allow: readonly string[],
  reply: Reply,
): Promise<Response | void> {
  if (isMachines(c)) return next();
  if (!allow.includes(c.req.method)) {
    return lapiError({ kind: 'method-not-allowed', allow: withMachines(c, allow) });
  }
  const address = clientAddress(c.req.raw, c.get('settings'));
  const bouncer = await whoAsks(c, address);
  if (!bouncer.ok) return lapiError(bouncer.failure);
  const { id, policy } = bouncer.value;
  // As a bad key: whoever found a key learns nothing about where it is good.
  if (!isAllowed(policy, address)) return lapiError({ kind: 'forbidden' });
  const waitSeconds = await consumeRateLimit(c.env, id, policy.perMinute, Date.now());
  if (waitSeconds !== null) return lapiError({ kind: 'rate-limited', waitSeconds });
  const [response] = await Promise.all([reply(c, bouncer.value), noteUse(c, bouncer.value)]);
  return response;
}

async function whoAsks(c: Context<AppEnv>, address: string): Promise<Result<BouncerIdentity>> {
  const key = apiKey(c.req.raw.headers);
  const nowMs = Date.now();
  const bouncer = await authenticate(c.env, key, address, nowMs);
  const { adoptEngineKeys, engines } = c.get('settings');
  if (bouncer.ok || bouncer.failure.kind !== 'forbidden' || !adoptEngineKeys) return bouncer;
  const userAgent = c.req.header('user-agent') ?? '';
  const isFeeds = async (digest: string): Promise<boolean> => {
    return (await askFeed(c.env, async (feed) => feed.keyDigests())).includes(digest);
  };
  try {
    if (!(await adopt(c.env, engines, key, userAgent, isFeeds, nowMs))) return bouncer;
  } catch (error) {
    console.error(`a key was not looked for at the engine: ${causeOf(error).message}`);
    return fail({ kind: 'unavailable', problem: 'keys can not be checked now; try again' });
  }
  // Another isolate may have been first.
  forgetRefusals();
  return authenticate(c.env, key, address, nowMs);
}

/**
 * The first use of a version is noted, and of a new one it starts the old one's grace: beside the reply, which need not
 * wait for its turn. A HEAD is a question whether the key is good, asked before it is put to use. A key store that is out
 * of reach must not cost the poll its answer.
 */
async function noteUse(c: Context<AppEnv>, bouncer: BouncerIdentity): Promise<void> {
  if (bouncer.version.firstUsedMs !== null || c.req.method === 'HEAD' || isStoreFailing()) return;
  const noted = note(c.env, bouncer, Date.now());
  c.executionCtx.waitUntil(noted);
  await withinMs(noted, answerMs);
}

async function note(env: Env, { name, version }: BouncerIdentity, nowMs: number): Promise<void> {
  try {
    if (version.state === 'next') {
      await noteFirstUse(env, version, name, nowMs);
    } else {
      await saveFirstUse(env.DB, version.id, nowMs);
      learnFirstUse(version, nowMs);
    }
  } catch (error) {
    console.error(`a first use was not noted: ${causeOf(error).message}`);
  }
}

/** The first value of a repeated header is the one that LAPI looks at. vyos sends its key as `apikey`. */
function apiKey(headers: Headers): string {
  return (headers.get('x-api-key') ?? headers.get('apikey') ?? '').split(', ')[0] as string;
}

const jsonType = { 'content-type': 'application/json' };

/**
 * `no-transform` keeps what stands in front from compressing for clients that did not ask (lua, halua and .NET
 * cannot read it), `no-store` keeps one bouncer's answer from another.
 */
const streamHeaders = { ...jsonType, 'cache-control': 'no-store, no-transform' };

async function stream(c: Context<AppEnv>, bouncer: BouncerIdentity): Promise<Response> {
  // AppSec asks this way whether a key is good, with 200 ms of patience. It is no poll: nothing moves.
  if (c.req.method === 'HEAD') return emptyHead();
  const query = parseStreamQuery(searchOf(c.req.url));
  if (!query.ok) return lapiError(query.failure);
  const { startup } = query.value;
  const view = limited(c, query.value.view, bouncer);
  const poll = sighting(c, bouncer);
  const key = viewKey(view);
  if (!startup && isQuiet(poll, key)) return new Response(emptyStream, { headers: streamHeaders });

  const gzip = acceptsGzip(c.req.raw);
  const sightings = takeSightings();
  const store = storeNews(bouncer, poll.seenMs);
  const ask = { poll, view, startup, gzip, sightings, store };
  const answered = await askFeed(c.env, async (feed, again) => feed.stream({ ...ask, again }));
  if (answered.kind === 'cold') return lapiError(notKnownYet(c));
  learn(poll, key, answered.sequence, answered.upToDate);
  if (answered.body === null) return new Response(emptyStream, { headers: streamHeaders });
  if (!answered.gzip) return new Response(answered.body, { headers: streamHeaders });
  const headers = { ...streamHeaders, 'content-encoding': 'gzip', vary: 'accept-encoding' };
  return new Response(answered.body, { headers, encodeBody: 'manual' });
}

async function decisions(c: Context<AppEnv>, bouncer: BouncerIdentity): Promise<Response> {
  const query = parseListQuery(searchOf(c.req.url));
  if (!query.ok) return lapiError(query.failure);
  if (c.req.method === 'HEAD') return emptyHead();
  const poll = sighting(c, bouncer);
  const { limit, offset, idGreaterThan } = query.value;
  const view = limited(c, query.value.view, bouncer);
  const lookup = viewKey(view);
  // Whoever pages reads each page once.
  const isPage = limit !== null || offset > 0 || idGreaterThan > 0;
  const headers = { ...streamHeaders, 'content-type': 'application/json; charset=utf-8' };
  const known = isPage ? undefined : recall(lookup, poll);
  if (known) return new Response(listBody(known, poll.seenMs), { headers });

  const store = storeNews(bouncer, poll.seenMs);
  const ask = { ...query.value, poll, view, sightings: takeSightings(), store };
  const answered = await askFeed(c.env, async (feed) => feed.list(ask));
  if (answered.kind === 'cold') return lapiError(notKnownYet(c));
  if (answered.kind === 'long') return new Response(answered.body, { headers });
  if (!isPage) remember(lookup, answered.sequence, answered.decisions, poll);
  return new Response(listBody(answered.decisions, Date.now()), { headers });
}

/** As from a LAPI that is not ready: what to do meanwhile is the bouncer's own policy. Nobody is told an empty list. */
function notKnownYet(c: Context<AppEnv>): Failure {
  const waitSeconds = Math.ceil(c.get('settings').syncIntervalMs / 1000);
  return { kind: 'unavailable', problem: 'the decisions of the engine are not known yet', waitSeconds };
}

function listBody(decisions: readonly Decision[], nowMs: number): string {
  return [...renderList(decisions, nowMs)].join('');
}

/** What it asks for, where it asks, and what it may have. */
function limited(c: Context<AppEnv>, view: View, { policy }: BouncerIdentity): View {
  const engine = c.get('engine');
  return { ...view, ...(engine ? { engines: [engine.name] } : {}), limits: policy.limits };
}

function emptyHead(): Response {
  return new Response(null, { headers: { 'content-type': 'text/plain; charset=utf-8' } });
}

const metricsLimitBytes = 1024 * 1024;

/** Kept as it came, the newest in place of the last. 201 with an empty body is what Go bouncers insist on. */
async function usageMetrics(c: Context<AppEnv>, bouncer: BouncerIdentity): Promise<Response> {
  const body = await readJson(c.req.raw, metricsLimitBytes);
  if (!body.ok) return lapiError(body.failure);
  const component = oneComponent(body.value);
  if (!component.ok) return lapiError(component.failure);
  try {
    await saveMetrics(c.env.DB, bouncer.id, JSON.stringify(component.value), Date.now());
  } catch (error) {
    console.error(`usage metrics were not kept: ${causeOf(error).message}`);
    return lapiError({ kind: 'unavailable', problem: 'usage metrics can not be kept now; try again' });
  }
  const report = reportOf(component.value, bouncer.name);
  const asked = c.get('engine');
  const seen = asked ? [asked.name] : (bouncer.policy.limits?.engines ?? null);
  if (report) c.executionCtx.waitUntil(passOn(c.env, report, seen));
  return new Response(null, { status: 201 });
}

/** Beside the answer: what the engine does not get of a report is no matter of the bouncer's. */
async function passOn(env: Env, report: Report, engines: readonly string[] | null): Promise<void> {
  try {
    await askFeed(env, async (feed) => feed.takeReport(report, engines));
  } catch (error) {
    console.error(`usage metrics were not passed on: ${causeOf(error).message}`);
  }
}

/** LAPI: controllers/v1/usagemetrics.go. Not stricter: lua posts objects where lists belong. */
function oneComponent(body: unknown): Result<unknown> {
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    return badInput('body', 'not an object');
  const components = (body as Record<string, unknown>)['remediation_components'];
  if (!Array.isArray(components) || components.length === 0) {
    return badInput('remediation_components', 'Missing remediation component data');
  }
  if (components.length > 1) {
    return badInput('remediation_components', 'Payload has more than one remediation component');
  }
  const component: unknown = components[0];
  if (typeof component !== 'object' || component === null) {
    return fail({ kind: 'bad-input', field: 'remediation_components.0', problem: 'not an object' });
  }
  return succeed(component);
}

function sighting(c: Context<AppEnv>, bouncer: BouncerIdentity): Sighting {
  return {
    bouncerId: bouncer.id,
    versionId: bouncer.version.id,
    address: clientAddress(c.req.raw, c.get('settings')),
    seenMs: Date.now(),
    userAgent: cut(c.req.header('user-agent') ?? '', userAgentLength),
  };
}

function searchOf(url: string): string {
  const mark = url.indexOf('?');
  return mark < 0 ? '' : url.slice(mark);
}

/**
 * Whether the client itself asked for gzip. On Cloudflare, which has a `colo`, the header is `br, gzip` for everybody, and
 * nowhere is it said that what a client without one sent is told apart: there the header never counts.
 */
function acceptsGzip(request: Request): boolean {
  const { colo, clientAcceptEncoding } = (request.cf ?? {}) as Partial<IncomingRequestCfProperties>;
  const asked = colo === undefined ? request.headers.get('accept-encoding') : clientAcceptEncoding;
  const accepted = (asked ?? '').toLowerCase();
  return accepted.split(',').some((part) => {
    const [coding, ...parameters] = part.split(';').map((text) => text.trim());
    return coding === 'gzip' && !parameters.some((parameter) => /^q=0(\.0*)?$/.test(parameter));
  });
}
