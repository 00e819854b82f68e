// Sessions of the console, for whoever signed in by a token. A session is a text that a cookie keeps: whose it is, until
// when, and a signature. It has no token, only the digest of one, and D1 is asked at each use: a revoked token ends its
// sessions. What signs them is not in D1, and not in any one place: a mistake here lets somebody write a session.

import { waitUntil } from 'cloudflare:workers';
import { toBase64, fromBase64 } from '../formats/bytes.ts';
import { digestOf } from '../crypto/secret.ts';
import { askFeed } from '../feed/client.ts';
import { settingsOf } from '../env.ts';
import { answerMs } from '../store/ask.ts';
import { fail, succeed, type Result } from '../http/failure.ts';
import { endStatements, isRevokedDigest } from '../bouncers/keys.sql.ts';
import { mutate, mutationBy, note, nothingRead, type Answer } from '../operations/mutate.ts';
import { always } from '../store/audit.sql.ts';
import { sinceMs } from '../runtime/clock.ts';
import { withinMs } from '../runtime/wait.ts';
import { authenticateOwnToken, breakGlassOperator, named, type Operator } from './authenticate.ts';
import { identifyDigest } from './tokens.ts';

/** How long a session lasts, whatever its token's end. */
export const sessionMs = 12 * 3_600_000;

/**
 * A session for whoever has a token. It is noted in the audit log; a log that can not be written keeps nobody out, as it
 * keeps nobody from reading with `OPERATOR_TOKEN` (noteBreakGlassRead). `address`: where the token came from.
 */
export async function startSession(
  env: Env,
  token: string,
  address: string,
  nowMs: number,
): Promise<Result<string>> {
  const known = await authenticateOwnToken(settingsOf(env), env.DB, token, address, nowMs);
  if (!known.ok) return known;
  const { actor, breakGlass } = known.value;
  const session = await signed(env, breakGlass ? actor : digestOf(token), nowMs + sessionMs);
  const noted = note({ ...mutationBy(env, actor, nowMs), breakGlass }, 'operator.sign-in', 'console', {});
  waitUntil(noted);
  await withinMs(noted, answerMs);
  return succeed(session);
}

/** `<digest of the token, or operator-token>.<end, ms>.<signature>`. */
const sessionRule = /^((?:[0-9a-f]{128}|operator-token)\.(\d{13}))\.([\w-]{43})$/;

/** Whose session it is. */
export async function identifySession(env: Env, session: string, nowMs: number): Promise<Result<Operator>> {
  const [, text = '', untilMs = '', signature = ''] = sessionRule.exec(session) ?? [];
  if (!(await isSigned(env, `session ${text}`, signature))) return ended('this session is not valid');
  if (nowMs >= Number(untilMs)) return ended('this session is over');
  const [subject = ''] = text.split('.');
  const isBreakGlass = subject === breakGlassOperator.actor;
  const [wasEnded, known] = await Promise.all([
    isRevokedDigest(env.DB, digestOf(session)).catch(() => null),
    isBreakGlass ? succeed(breakGlassOperator) : identifyDigest(env.DB, subject, nowMs).then(named),
  ]);
  if (wasEnded) return ended('this session was ended by signing out');
  // Break-glass is for when D1 is out of reach.
  if (wasEnded === null && !isBreakGlass) return fail({ kind: 'unavailable', problem: unchecked });
  return known;
}

const unchecked = 'sessions can not be checked now; try again';

/** Ends a session, in every copy. It is kept as a revoked key is, so that no restored D1 opens it. */
export function endSession(
  env: Env,
  { actor, breakGlass }: Pick<Operator, 'actor' | 'breakGlass'>,
  session: string,
  nowMs: number,
): Promise<Result<Answer>> {
  return mutate({ ...mutationBy(env, actor, nowMs), breakGlass }, nothingRead, () =>
    succeed({
      entry: { action: 'operator.sign-out', target: 'console', detail: {} },
      unchanged: always,
      statements: (d) => endStatements(d, digestOf(session), nowMs),
      answer: { status: 204, body: {} },
    }),
  );
}

function ended(problem: string): Result<never> {
  return fail({ kind: 'unauthorised', problem });
}

async function signed(env: Env, subject: string, untilMs: number): Promise<string> {
  const text = `${subject}.${untilMs}`;
  return `${text}.${await sign(env, `session ${text}`)}`;
}

/** What a form of the console has with it, so that no page of another site can send it. `who`: actor and session. */
export async function formToken(env: Env, who: string, nowMs: number): Promise<string> {
  const untilMs = nowMs + sessionMs;
  return `${untilMs}.${await sign(env, `form ${untilMs} ${who}`)}`;
}

export async function isFormToken(env: Env, who: string, token: string, nowMs: number): Promise<boolean> {
  const [, untilMs = '', signature = ''] = /^(\d{13})\.([\w-]{43})$/.exec(token) ?? [];
  return nowMs < Number(untilMs) && (await isSigned(env, `form ${untilMs} ${who}`, signature));
}

const encoder = new TextEncoder();

async function sign(env: Env, text: string): Promise<string> {
  const mac = await crypto.subtle.sign('HMAC', await signingKey(env), encoder.encode(text));
  return toBase64(new Uint8Array(mac), 'base64url');
}

async function isSigned(env: Env, text: string, signature: string): Promise<boolean> {
  const bytes = fromBase64(signature, 'base64url');
  if (bytes?.length !== 32) return false;
  return crypto.subtle.verify('HMAC', await signingKey(env), bytes, encoder.encode(text));
}

/** How long an isolate goes on with a key. After the object was lost, there is another one. */
const keyTrustedMs = 60_000;
let kept: { readonly env: Env; readonly atMs: number; readonly key: CryptoKey } | undefined;

/**
 * Made of what the object keeps and of the settings' secrets. Neither is enough by itself: a stolen backup signs no session,
 * and who has a session can not try out what `OPERATOR_TOKEN` may be. Another `OPERATOR_TOKEN` ends all sessions.
 */
async function signingKey(env: Env): Promise<CryptoKey> {
  const nowMs = Date.now();
  if (kept?.env === env && sinceMs(kept.atMs, nowMs) < keyTrustedMs) return kept.key;
  const secret = await askFeed(env, async (feed) => feed.sessionSecret());
  const { operatorToken, bootstrap } = settingsOf(env);
  const parts = ['lapidary console v1', secret, operatorToken ?? '', bootstrap?.current ?? ''];
  const bytes = await crypto.subtle.digest('SHA-256', encoder.encode(JSON.stringify(parts)));
  const key = await crypto.subtle.importKey('raw', bytes, { name: 'HMAC', hash: 'SHA-256' }, false, [
    'sign',
    'verify',
  ]);
  kept = { env, atMs: nowMs, key };
  return key;
}
