// Machines' tokens, whose signatures only the engine can check: what strangers make up costs it a request each. What it
// refuses counts for the network that it came from. Over the bound a token that the engine has not taken yet is passed on
// once a second, and otherwise told to wait; one that it took is never held up by others.

import { sinceMs } from '../runtime/clock.ts';
import { fail, type Result } from '../http/failure.ts';
import { createGenerations } from '../runtime/generations.ts';
import { sha256Hex } from '../crypto/secret.ts';
import {
  createFailureLimit,
  enterTry,
  isSpent,
  leaveTries,
  waitOf,
  waitOfPending,
} from '../http/failure-limit.ts';
import { limitedNetwork } from '../formats/ip.ts';
import { mostCounted } from '../http/rate-limit.ts';

const tickMs = 1_000;
const mostGood = 20_000;

/** A network of machines may share an address, and have old tokens once the engine was started anew. */
const limit = createFailureLimit(null, 120);
/** Network → when one over the bound was passed on. */
const passedMs = createGenerations<number>(mostCounted);
/** SHA-256 of an engine's name and a token that it gave or took. */
const good = createGenerations<true>(mostGood);

/** `ask` is the engine's answer to a request with this token. */
export async function tryToken(
  engine: string,
  token: string,
  address: string,
  ask: () => Promise<Result<Response>>,
): Promise<Result<Response>> {
  const key = await keyOf(engine, token);
  if (good.get(key)) {
    const result = await ask();
    if (isRefused(result)) good.delete(key);
    return result;
  }
  const nowMs = Date.now();
  const one = enterTry(limit, limitedNetwork(address), nowMs);
  let isFailed = false;
  try {
    const waitSeconds = isSpent(one) && takeTick(one.key, nowMs) ? waitOfPending(one) : waitOf(one, nowMs);
    if (waitSeconds !== null) return fail({ kind: 'rate-limited', waitSeconds });
    const result = await ask();
    isFailed = isRefused(result);
    if (result.ok && result.value.ok) good.set(key, true);
    return result;
  } finally {
    await leaveTries({}, [one], isFailed ? [one] : []);
  }
}

/** Whether the engine gave or took this token. */
export async function isGoodToken(engine: string, token: string): Promise<boolean> {
  return good.get(await keyOf(engine, token)) === true;
}

/** The engine's answer to a log-in or a renewal: the token in it is good. */
export async function noteGiven(engine: string, result: Result<Response>): Promise<void> {
  if (!result.ok || !result.value.ok) return;
  try {
    const { token } = (await result.value.clone().json()) as { token?: unknown };
    if (typeof token === 'string') good.set(await keyOf(engine, token), true);
  } catch {
    // No answer of LAPI, or one that breaks off, as it does for the machine.
  }
}

function takeTick(network: string, nowMs: number): boolean {
  const isDue = sinceMs(passedMs.get(network) ?? -Infinity, nowMs) >= tickMs;
  if (isDue) passedMs.set(network, nowMs);
  return isDue;
}

function isRefused(result: Result<Response>): boolean {
  return result.ok && result.value.status === 401;
}

function keyOf(engine: string, token: string): Promise<string> {
  return sha256Hex(`${engine} ${token}`);
}
