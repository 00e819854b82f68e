// Machines' tokens (JWTs). Only the engine can check their signatures, so an invented token costs it a request. Refused
// ones count for the network that they came from. Over the bound a token that the engine has not accepted yet is forwarded
// once a second and otherwise has to wait. A token that the engine accepted is never held up by others.

import { sinceMs } from '../runtime/clock.ts';
import { done, fail, type Result } from '../http/failure.ts';
import { createGenerations } from '../runtime/generations.ts';
import { sha256Hex } from '../crypto/secret.ts';
import {
  beginAttempt,
  createLimit,
  endAttempts,
  isSpent,
  mostCounted,
  waitOf,
  waitOfPending,
} from '../http/rate-limit.ts';
import { limitedNetwork } from '../formats/ip.ts';

/** How far the engine's clock may be behind ours. Until then the engine says itself whether a token has expired. */
const skewMs = 10_000;
/** gin-jwt's MaxRefresh, as LAPI sets it: a token can be renewed for so long after its issue, also once it has expired. */
const renewableMs = 3_600_000;

/**
 * Refuses in the engine's words what it would refuse whatever its secret: no token, a text that is none, and an expired
 * one. `renews`: for `/refresh_token`. The rest is the engine's to check. LAPI also reads a token from a cookie, which is
 * not forwarded: hence its word for a missing one.
 */
export function checkToken(headers: Headers, renews: boolean, nowMs: number): Result<void> {
  const token = tokenOf(headers);
  if (token === '') return refused('cookie token is empty');
  if (token.split('.').length !== 3) return refused('token contains an invalid number of segments');
  const { exp, orig_iat: issued } = claimsOf(token);
  const [end, reachMs] = renews ? [issued, renewableMs] : [exp, 0];
  if (typeof end !== 'number' || end * 1000 + reachMs + skewMs > nowMs) return done;
  return refused(renews ? 'token is expired' : 'Token is expired');
}

function refused(problem: string): Result<never> {
  return fail({ kind: 'login-refused', problem });
}

/** The token of a request; empty without one. */
export function tokenOf(headers: Headers): string {
  return /^Bearer (.*)$/.exec(headers.get('authorization') ?? '')?.[1] ?? '';
}

/** The machine that a request's token names; null without one. Not verified: the engine refuses a forged name. */
export function claimedMachine(headers: Headers): string | null {
  const { id } = claimsOf(tokenOf(headers));
  return typeof id === 'string' ? id : null;
}

/** Read as golang-jwt reads them: no spelling may hide a name here and not there. */
function claimsOf(token: string): Partial<Record<'id' | 'exp' | 'orig_iat', unknown>> {
  const [, payload] = /^[^.]*\.([^.]*)\./.exec(token) ?? [];
  if (payload === undefined) return {};
  try {
    const bytes = Uint8Array.fromBase64(payload, { alphabet: 'base64url' });
    return (JSON.parse(new TextDecoder().decode(bytes)) as object | null) ?? {};
  } catch {
    return {};
  }
}

/** A network of machines may share an address, and all have old tokens once the engine was started anew. */
const refusedTokens = createLimit(null, 120);
/** Network → when one over the bound was last forwarded. */
const forwardedAtMs = createGenerations<number>(mostCounted);
const tickMs = 1_000;
/** SHA-256 of an engine's name and a token that it issued or accepted. */
const good = createGenerations<true>(20_000);

/** Asks the engine with a token, if the token may be tried now. */
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
  const attempt = beginAttempt(refusedTokens, limitedNetwork(address), nowMs);
  let isFailed = false;
  try {
    const may = isSpent(attempt) && takeTick(attempt.key, nowMs);
    const waitSeconds = may ? waitOfPending(attempt) : waitOf(attempt, nowMs);
    if (waitSeconds !== null) return fail({ kind: 'rate-limited', waitSeconds });
    const result = await ask();
    isFailed = isRefused(result);
    if (result.ok && result.value.ok) good.set(key, true);
    return result;
  } finally {
    await endAttempts({}, [attempt], isFailed ? [attempt] : []);
  }
}

/** Whether the engine issued or accepted this token. */
export async function isGoodToken(engine: string, token: string): Promise<boolean> {
  return good.get(await keyOf(engine, token)) === true;
}

/** Notes the token in the engine's answer to a log-in or a renewal. */
export async function noteIssuedToken(engine: string, result: Result<Response>): Promise<void> {
  if (!result.ok || !result.value.ok) return;
  try {
    const { token } = (await result.value.clone().json()) as { token?: unknown };
    if (typeof token === 'string') good.set(await keyOf(engine, token), true);
  } catch {
    // Not LAPI's answer, or one that breaks off, as it then does for the machine.
  }
}

function takeTick(network: string, nowMs: number): boolean {
  const isDue = sinceMs(forwardedAtMs.get(network) ?? -Infinity, nowMs) >= tickMs;
  if (isDue) forwardedAtMs.set(network, nowMs);
  return isDue;
}

function isRefused(result: Result<Response>): boolean {
  return result.ok && result.value.status === 401;
}

function keyOf(engine: string, token: string): Promise<string> {
  return sha256Hex(`${engine} ${token}`);
}
