// The tree of routes: who is served where, by whom each group is authenticated, how each group is told of an
// error. Every mount is here; there is no other list.

import { Hono } from 'hono';
import { namesHost, readAddress, type Address } from './http/address.ts';
import { operatorApi, operatorRoutes } from './api.ts';
import { bootstrapApi, bootstrapRoutes } from './hosts/bootstrap-api.ts';
import { openApiDocument } from './operations/openapi.ts';
import { noteProxy, settingsOf, type AppEnv } from './env.ts';
import { StoreError } from './store/ask.ts';
import { causeOf, lapiError, problem, type Failure } from './http/failure.ts';
import { bouncerRoutes } from './lapi/bouncers.ts';
import { health } from './lapi/health.ts';
import { machineRoutes } from './machines/routes.ts';
import { whyUnavailable } from './feed/retry.ts';
import { SettingError } from './config/settings.ts';

export const routes = new Hono<AppEnv>({
  getPath: (request, options) => addressOf(request, options?.env as Env).path,
});

/** Hono asks for the path before it has a context in which the engine could be kept. */
const addresses = new WeakMap<Request, Address>();

function addressOf(request: Request, env: Env): Address {
  let address = addresses.get(request);
  if (!address) addresses.set(request, (address = readAddress(request.url, settingsOf(env))));
  return address;
}

routes.use(async (c, next) => {
  const settings = settingsOf(c.env);
  noteProxy(c.req.raw.headers, settings);
  c.set('settings', settings);
  c.set('engine', addressOf(c.req.raw, c.env).engine);
  await next();
});

routes.route('/v1', bouncerRoutes);
routes.route('/v1', machineRoutes);
routes.route('/api/v1', operatorRoutes);
routes.route('/bootstrap/v1', bootstrapRoutes);

/** What /openapi.json describes. */
const documented = [...operatorApi, bootstrapApi];

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
  return failed(c.req.path, { kind: 'not-found', what });
});

const storeOut: Failure = { kind: 'unavailable', problem: 'the key store is out of reach; try again' };

routes.onError((error, c) => {
  const requestId = crypto.randomUUID();
  const cause = causeOf(error);
  const known = error instanceof StoreError ? storeOut : (whyUnavailable(error) ?? whyUnavailable(cause));
  if (known) {
    console.error(`${c.req.method} ${c.req.path} failed: ${cause.message}`);
    return failed(c.req.path, known);
  }
  console.error(`request ${requestId} failed: ${cause.stack ?? cause.message}`);
  return failed(c.req.path, { kind: 'internal', requestId });
});

/** The operator API and what belongs to no group speak problem+json, everything of LAPI its own body. */
function failed(path: string, failure: Failure): Response {
  return path.startsWith('/api/') || path.startsWith('/bootstrap/') ? problem(failure) : lapiError(failure);
}

/** Answers one request. */
export async function serve(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
  const failure = whyNot(request, env);
  if (!failure) return routes.fetch(request, env, ctx);
  // The prefix is a setting, too, and the address may be none: neither is asked for.
  return /^[^?]*\/(api|bootstrap)\/v1\//.test(request.url) ? problem(failure) : lapiError(failure);
}

/** What keeps a request from every route: a setting that is wrong, which is named, or an address that is none. */
function whyNot(request: Request, env: Env): Failure | null {
  try {
    settingsOf(env);
  } catch (error) {
    if (!(error instanceof SettingError)) throw error;
    console.error(`a setting is wrong: ${error.message}`);
    return { kind: 'unavailable', problem: error.message };
  }
  return namesHost(request) ? null : { kind: 'bad-input', field: 'host', problem: 'no name of a host' };
}
