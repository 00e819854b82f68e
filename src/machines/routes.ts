// LAPI's routes for machines: log processors, cscli, whoever logs in at the engine. They are passed to the engine from
// the list below and from nowhere else; who may pass what is trust.ts's. Whatever a machine changed is in this feed
// before the machine has its answer.

import { Hono, type Context } from 'hono';
import { checkMachine } from './blocklist.ts';
import { clientAddress, type AppEnv } from '../env.ts';
import { badInput, causeOf, fail, lapiError, succeed, type Failure, type Result } from '../http/failure.ts';
import type { Write } from '../engines/rounds.ts';
import type { EngineSettings } from '../config/engines.ts';
import { withinMs } from '../runtime/wait.ts';
import { forgetAnswers, keepAnswer, noteAdmitted, recallAnswer } from './allowlists.ts';
import { readBytes } from '../http/body.ts';
import { forStrangers } from './login-errors.ts';
import { noteGood, tryLogIn, type Login } from './logins.ts';
import { isGoodToken, noteGiven, tryToken } from './tokens.ts';
import { parseQuery } from '../stream/query.ts';
import { forgetHead } from '../feed/fast-path.ts';
import { relay } from './forward.ts';
import { checkToken, claimedMachine, machineIn, mayAsLocal, tokenOf } from './trust.ts';
import { askFeed } from '../feed/client.ts';

type Reply = (c: Context<AppEnv>) => Promise<Response>;
type Method = 'GET' | 'HEAD' | 'POST' | 'DELETE';

/** LAPI's own limits, which it has since 1.7.8. */
const loginLimitBytes = 2 * 1024 * 1024;
const limitBytes = 50 * 1024 * 1024;
const tooLargeLogin: Failure = { kind: 'login-refused', problem: 'missing: http: request body too large' };

/** All that is passed on (LAPI: controllers/controller.go, in the order of its `Allow`). Nothing else reaches the engine. */
const passages: Readonly<Record<string, Partial<Record<Method, Reply>>>> = {
  '/watchers': { POST: register },
  '/watchers/login': { POST: logIn },
  '/watchers/self': { DELETE: pass },
  '/refresh_token': { GET: renew },
  '/heartbeat': { GET: beat },
  '/alerts': { GET: pass, POST: writing('added'), HEAD: pass, DELETE: deleteAlerts },
  '/alerts/:id': { GET: pass, HEAD: pass, DELETE: deleteAlerts },
  '/decisions': { DELETE: writing('ended') },
  '/decisions/:id': { DELETE: writing('ended') },
  '/allowlists/check': { GET: askAllowlists, POST: pass },
  '/allowlists/check/:network': { GET: askAllowlists, HEAD: askAllowlists },
  '/allowlists': { GET: askAllowlists },
  '/allowlists/:name': { GET: askAllowlists },
  '/usage-metrics': { POST: pass },
};

/** Of those whom nobody knows yet. */
const tokenless = ['/watchers', '/watchers/login'];

const closed: Failure = { kind: 'not-found', what: 'MACHINE_ROUTES is off: this path' };

export const machineRoutes = new Hono<AppEnv>();

for (const [path, replies] of Object.entries(passages)) {
  machineRoutes.all(path, async (c, next) => {
    if (!c.get('settings').machineRoutes) return lapiError(closed);
    if (!engineOf(c)) return next();
    const reply = replies[c.req.method as Method];
    if (!reply) return lapiError({ kind: 'method-not-allowed', allow: Object.keys(replies) });
    const whole = checkTarget(c);
    if (!whole.ok) return lapiError(whole.failure);
    const token = tokenless.includes(path)
      ? whole
      : checkToken(c.req.raw.headers, path === '/refresh_token', Date.now());
    return token.ok ? reply(c) : lapiError(token.failure);
  });
}

/**
 * Whether a request on a path that bouncers use is a machine's: LAPI takes decisions back for machines only, and
 * takes usage metrics from both (its eitherAuthMiddleware).
 */
export function isMachines(c: Context<AppEnv>): boolean {
  if (!engineOf(c)) return false;
  if (c.req.method === 'DELETE') return true;
  if (c.req.method !== 'POST' || !c.req.path.endsWith('/usage-metrics')) return false;
  const { headers } = c.req.raw;
  if (headers.get('x-api-key') || headers.get('apikey')) return false;
  return Boolean(headers.get('authorization')) || /^crowdsec\//.test(headers.get('user-agent') ?? '');
}

