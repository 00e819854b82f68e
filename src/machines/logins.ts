// Machines' tries to log in: guessing is slowed down, by network and by name. Only failures count: any number of good
// log-ins may come from one address, and nobody's guessing locks out who has just logged in from elsewhere.

import { bareName } from './blocklist.ts';
import { sinceMs } from '../runtime/clock.ts';
import { fail, type Result } from '../http/failure.ts';
import { createGenerations } from '../runtime/generations.ts';
import { sha256Hex } from '../crypto/secret.ts';
import {
  createFailureLimit,
  enterTry,
  leaveTries,
  waitOf,
  waitOfPending,
  type Try,
} from '../http/failure-limit.ts';
import { limitedNetwork } from '../formats/ip.ts';
import { mostCounted } from '../http/rate-limit.ts';

export interface Login {
  readonly body: Uint8Array;
  /** null: the body does not tell. */
  readonly machine: string | null;
}

const networkLimit = createFailureLimit('LOGIN_LIMIT_ADDRESS', 30);
/** More than of one network: an attacker's keeps no machine out alone. */
const nameLimit = createFailureLimit('LOGIN_LIMIT_MACHINE', 60);

/** Networks, and machines by network, that logged in well → when. */
const goodAt = createGenerations<number>(mostCounted);
/** A log processor logs in anew each hour. */
const goodMs = 2 * 3_600_000;

/** This machine was good at its engine, from this address: others' failures do not count against it. */
export async function noteGood(address: string, machine: string, nowMs: number): Promise<void> {
  const network = limitedNetwork(address);
  goodAt.set(network, nowMs);
  goodAt.set(`${network} ${await keyOf(machine)}`, nowMs);
}

/** One try: `read` takes the body, which costs most of what a try can cost here, and `ask` is the engine's answer. */
export async function tryLogIn(
  env: Partial<Env>,
  address: string,
  read: () => Promise<Result<Login>>,
  ask: (login: Login) => Promise<Result<Response>>,
): Promise<Result<Response>> {
  const startMs = Date.now();
  const network = limitedNetwork(address);
  const here = enterTry(networkLimit, network, startMs);
  const entered = [here];
  let failed: readonly Try[] = [];
  try {
    // Where a machine has logged in well, the body tells whether this is it again.
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
    // Known to be good from here it counts by itself: neither a neighbour nor who guesses its name keeps it out.
    const by = isGood(itself, startMs)
      ? [enterTry(networkLimit, itself, startMs)]
      : [here, ...(machine === null ? [] : [enterTry(nameLimit, name, startMs)])];
    entered.push(...by.filter((each) => each !== here));
    const waits = by.map((each) => waitOf(each, startMs)).filter((wait) => wait !== null);
    if (waits.length > 0) return limited(Math.max(...waits));
    const result = await ask(login.value);
    if (isRefusal(result)) failed = by;
    else if (result.ok && result.value.ok && machine !== null) await noteGood(address, machine, Date.now());
    return result;
  } finally {
    await leaveTries(env, entered, failed);
  }
}

/** Of any length and content, where a key has bounds. */
async function keyOf(machine: string): Promise<string> {
  return (await sha256Hex(bareName(machine))).slice(0, 32);
}

function isGood(key: string, nowMs: number): boolean {
  const atMs = goodAt.get(key);
  return atMs !== undefined && sinceMs(atMs, nowMs) < goodMs;
}

function limited(waitSeconds: number): Result<never> {
  return fail({ kind: 'rate-limited', waitSeconds });
}

/** Also an operator's, who blocked the machine. An engine that is out of reach refuses nobody. */
function isRefusal(result: Result<Response>): boolean {
  return result.ok ? [401, 403].includes(result.value.status) : result.failure.kind !== 'unavailable';
}
