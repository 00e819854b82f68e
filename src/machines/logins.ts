// Machines' log-ins. Guessing passwords is limited by network and by name. Only failures count: any number of good log-ins
// may come from one address, and failures elsewhere do not lock out a machine at the address where it logged in.

import { bareName } from './blocklist.ts';
import { sinceMs } from '../runtime/clock.ts';
import { badInput, fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { createGenerations } from '../runtime/generations.ts';
import { sha256Hex } from '../crypto/secret.ts';
import {
  beginAttempt,
  createLimit,
  endAttempts,
  mostCounted,
  waitOf,
  waitOfPending,
  type Attempt,
} from '../http/rate-limit.ts';
import { parseJson, readBytes } from '../http/body.ts';
import { limitedNetwork } from '../formats/ip.ts';

export interface Login {
  readonly body: Uint8Array;
  /** Null: the body does not tell. */
  readonly machine: string | null;
}

const networkLimit = createLimit('LOGIN_LIMIT_ADDRESS', 30);
/** Higher than that of one network, so that an attacker's network alone keeps no machine out. */
const nameLimit = createLimit('LOGIN_LIMIT_MACHINE', 60);

/** Networks, and machines by network → when one logged in there. */
const goodAtMs = createGenerations<number>(mostCounted);
/** A log processor logs in anew each hour. */
const goodMs = 2 * 3_600_000;

/** The engine accepted this machine at this address: failures elsewhere do not count against it here. */
export async function noteGoodLogin(address: string, machine: string, nowMs: number): Promise<void> {
  const network = limitedNetwork(address);
  goodAtMs.set(network, nowMs);
  goodAtMs.set(`${network} ${await keyOf(machine)}`, nowMs);
}

/** One attempt to log in. `read` takes the body, which is the larger part of its cost here; `ask` asks the engine. */
export async function tryLogin(
  env: Partial<Env>,
  address: string,
  read: () => Promise<Result<Login>>,
  ask: (login: Login) => Promise<Result<Response>>,
): Promise<Result<Response>> {
  const startMs = Date.now();
  const network = limitedNetwork(address);
  const here = beginAttempt(networkLimit, network, startMs);
  const begun = [here];
  let failed: readonly Attempt[] = [];
  try {
    // Where a machine has logged in before, the body has to be read to see whether this is the same one.
    const early = isGood(network, startMs) ? waitOfPending(here) : waitOf(here, startMs);
    if (early !== null) return limited(early);
    const login = await read();
    if (!login.ok) {
      failed = [here];
      return login;
    }
    const { machine } = login.value;
    const name = machine === null ? '' : await keyOf(machine);
    const itself = `${network} ${name}`;
    // A machine that is known at this address counts by itself: no neighbour and no guesser of its name keeps it out.
    const counted = isGood(itself, startMs)
      ? [beginAttempt(networkLimit, itself, startMs)]
      : [here, ...(machine === null ? [] : [beginAttempt(nameLimit, name, startMs)])];
    begun.push(...counted.filter((each) => each !== here));
    const waits = counted.map((each) => waitOf(each, startMs)).filter((wait) => wait !== null);
    if (waits.length > 0) return limited(Math.max(...waits));
    const result = await ask(login.value);
    if (isRefusal(result)) failed = counted;
    else if (result.ok && result.value.ok && machine !== null)
      await noteGoodLogin(address, machine, Date.now());
    return result;
  } finally {
    await endAttempts(env, begun, failed);
  }
}

/** A digest: names may have any length, and keys of a limit may not. */
async function keyOf(machine: string): Promise<string> {
  return (await sha256Hex(bareName(machine))).slice(0, 32);
}

function isGood(key: string, nowMs: number): boolean {
  const atMs = goodAtMs.get(key);
  return atMs !== undefined && sinceMs(atMs, nowMs) < goodMs;
}

function limited(waitSeconds: number): Result<never> {
  return fail({ kind: 'rate-limited', waitSeconds });
}

/** Also that of a blocked machine. An engine that is out of reach refuses nobody. */
function isRefusal(result: Result<Response>): boolean {
  return result.ok ? [401, 403].includes(result.value.status) : result.failure.kind !== 'unavailable';
}

const tooLarge: Failure = { kind: 'login-refused', problem: 'missing: http: request body too large' };

/** Reads the body of a log-in. */
export async function readLogin(request: Request, limitBytes: number): Promise<Result<Login>> {
  const body = await readBytes(request, limitBytes);
  if (!body.ok) return body.failure.kind === 'too-large' ? fail(tooLarge) : body;
  const machine = machineIn(body.value);
  return machine.ok ? succeed({ body: body.value, machine: machine.value }) : machine;
}

/**
 * The machine that a log-in names; null when the body can't be read, which the engine refuses. Go matches field names in
 * any case and takes the last of several, and gin reads only the first JSON value: here two spellings of the name and
 * a second value are refused, so that no name is blocked here and another one logged in there.
 */
function machineIn(body: Uint8Array): Result<string | null> {
  const text = new TextDecoder().decode(body);
  const json = parseJson(text);
  if (!json.ok) {
    const goesOn = parseJson(text.slice(0, firstObjectEnd(text))).ok;
    return goesOn ? badInput('body', 'must be one JSON value') : succeed(null);
  }
  if (typeof json.value !== 'object' || json.value === null) return succeed(null);
  const named = Object.entries(json.value).filter(([name]) => name.toLowerCase() === 'machine_id');
  if (named.length > 1) return badInput('machine_id', 'is given twice');
  const name: unknown = named[0]?.[1];
  return succeed(typeof name === 'string' ? name : null);
}

/** Where the first object of a text ends, by its braces outside strings; the text's length when it does not end. */
function firstObjectEnd(text: string): number {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === '"') inString = !inString;
    else if (inString && character === '\\') i++;
    else if (!inString && character === '{') depth++;
    else if (!inString && character === '}' && --depth === 0) return i + 1;
  }
  return text.length;
}

/** All that LAPI says about a request to log in or register, in any version. */
const aboutRequest =
  /^(incorrect Username or Password|input format error|(ent: )?machine not found|machine .* not validated|missing ?: .*|invalid token for auto registration|IP not in allowed range for auto registration)$/;

/**
 * The engine's answer to a caller without a token, where it is about the request. Otherwise `unavailable`, after which
 * log processors try again. LAPI passes on its database driver's errors (middlewares/v1/jwt.go: with 401;
 * controllers/v1/errors.go: with 500), and they name the database's address and user.
 */
export async function publicAnswer(result: Result<Response>): Promise<Result<Response>> {
  if (!result.ok) return result;
  const { status, headers } = result.value;
  if (status !== 401 && status < 500) return result;
  const text = await result.value.text();
  const json = parseJson(text);
  const message = json.ok && (json.value as { message?: unknown } | null)?.message;
  if (status === 401 && aboutRequest.test(String(message))) {
    return succeed(new Response(text, { status, headers }));
  }
  const problem = 'the engine has a fault, which its own log names; try again';
  return fail({ kind: 'unavailable', problem });
}