/** What a 405 allows on a path of decisions: those who decide take them back there, too. */
export function withMachines(c: Context<AppEnv>, methods: readonly string[]): readonly string[] {
  return engineOf(c) && methods.includes('GET') ? [...methods, 'DELETE'] : methods;
}

/** The engine that a machine reaches through here: the one that it names, or the first; null: the group is closed. */
function engineOf(c: Context<AppEnv>): EngineSettings | null {
  const { machineRoutes: open, engines } = c.get('settings');
  return open ? (c.get('engine') ?? engines[0] ?? null) : null;
}

/** Once the group is known to be open. */
function openEngine(c: Context<AppEnv>): EngineSettings {
  return engineOf(c) as EngineSettings;
}

async function register(c: Context<AppEnv>): Promise<Response> {
  const may = await mayAsLocal(c, 'register');
  return may.ok ? answered(await forStrangers(await passOn(c, loginLimitBytes))) : lapiError(may.failure);
}

async function logIn(c: Context<AppEnv>): Promise<Response> {
  const address = clientAddress(c.req.raw, c.get('settings'));
  const read = () => readLogin(c.req.raw);
  const pass = async (login: Login) => {
    const result = await forStrangers(await passOn(c, loginLimitBytes, login));
    await noteGiven(openEngine(c).name, result);
    return result;
  };
  return answered(await tryLogIn(c.env, address, read, pass));
}

async function readLogin(request: Request): Promise<Result<Login>> {
  const body = await readBytes(request, loginLimitBytes);
  if (!body.ok) return body.failure.kind === 'too-large' ? fail(tooLargeLogin) : body;
  const machine = machineIn(body.value);
  return machine.ok ? succeed({ body: body.value, machine: machine.value }) : machine;
}

async function deleteAlerts(c: Context<AppEnv>): Promise<Response> {
  const may = await mayAsLocal(c, 'delete alerts');
  return may.ok ? writing('dropped')(c) : lapiError(may.failure);
}

/** Log processors do so once a minute, which keeps them known to be good. */
async function beat(c: Context<AppEnv>): Promise<Response> {
  const askedMs = Date.now();
  const result = await passWithToken(c);
  if (result.ok && result.value.ok) {
    await noteAdmitted(openEngine(c).name, c.req.header('authorization') ?? '', askedMs);
    const machine = claimedMachine(c.req.raw.headers);
    if (machine !== null) await noteGood(clientAddress(c.req.raw, c.get('settings')), machine, askedMs);
  }
  return answered(result);
}

async function askAllowlists(c: Context<AppEnv>): Promise<Response> {
  const askedMs = Date.now();
  const authorization = c.req.header('authorization') ?? '';
  const { name } = openEngine(c);
  const question = `${name} ${c.req.method} ${c.req.path}${searchOf(c)}`;
  const passes = await admit(c);
  if (!passes.ok) return lapiError(passes.failure);
  const kept = await recallAnswer(name, authorization, question, askedMs);
  if (kept) return kept;
  const result = await passWithToken(c);
  if (!result.ok) return lapiError(result.failure);
  if (result.value.ok) await noteAdmitted(name, authorization, askedMs);
  return answered(await keepAnswer(question, result.value, askedMs));
}

async function pass(c: Context<AppEnv>): Promise<Response> {
  return answered(await passWithToken(c));
}

async function renew(c: Context<AppEnv>): Promise<Response> {
  const result = await passWithToken(c);
  await noteGiven(openEngine(c).name, result);
  return answered(result);
}

/** How long a machine waits for this feed to have what it wrote; the work goes on after that. */
const writeThroughMs = 2_000;

function writing(effect: Write['effect']): Reply {
  return (c) => {
    const answer = write(c, effect);
    // A machine that goes away would end it otherwise, when the engine may have written already.
    c.executionCtx.waitUntil(answer.catch(() => undefined));
    return answer;
  };
}

/**
 * Passes a write on, and answers when the feed has followed. Bouncers that ask through this isolate see it in their
 * next poll; through another one within 1 s, the time for which that trusts the head it has seen.
 */
