// LAPI's routes for machines: log processors, cscli, whoever logs in at the engine. Only the routes listed below are
// forwarded to the engine; trust.ts decides who may use them. A machine that writes gets its answer once the feed has
// followed.

import { Hono, type Context } from 'hono';
import { checkMachine } from './blocklist.ts';
import { clientAddress, type AppEnv } from '../env.ts';
import { badInput, causeOf, done, lapiError, type Failure, type Result } from '../http/failure.ts';
import type { Write } from '../engines/rounds.ts';
import type { EngineSettings } from '../config/engines.ts';
import { searchOf } from '../http/address.ts';
import { withinMs } from '../runtime/wait.ts';
import { noteGoodLogin, publicAnswer, readLogin, tryLogin, type Login } from './logins.ts';
import { checkToken, claimedMachine, isGoodToken, noteIssuedToken, tokenOf, tryToken } from './tokens.ts';
import { parseQuery } from '../stream/query.ts';
import { forward } from './forward.ts';
import { mayAsLocal } from './trust.ts';
import { askFeed, countRefusal, forgetLatest } from '../feed/client.ts';

type Reply = (c: Context<AppEnv>) => Promise<Response>;
type Method = 'GET' | 'HEAD' | 'POST' | 'DELETE';

/** LAPI's own limits since 1.7.8. */
const loginLimitBytes = 2 * 1024 * 1024;
const limitBytes = 50 * 1024 * 1024;

/** All forwarded routes, in the order of LAPI's `Allow` (controllers/controller.go). Nothing else reaches the engine. */
const forwardedRoutes: Readonly<Record<string, Partial<Record<Method, Reply>>>> = {
  '/watchers': { POST: register },
  '/watchers/login': { POST: logIn },
  '/watchers/self': { DELETE: forwarded },
  '/refresh_token': { GET: refreshToken },
  '/heartbeat': { GET: heartbeat },
  '/alerts': { GET: forwarded, POST: writing('added'), HEAD: forwarded, DELETE: deleteAlerts },
  '/alerts/:id': { GET: forwarded, HEAD: forwarded, DELETE: deleteAlerts },
  '/decisions': { DELETE: writing('ended') },
  '/decisions/:id': { DELETE: writing('ended') },
  '/allowlists/check': { GET: forwarded, POST: forwarded },
  '/allowlists/check/:network': { GET: forwarded, HEAD: forwarded },
  '/allowlists': { GET: forwarded },
  '/allowlists/:name': { GET: forwarded },
  '/usage-metrics': { POST: forwarded },
};

const routesWithoutToken = ['/watchers', '/watchers/login'];

const closed: Failure = { kind: 'not-found', what: 'MACHINE_ROUTES is off: this path' };

export const machineRoutes = new Hono<AppEnv>();

for (const [path, replies] of Object.entries(forwardedRoutes)) {
  machineRoutes.all(path, async (c, next) => {
    if (!c.get('settings').machineRoutes) return lapiError(closed);
    if (!engineOf(c)) return next();
    const reply = replies[c.req.method as Method];
    if (!reply) return lapiError({ kind: 'method-not-allowed', allow: Object.keys(replies) });
    const target = checkTarget(c);
    if (!target.ok) return lapiError(target.failure);
    const token = routesWithoutToken.includes(path)
      ? done
      : checkToken(c.req.raw.headers, path === '/refresh_token', Date.now());
    const answer = token.ok ? await reply(c) : lapiError(token.failure);
    if (answer.status === 401 || answer.status === 403)
      countRefusal('machine', reasonOf(path, answer.status));
    return answer;
  });
}

/** Why a machine is refused: by the engine, or here. */
function reasonOf(path: string, status: 401 | 403): string {
  if (status === 403) return 'forbidden';
  return path === '/watchers/login' ? 'login' : 'token';
}

/**
 * Whether a request on a path that bouncers use is a machine's. LAPI lets only machines delete decisions, and takes
 * usage metrics from both (its eitherAuthMiddleware).
 */
