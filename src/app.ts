// The tree of routes: where each group is mounted, and in which form it answers errors. Each group authenticates its own
// callers. Every mount is here; there is no other list.

import { Hono } from 'hono';
import { namesHost, readAddress, type Address } from './http/address.ts';
import { operatorApi, operatorRoutes } from './api.ts';
import { consoleRoutes } from './console/routes.ts';
import { failurePage } from './console/frame.tsx';
import { bootstrapApi, bootstrapRoutes } from './hosts/bootstrap-api.ts';
import { openApiDocument } from './operations/openapi.ts';
import { noteProxy, settingsOf, type AppEnv } from './env.ts';
import { StoreError } from './store/ask.ts';
import { causeOf, fail, lapiError, problem, succeed, type Failure, type Result } from './http/failure.ts';
import { bouncerRoutes } from './lapi/bouncers.ts';
import { health } from './lapi/health.ts';
import { listRoutes } from './lapi/lists.ts';
import { quickPoll } from './lapi/quick-poll.ts';
import { metricsApi, metricsRoutes } from './metrics/api.ts';
import { machineRoutes } from './machines/routes.ts';
import { whyUnavailable } from './feed/retry.ts';
import { SettingError, type Settings } from './config/settings.ts';

export const routes = new Hono<AppEnv>({
  getPath: (request, options) => addressOf(request, options?.env as Env).path,
});

/** Kept by request: Hono asks for the path before there is a context to keep the engine in. */
const addresses = new WeakMap<Request, Address>();

function addressOf(request: Request, env: Env): Address {
  const address = addresses.get(request) ?? readAddress(request.url, settingsOf(env));
  addresses.set(request, address);
  return address;
}

routes.use(async (c, next) => {
  c.set('settings', settingsOf(c.env));
  c.set('engine', addressOf(c.req.raw, c.env).engine);
  await next();
});

routes.route('/v1', bouncerRoutes);
routes.route('/v1', machineRoutes);
routes.route('/api/v1', operatorRoutes);
routes.route('/bootstrap/v1', bootstrapRoutes);
routes.route('/lists', listRoutes);
routes.route('/', metricsRoutes);
routes.route('/console', consoleRoutes);
// So that something in front can protect the console alone: on `/` it would send bouncers to a log-in page.
routes.get('/', (c) => c.redirect(`${c.get('settings').pathPrefix}/console/`));

/** What /openapi.json describes. */
const documented = [...operatorApi, metricsApi, bootstrapApi];

routes.all('/health', health);

// Open to all: it is in the source, too.
routes.get('/openapi.json', (c) => {
  return c.body(documentAt(c.get('settings').pathPrefix), 200, { 'content-type': 'application/json' });
});

let lastDocument: { readonly pathPrefix: string; readonly json: string } | undefined;

/** Built once in an isolate, which has one prefix: it takes as long as a hundred polls, and anybody may ask for it. */
function documentAt(pathPrefix: string): string {
  if (lastDocument?.pathPrefix !== pathPrefix) {
    lastDocument = { pathPrefix, json: JSON.stringify(openApiDocument(documented, pathPrefix)) };
  }
  return lastDocument.json;
}

routes.notFound((c) => {
  const { unknownEngine } = addressOf(c.req.raw, c.env);
  const what = unknownEngine === undefined ? 'this path' : `engine ${unknownEngine}`;
  return failed(c.req.path, { kind: 'not-found', what }, settingsOf(c.env));
});

const storeOut: Failure = { kind: 'unavailable', problem: 'the key store is out of reach; try again' };

routes.onError((error, c) => failedBy(error, c.req.method, c.req.path, settingsOf(c.env)));

/** What went wrong on the way to an answer. `path`: as routed. */
function failedBy(
  error: unknown,
  method: string,
  path: string,
  settings: Settings,
): Response | Promise<Response> {
  const requestId = crypto.randomUUID();
  const cause = causeOf(error);
  const known = error instanceof StoreError ? storeOut : (whyUnavailable(error) ?? whyUnavailable(cause));
  if (known) {
    console.error(`${method} ${path} failed: ${cause.message}`);
    return failed(path, known, settings);
  }
  console.error(`request ${requestId} failed: ${cause.stack ?? cause.message}`);
  return failed(path, { kind: 'internal', requestId }, settings);
}

/**
 * What operators, hosts and appliances ask is answered with problem+json, the console with a page, all other paths with LAPI's error
 * body.
 */
function failed(path: string, failure: Failure, { pathPrefix }: Settings): Response | Promise<Response> {
  if (/^\/console(?:\/|$)/.test(path)) return failurePage(failure, `${pathPrefix}/console`);
  return /^\/(?:(?:api|bootstrap|lists)\/|metrics$)/.test(path) ? problem(failure) : lapiError(failure);
}

/** Answers one request. */
export function serve(request: Request, env: Env, ctx: ExecutionContext): Response | Promise<Response> {
  const settings = goodSettings(env);
  if (!settings.ok) return refused(request, settings.failure);
  const answer = poll(request, env, settings.value);
  if (answer) return answer;
  // A client's first request comes here, too.
  noteProxy(request.headers, settings.value);
  if (namesHost(request)) return routes.fetch(request, env, ctx);
  return refused(request, { kind: 'bad-input', field: 'host', problem: 'no name of a host' });
}

/** The answer to a poll that needs no router, or null. */
function poll(request: Request, env: Env, settings: Settings): Response | Promise<Response> | null {
  const failure = (error: unknown) =>
    failedBy(error, request.method, readAddress(request.url, settings).path, settings);
  try {
    const answer = quickPoll(request, env, settings);
    return answer instanceof Promise ? answer.catch(failure) : answer;
  } catch (error) {
    return failure(error);
  }
}

/** An invalid setting is named: it keeps requests from every route. */
function goodSettings(env: Env): Result<Settings> {
  try {
    return succeed(settingsOf(env));
  } catch (error) {
    if (!(error instanceof SettingError)) throw error;
    console.error(`a setting is wrong: ${error.message}`);
    return fail({ kind: 'unavailable', problem: error.message });
  }
}

/** What reaches no route. The prefix may not be known, and the address be invalid: the path is looked for in the URL. */
function refused({ url }: Request, failure: Failure): Response {
  return /^[^?]*\/(api|bootstrap)\/v1\//.test(url) ? problem(failure) : lapiError(failure);
}
