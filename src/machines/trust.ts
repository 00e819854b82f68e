// Which machine may do what through here. To the engine everyone whom a tunnel brings is local, and local callers may
// delete alerts and register machines: what LAPI decides by the peer's address has to be decided here.

import type { Context } from 'hono';
import { authenticateOperator } from '../operators/authenticate.ts';
import { mutationBy, note } from '../operations/mutate.ts';
import { clientAddress, type AppEnv } from '../env.ts';
import { badInput, causeOf, fail, succeed, type Result } from '../http/failure.ts';
import { mayAct } from '../config/roles.ts';
import { covers, parseNetwork } from '../formats/ip.ts';

const tokenHeader = 'x-lapidary-token';

/** So far the engine's clock may be behind ours: until then it says itself whether a token has ended. */
const skewMs = 10_000;
/** gin-jwt's MaxRefresh, as LAPI sets it: so long after its issue a token is renewed, also when it has ended. */
const renewableMs = 3_600_000;

/**
 * Refuses in the engine's own words what it would refuse whatever its secret: no token, something that is none, and one
 * that has ended; `renews`: for `/refresh_token`. Whether the rest is good is the engine's to say. It takes a token from
 * a cookie, too, which is not passed on: hence its word for none.
 */
export function checkToken(headers: Headers, renews: boolean, nowMs: number): Result<'may be good'> {
  const token = tokenOf(headers);
  if (token === '') return refused('cookie token is empty');
  if (token.split('.').length !== 3) return refused('token contains an invalid number of segments');
  const { exp, orig_iat: issued } = claimsOf(token);
  const [end, reachMs] = renews ? [issued, renewableMs] : [exp, 0];
  if (typeof end !== 'number' || end * 1000 + reachMs + skewMs > nowMs) return succeed('may be good');
  return refused(renews ? 'token is expired' : 'Token is expired');
}

function refused(problem: string): Result<never> {
  return fail({ kind: 'login-refused', problem });
}

/** The token of a request; empty without one. */
export function tokenOf(headers: Headers): string {
  return /^Bearer (.*)$/.exec(headers.get('authorization') ?? '')?.[1] ?? '';
}

/**
 * The machine that a request's JWT names; null without one. Its signature is the engine's to check: who forges a name
 * is refused there.
 */
export function claimedMachine(headers: Headers): string | null {
  const { id } = claimsOf(tokenOf(headers));
  return typeof id === 'string' ? id : null;
}

/** Read as golang-jwt reads them, so that no spelling hides a name from here and not from there. */
function claimsOf(token: string): {
  readonly id?: unknown;
  readonly exp?: unknown;
  readonly orig_iat?: unknown;
} {
  const [, payload] = /^[^.]*\.([^.]*)\./.exec(token) ?? [];
  if (payload === undefined) return {};
  try {
    const bytes = Uint8Array.fromBase64(payload, { alphabet: 'base64url' });
    return (JSON.parse(new TextDecoder().decode(bytes)) as object | null) ?? {};
  } catch {
    return {};
  }
}

/**
 * The machine that a login is for; null when the body can't be read, which the engine refuses. Go takes a field's name
 * in any case, and the last of several: two spellings in one body are none that a client sends. Nor is a body that goes
 * on after its JSON, of which gin reads the first value alone.
 */
export function machineIn(body: Uint8Array): Result<string | null> {
  const text = new TextDecoder().decode(body);
  const json = parsed(text);
  if (json === undefined) {
    const goesOn = parsed(text.slice(0, firstObjectEnd(text))) !== undefined;
    return goesOn ? badInput('body', 'must be one JSON value') : succeed(null);
  }
  if (typeof json !== 'object' || json === null) return succeed(null);
  const named = Object.entries(json).filter(([name]) => name.toLowerCase() === 'machine_id');
  if (named.length > 1) return badInput('machine_id', 'is given twice');
  const name: unknown = named[0]?.[1];
  return succeed(typeof name === 'string' ? name : null);
}

/** undefined: it is no JSON. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** Where the braces of a text are even for the first time, those in its strings aside; its length when they never are. */
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

/**
 * Whether a caller may do what LAPI lets local callers do: from an address in `MACHINE_ALLOW`, or with an operator's
 * token beside the JWT. The audit log has what a token was used for, before it is done.
 */
export async function mayAsLocal(c: Context<AppEnv>, action: string): Promise<Result<'may'>> {
  const settings = c.get('settings');
  const network = parseNetwork(clientAddress(c.req.raw, settings));
  if (network && settings.machineAllow.some((range) => covers(range, network))) return succeed('may');
  const token = c.req.header(tokenHeader);
  if (token === undefined) {
    const how = `from addresses in MACHINE_ALLOW, or with an operator's token in X-Lapidary-Token`;
    return fail({ kind: 'forbidden', problem: `access forbidden: ${action} only ${how}` });
  }
  try {
    return await mayByToken(c, token, action);
  } catch (error) {
    console.error(`the key store is out of reach: ${causeOf(error).message}`);
    return fail({ kind: 'unavailable', problem: 'operator tokens can not be checked now; try again' });
  }
}

async function mayByToken(c: Context<AppEnv>, token: string, action: string): Promise<Result<'may'>> {
  const nowMs = Date.now();
  const settings = c.get('settings');
  const address = clientAddress(c.req.raw, settings);
  const asked = new Request(c.req.url, { headers: { authorization: `Bearer ${token}` } });
  const operator = await authenticateOperator(settings, c.env.DB, asked, address, nowMs);
  if (!operator.ok) {
    const { failure } = operator;
    return failure.kind === 'unauthorised'
      ? fail({ kind: 'forbidden', problem: `access forbidden: ${failure.problem}` })
      : operator;
  }
  const { actor, role, breakGlass } = operator.value;
  if (!mayAct(role, 'operator')) {
    return fail({
      kind: 'forbidden',
      problem: `access forbidden: this needs the role operator; yours is ${role}`,
    });
  }
  const { pathname, search } = new URL(c.req.url);
  const detail = { address, machine: claimedMachine(c.req.raw.headers) };
  const target = `${c.req.method} ${pathname}${search}`.slice(0, 200);
  // Refused where D1 is a restored backup: the token may be one that it brought back.
  const mutation = { ...mutationBy(c.env, actor, nowMs), breakGlass };
  const noted = await note(mutation, `machine.${action.replaceAll(' ', '-')}`, target, detail);
  return noted.ok ? succeed('may') : noted;
}