export function isMachines(c: Context<AppEnv>): boolean {
  if (!engineOf(c)) return false;
  if (c.req.method === 'DELETE') return true;
  if (c.req.method !== 'POST' || !c.req.path.endsWith('/usage-metrics')) return false;
  const { headers } = c.req.raw;
  if (headers.get('x-api-key') || headers.get('apikey')) return false;
  return Boolean(headers.get('authorization')) || /^crowdsec\//.test(headers.get('user-agent') ?? '');
}

/** The methods that a 405 allows on a path of decisions: machines may delete there as well. */
export function withMachines(c: Context<AppEnv>, methods: readonly string[]): readonly string[] {
  return engineOf(c) && methods.includes('GET') ? [...methods, 'DELETE'] : methods;
}

/** The engine that a machine reaches here: the one that the address names, or the first. Null: machines have no routes. */
function engineOf(c: Context<AppEnv>): EngineSettings | null {
  const { machineRoutes: open, engines } = c.get('settings');
  return open ? (c.get('engine') ?? engines[0] ?? null) : null;
}

/** For routes that are known to be open. */
function openEngine(c: Context<AppEnv>): EngineSettings {
  return engineOf(c) as EngineSettings;
}

function addressOf(c: Context<AppEnv>): string {
  return clientAddress(c.req.raw, c.get('settings'));
}

async function register(c: Context<AppEnv>): Promise<Response> {
  const may = await mayAsLocal(c, 'register');
  return may.ok
    ? answerOf(await publicAnswer(await forwardAdmitted(c, loginLimitBytes)))
    : lapiError(may.failure);
}

async function logIn(c: Context<AppEnv>): Promise<Response> {
  const body = () => readLogin(c.req.raw, loginLimitBytes);
  const result = await tryLogin(c.env, addressOf(c), body, async (login) => {
    const answer = await publicAnswer(await forwardAdmitted(c, loginLimitBytes, login));
    await noteIssuedToken(openEngine(c).name, answer);
    return answer;
  });
  return answerOf(result);
}

async function deleteAlerts(c: Context<AppEnv>): Promise<Response> {
  const may = await mayAsLocal(c, 'delete alerts');
  return may.ok ? writing('dropped')(c) : lapiError(may.failure);
}

/** Log processors send one a minute. It keeps them known as good at their address. */
async function heartbeat(c: Context<AppEnv>): Promise<Response> {
  const askedMs = Date.now();
  const result = await forwardWithToken(c);
  const machine = claimedMachine(c.req.raw.headers);
  if (result.ok && result.value.ok && machine !== null) await noteGoodLogin(addressOf(c), machine, askedMs);
  return answerOf(result);
}

/** Forwards what changes nothing that the feed has. */
async function forwarded(c: Context<AppEnv>): Promise<Response> {
  return answerOf(await forwardWithToken(c));
}

async function refreshToken(c: Context<AppEnv>): Promise<Response> {
  const result = await forwardWithToken(c);
  await noteIssuedToken(openEngine(c).name, result);
  return answerOf(result);
}

/** How long a machine waits until the feed has what it wrote. The work goes on after that. */
const writeThroughMs = 2_000;

function writing(effect: Write['effect']): Reply {
  return (c) => {
    const answer = write(c, effect);
    // If the machine goes away, the work goes on: the engine may have written already.
    c.executionCtx.waitUntil(answer.catch(() => undefined));
    return answer;
  };
}

/**
 * Forwards a write, and answers when the feed has followed. Bouncers that ask through this isolate see the change in
 * their next poll; through another one within 1 s, in which that one may not have followed the feed.
 */
async function write(c: Context<AppEnv>, effect: Write['effect']): Promise<Response> {
  const startMs = Date.now();
  const result = await forwardWithToken(c);
  if (result.ok && result.value.status >= 400 && result.value.status < 500) return result.value;
  if (!result.ok && result.failure.kind !== 'unavailable') return lapiError(result.failure);
  // An engine that failed or fell silent may have written all the same: the feed looks, and nobody waits.
  const isDone = result.ok && result.value.ok;
  const tookMs = Date.now() - startMs;
  if (!isDone && !(await isGoodToken(openEngine(c).name, tokenOf(c.req.raw.headers)))) {
    c.executionCtx.waitUntil(followSeldom(c, { effect, certain: false, tookMs }));
    return answerOf(result);
  }
  const certain = isDone && effect === 'dropped' && (await deletedSome(result.value));
  const followed = follow(c, { effect, certain, tookMs });
  c.executionCtx.waitUntil(followed);
  if (isDone) await withinMs(followed, writeThroughMs);
  return answerOf(result);
}

