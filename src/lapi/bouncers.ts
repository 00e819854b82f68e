// LAPI's routes for bouncers. Thirty bouncers were tried: a status other than 200, a redirect, an error without
// `message`, or `[]` for an empty list each stops or crashes one of them.

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
import { cut } from '../formats/texts.ts';
import { saveMetrics } from '../bouncers/bouncers.sql.ts';
import { answerMs } from '../store/ask.ts';
import { saveFirstUse } from '../bouncers/keys.sql.ts';
import { badInput, causeOf, fail, lapiError, succeed, type Result } from '../http/failure.ts';
import { userAgentLength, type Sighting } from '../stream/clients.ts';
import { reportOf, type Report } from '../engines/metrics.ts';
import { renderList } from '../stream/render.ts';
import type { View } from '../mirror/view.ts';
import { withinMs } from '../runtime/wait.ts';
import { readJson } from '../http/body.ts';
import { isMachines, withMachines } from '../machines/routes.ts';
import { parseListQuery, parseStreamQuery } from '../stream/query.ts';
import { searchOf } from '../http/address.ts';
import { consumeRateLimit } from '../http/rate-limit.ts';
import { emptyStream } from '../formats/lapi-json.ts';
import { askFeed, list, stream } from '../feed/client.ts';

export const bouncerRoutes = new Hono<AppEnv>();

type Reply = (c: Context<AppEnv>, bouncer: BouncerIdentity) => Promise<Response>;

bouncerRoutes.all('/decisions/stream', (c, next) => answer(c, next, ['GET', 'HEAD'], pollStream));
bouncerRoutes.all('/decisions', (c, next) => answer(c, next, ['GET', 'HEAD'], listDecisions));
bouncerRoutes.all('/usage-metrics', (c, next) => answer(c, next, ['POST'], usageMetrics));

/** Checks the method, then the key, as LAPI's router does; then what the key may do. Then replies. */
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
  // The answer of an unknown key: whoever found a key does not learn where it is valid.
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
  const isFeeds = async (digest: string): Promise<boolean> =>
    (await askFeed(c.env, async (feed) => feed.keyDigests())).includes(digest);
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
 * Notes the first use of a key's version, beside the reply. That of a new version starts the old one's grace. A HEAD only
 * asks whether a key is valid, and is no use of it. The poll gets its answer also when the key store is out of reach.
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

/** LAPI takes the first value of a repeated header. vyos sends its key as `apikey`. */
function apiKey(headers: Headers): string {
  return (headers.get('x-api-key') ?? headers.get('apikey') ?? '').split(', ')[0] as string;
}

/**
 * `no-transform` keeps proxies from compressing for clients that did not ask: lua, halua and .NET can't read it.
 * `no-store` keeps caches from giving one bouncer's answer to another.
 */
const streamHeaders = { 'content-type': 'application/json', 'cache-control': 'no-store, no-transform' };

async function pollStream(c: Context<AppEnv>, bouncer: BouncerIdentity): Promise<Response> {
  // AppSec asks this way whether a key is valid, with 200 ms of patience. It is no poll, and moves no cursor.
  if (c.req.method === 'HEAD') return emptyHead();
  const query = parseStreamQuery(searchOf(c.req.url));
  if (!query.ok) return lapiError(query.failure);
  const poll = sighting(c, bouncer);
  const view = limited(c, query.value.view, bouncer);
  const asked = stream(c.env, poll, view, query.value.startup, () => ({
    gzip: acceptsGzip(c.req.raw),
    store: storeNews(bouncer, poll.seenMs),
  }));
  const answer = asked instanceof Promise ? await asked : asked;
  if (answer && 'kind' in answer) return cold(c);
  if (!answer?.gzip) return new Response(answer?.body ?? emptyStream, { headers: streamHeaders });
  const headers = { ...streamHeaders, 'content-encoding': 'gzip', vary: 'accept-encoding' };
  return new Response(answer.body, { headers, encodeBody: 'manual' });
}

async function listDecisions(c: Context<AppEnv>, bouncer: BouncerIdentity): Promise<Response> {
  const query = parseListQuery(searchOf(c.req.url));
  if (!query.ok) return lapiError(query.failure);
  if (c.req.method === 'HEAD') return emptyHead();
  const poll = sighting(c, bouncer);
  const view = limited(c, query.value.view, bouncer);
  const asked = list(c.env, poll, { ...query.value, view }, () => storeNews(bouncer, poll.seenMs));
  const answer = asked instanceof Promise ? await asked : asked;
  if (answer.kind === 'cold') return cold(c);
  const body = answer.kind === 'long' ? answer.body : [...renderList(answer.decisions, Date.now())].join('');
  const headers = { ...streamHeaders, 'content-type': 'application/json; charset=utf-8' };
  return new Response(body, { headers });
}

/** As from a LAPI that is not ready: the bouncer's own policy decides what to do meanwhile. Never an empty list. */
function cold(c: Context<AppEnv>): Response {
  const waitSeconds = Math.ceil(c.get('settings').syncIntervalMs / 1000);
  const problem = 'the decisions of the engine are not known yet';
  return lapiError({ kind: 'unavailable', problem, waitSeconds });
}

/** A view of what the request asks for: of the engine that its address names, and within the bouncer's limits. */
function limited(c: Context<AppEnv>, view: View, { policy: { limits } }: BouncerIdentity): View {
  const engine = c.get('engine');
  return engine ? { ...view, engines: [engine.name], limits } : { ...view, limits };
}

function emptyHead(): Response {
  return new Response(null, { headers: { 'content-type': 'text/plain; charset=utf-8' } });
}

const metricsLimitBytes = 1024 * 1024;

/** Keeps the newest report as it came. Go bouncers insist on 201 with an empty body. */
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
  if (report) c.executionCtx.waitUntil(forwardReport(c.env, report, seen));
  return new Response(null, { status: 201 });
}

/** Beside the answer: the bouncer need not know whether the engines get its report. */
async function forwardReport(env: Env, report: Report, engines: readonly string[] | null): Promise<void> {
  try {
    await askFeed(env, async (feed) => feed.takeReport(report, engines));
  } catch (error) {
    console.error(`usage metrics were not forwarded: ${causeOf(error).message}`);
  }
}

/** As LAPI checks it (controllers/v1/usagemetrics.go), and no stricter: lua posts objects in place of lists. */
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
    return badInput('remediation_components.0', 'not an object');
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

/**
 * Whether the client itself asked for gzip. On Cloudflare, which sets `colo`, the header is `br, gzip` for everybody:
 * there only `clientAcceptEncoding` counts.
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
