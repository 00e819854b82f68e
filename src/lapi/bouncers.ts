// LAPI's routes for bouncers. Thirty bouncers were tried: a status other than 200, a redirect, an error without
// `message`, or `[]` for an empty list each stops or crashes one of them.

import { Hono, type Context, type Next } from 'hono';
import type { AppEnv } from '../env.ts';
import { saveMetrics } from '../bouncers/bouncers.sql.ts';
import { badInput, causeOf, lapiError, succeed, type Result } from '../http/failure.ts';
import { reportOf, type Report } from '../engines/metrics.ts';
import { readJson } from '../http/body.ts';
import { isMachines, withMachines } from '../machines/routes.ts';
import { parseListQuery } from '../stream/query.ts';
import { searchOf } from '../http/address.ts';
import type { UsageReport } from '../counters/usage.sql.ts';
import { windowsOf } from '../counters/usage.ts';
import { counted, type Counted } from '../counters/counting.ts';
import { askFeed, count } from '../feed/client.ts';
import { admit, noteUse, refusalOf } from './admit.ts';
import { answerList, apiKey, readStreamQuery, type Asker } from './poll.ts';
import { answerStream } from './waiting.ts';

export const bouncerRoutes = new Hono<AppEnv>();

type Reply = (c: Context<AppEnv>, asker: Asker) => Response | Promise<Response>;

/** The methods of a route, and as what their requests are counted. */
type Methods = Readonly<Record<string, Counted>>;

const streamMethods = { GET: counted.polls, HEAD: counted.pollHeads };
const listMethods = { GET: counted.lookUps, HEAD: counted.lookUpHeads };

bouncerRoutes.all('/decisions/stream', (c, next) => answer(c, next, streamMethods, pollStream));
bouncerRoutes.all('/decisions', (c, next) => answer(c, next, listMethods, listDecisions));
bouncerRoutes.all('/usage-metrics', (c, next) => answer(c, next, { POST: counted.reports }, usageMetrics));

/** Checks the method, then the key, as LAPI's router does; then what the key may do. Then replies. */
async function answer(
  c: Context<AppEnv>,
  next: Next,
  methods: Methods,
  reply: Reply,
): Promise<Response | void> {
  if (isMachines(c)) return next();
  const method = methods[c.req.method];
  if (method === undefined) {
    return lapiError({ kind: 'method-not-allowed', allow: withMachines(c, Object.keys(methods)) });
  }
  const asker = await admit(c, apiKey(c.req.raw.headers));
  if (!asker.ok) return refusalOf(asker.failure);
  count(asker.value.bouncer.id, method);
  // A HEAD only asks whether a key is valid, and is no use of it.
  const used = c.req.method === 'HEAD' ? null : noteUse(c, asker.value);
  const [response] = await Promise.all([reply(c, asker.value), used]);
  return response;
}

function pollStream(c: Context<AppEnv>, asker: Asker): Response | Promise<Response> {
  // AppSec asks this way whether a key is valid, with 200 ms of patience. It is no poll, and moves no cursor.
  if (c.req.method === 'HEAD') return emptyHead();
  const query = readStreamQuery(searchOf(c.req.url), c.get('engine'));
  return query.ok ? answerStream(asker, query.value) : lapiError(query.failure);
}

function listDecisions(c: Context<AppEnv>, asker: Asker): Response | Promise<Response> {
  const query = parseListQuery(searchOf(c.req.url));
  if (!query.ok) return lapiError(query.failure);
  if (c.req.method === 'HEAD') return emptyHead();
  return answerList(asker, query.value, c.get('engine'));
}

function emptyHead(): Response {
  return new Response(null, { headers: { 'content-type': 'text/plain; charset=utf-8' } });
}

const metricsLimitBytes = 1024 * 1024;

/** Keeps the newest report as it came. Go bouncers insist on 201 with an empty body. */
async function usageMetrics(c: Context<AppEnv>, { bouncer }: Asker): Promise<Response> {
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
  const usage = { bouncerId: bouncer.id, windows: windowsOf(component.value) };
  if (report || usage.windows.length > 0) {
    c.executionCtx.waitUntil(forwardReport(c.env, report, seen, usage));
  }
  return new Response(null, { status: 201 });
}

/** Beside the answer: the bouncer need not know whether the engines get its report, nor whether it is added up. */
async function forwardReport(
  env: Env,
  report: Report | null,
  engines: readonly string[] | null,
  usage: UsageReport,
): Promise<void> {
  try {
    await askFeed(env, async (feed) => feed.takeReport(report, engines, usage));
  } catch (error) {
    console.error(`usage metrics were not forwarded or added up: ${causeOf(error).message}`);
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