/** LAPI answers `{"nbDeleted":"3"}`. False if the answer breaks off, as it then does for the machine. */
async function deletedSome(answer: Response): Promise<boolean> {
  try {
    return /"nbDeleted":"?[1-9]/.test(await answer.clone().text());
  } catch {
    return false;
  }
}

/** How often the feed looks for writes of callers whose token is not known to be good. */
const seldomMs = 10_000;
/** Engine and effect → the time of the next such look, or of the last. */
const seldomAtMs = new Map<string, number>();

/** Anybody can invent a token and send writes to an engine that is down: all of them share the next look. */
async function followSeldom(c: Context<AppEnv>, write: Write): Promise<void> {
  const key = `${openEngine(c).name} ${write.effect}`;
  const nowMs = Date.now();
  const inMs = (seldomAtMs.get(key) ?? -Infinity) - nowMs;
  if (inMs > 0 && inMs <= seldomMs) return;
  const waitMs = inMs > 0 ? 0 : Math.max(0, inMs + seldomMs);
  seldomAtMs.set(key, nowMs + waitMs);
  if (waitMs > 0) await scheduler.wait(waitMs);
  await follow(c, { ...write, tookMs: write.tookMs + waitMs });
}

async function follow(c: Context<AppEnv>, write: Write): Promise<void> {
  try {
    await askFeed(c.env, async (feed) => feed.syncAfter(openEngine(c).name, write));
  } catch (error) {
    console.error(`a machine's write was not followed at once: ${causeOf(error).message}`);
  }
  forgetLatest(Date.now());
}

function answerOf(result: Result<Response>): Response {
  return result.ok ? result.value : lapiError(result.failure);
}

/** Forwards a request that its token admits. */
async function forwardWithToken(c: Context<AppEnv>): Promise<Result<Response>> {
  const token = tokenOf(c.req.raw.headers);
  return tryToken(openEngine(c).name, token, addressOf(c), () => forwardAdmitted(c, limitBytes));
}

/**
 * Forwards a request unless an operator blocked its machine, by the name in its token or in its `login`. `login`: what
 * was read of the body before.
 */
async function forwardAdmitted(c: Context<AppEnv>, most: number, login?: Login): Promise<Result<Response>> {
  for (const machine of [claimedMachine(c.req.raw.headers), login?.machine ?? null]) {
    const admitted = machine === null ? done : await checkMachine(c.env.DB, machine, Date.now());
    if (!admitted.ok) return admitted;
  }
  const target = c.req.path + searchOf(c.req.url);
  const body = login ? { body: login.body } : {};
  return forward(c.req.raw, openEngine(c), { target, address: addressOf(c), limitBytes: most, ...body });
}

/** Where a DELETE removes all that its query selects, and everything without a query. */
const deleteAllPaths = ['/v1/alerts', '/v1/decisions'];

/**
 * Path and query reach the engine as they are. Engines before 1.6.8, and some proxies, read `%2F` as a slash and `..` as
 * a step up: neither may lead to another route than the one that was matched here.
 */
function checkTarget(c: Context<AppEnv>): Result<void> {
  const { path, method } = c.req;
  // The slash was cut off in routing. A client that has no id to put behind it does not mean to delete all.
  if (method === 'DELETE' && deleteAllPaths.includes(path) && new URL(c.req.url).pathname.endsWith('/')) {
    return badInput('path', `an id is missing behind the slash; all are deleted by ${path} without it`);
  }
  if (/\.\.|%2e|%5c|%25|%00|[\\;]/i.test(path))
    return badInput('path', 'has an escape that no route of LAPI has');
  if (/%2f/i.test(path) && !path.startsWith('/v1/allowlists/check/')) {
    return badInput('path', 'has an escaped slash');
  }
  if (parseQuery(searchOf(c.req.url)).has('token')) {
    return badInput('token', 'send it as Authorization: Bearer …; addresses are written to logs on the way');
  }
  return done;
}