async function write(c: Context<AppEnv>, effect: Write['effect']): Promise<Response> {
  const startMs = Date.now();
  const result = await passWithToken(c);
  // An engine that failed, or fell silent, may have written all the same: then nobody waits, but it is looked for.
  if (result.ok && result.value.status >= 400 && result.value.status < 500) return result.value;
  if (!result.ok && result.failure.kind !== 'unavailable') return lapiError(result.failure);
  const done = result.ok && result.value.ok;
  const tookMs = Date.now() - startMs;
  if (!done && !(await isGoodToken(openEngine(c).name, tokenOf(c.req.raw.headers)))) {
    c.executionCtx.waitUntil(followSeldom(c, { effect, certain: false, tookMs }));
    return answered(result);
  }
  const certain = done && effect === 'dropped' && (await deletedSome(result.value));
  const followed = follow(c, { effect, certain, tookMs });
  c.executionCtx.waitUntil(followed);
  if (done) await withinMs(followed, writeThroughMs);
  return answered(result);
}

/** LAPI: `{"nbDeleted":"3"}`. Not known of an answer that breaks off, as it does for the machine. */
async function deletedSome(answer: Response): Promise<boolean> {
  try {
    return /"nbDeleted":"?[1-9]/.test(await answer.clone().text());
  } catch {
    return false;
  }
}

/** How often what somebody may have written, whom nobody knows, is looked for. */
const seldomMs = 10_000;
/** Engine and effect → when that is next done, or was last. */
const seldomAtMs = new Map<string, number>();

/** Anybody can make a token up, and have an engine that is down asked: all that come meanwhile share the next look. */
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
  forgetAnswers(Date.now());
  try {
    await askFeed(c.env, async (feed) => feed.syncAfter(openEngine(c).name, write));
  } catch (error) {
    console.error(`a machine's write was not followed at once: ${causeOf(error).message}`);
  }
  forgetHead(Date.now());
}

function answered(result: Result<Response>): Response {
  return result.ok ? result.value : lapiError(result.failure);
}

/** Whether an operator lets this machine pass, by its token and by the name that it logs in under. */
async function admit(c: Context<AppEnv>, login: string | null = null): Promise<Result<'passes'>> {
  for (const machine of [claimedMachine(c.req.raw.headers), login]) {
    const passes = machine === null ? null : await checkMachine(c.env.DB, machine, Date.now());
    if (passes && !passes.ok) return passes;
  }
  return succeed('passes');
}

/** On all routes but a log-in and a registration: by their token. */
async function passWithToken(c: Context<AppEnv>): Promise<Result<Response>> {
  const address = clientAddress(c.req.raw, c.get('settings'));
  const token = tokenOf(c.req.raw.headers);
  return tryToken(openEngine(c).name, token, address, () => passOn(c, limitBytes));
}

/** `login`: what was read of the body before. */
async function passOn(c: Context<AppEnv>, most: number, login?: Login): Promise<Result<Response>> {
  const passes = await admit(c, login?.machine ?? null);
  if (!passes.ok) return passes;
  const address = clientAddress(c.req.raw, c.get('settings'));
  const target = c.req.path + searchOf(c);
  const passage = { target, address, limitBytes: most, ...(login ? { body: login.body } : {}) };
  return relay(c.req.raw, openEngine(c), passage);
}

/** Where a DELETE is of all that its query leaves, and of everything without one. */
const ofAll = ['/v1/alerts', '/v1/decisions'];

/**
 * Path and query go to the engine as they are. Engines before 1.6.8, and proxies before any, read `%2F` as a slash and
 * `..` as a step back: neither may lead to another route than the one that was matched here.
 */
function checkTarget(c: Context<AppEnv>): Result<'good'> {
  const { path, method } = c.req;
  // Without its slash it would delete them all, which is not meant by who had no id to put behind it.
  if (method === 'DELETE' && ofAll.includes(path) && new URL(c.req.url).pathname.endsWith('/')) {
    return badInput('path', `an id is missing behind the slash; all are deleted by ${path} without it`);
  }
  if (/\.\.|%2e|%5c|%25|%00|[\\;]/i.test(path))
    return badInput('path', 'has an escape that no route of LAPI has');
  if (/%2f/i.test(path) && !path.startsWith('/v1/allowlists/check/')) {
    return badInput('path', 'has an escaped slash');
  }
  if (parseQuery(searchOf(c)).has('token')) {
    return badInput('token', 'send it as Authorization: Bearer …; an address is written down on its way');
  }
  return succeed('good');
}

function searchOf(c: Context<AppEnv>): string {
  return new URL(c.req.url).search;
}
