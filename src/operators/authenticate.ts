// Who calls the operator API, and in which role: by `OPERATOR_TOKEN`, by a token that was made here, or by one of an OIDC
// issuer. Fails closed. `OPERATOR_TOKEN` names nobody (break-glass), so its uses are marked in the audit log.

import { waitUntil } from 'cloudflare:workers';
import { answerMs } from '../store/ask.ts';
import { fail, succeed, type Result } from '../http/failure.ts';
import { isFromElsewhere } from '../http/site.ts';
import { sameSecret } from '../crypto/secret.ts';
import type { Settings } from '../config/settings.ts';
import { withinMs } from '../runtime/wait.ts';
import { mutationBy, note } from '../operations/mutate.ts';
import { claimedIssuer, verifyToken, type Identity } from './oidc.ts';
import { anyLiveToken, authenticateToken, looksLikeToken } from './tokens.ts';

export interface Operator extends Identity {
  readonly breakGlass: boolean;
}

const breakGlassActor = 'operator-token';

/** Whoever has `OPERATOR_TOKEN`. */
export const breakGlassOperator: Operator = { actor: breakGlassActor, role: 'admin', breakGlass: true };

/**
 * `Authorization` alone decides where it is sent. A header that a proxy adds (Cloudflare Access) counts without it.
 * `address`: where the caller is.
 */
export async function authenticateOperator(
  settings: Settings,
  d1: D1Database,
  request: Request,
  address: string,
  nowMs: number,
): Promise<Result<Operator>> {
  const { operatorToken, operatorIssuers } = settings;
  const authorization = request.headers.get('authorization');
  if (authorization === null) {
    for (const header of new Set(operatorIssuers.map((issuer) => issuer.header))) {
      const token = request.headers.get(header);
      if (token === null) continue;
      const isRead = request.method === 'GET' || request.method === 'HEAD';
      if (!isRead && isFromElsewhere(request)) {
        return fail({
          kind: 'forbidden',
          problem: 'a page of another site sent this: only pages of this site may',
        });
      }
      const issuer = claimedIssuer(operatorIssuers, header, token);
      if (!issuer) return refuse(`no issuer in OPERATOR_ISSUERS sends this token in ${header}`);
      return named(await verifyToken(issuer, token, nowMs));
    }
    if (operatorToken === null && operatorIssuers.length === 0) {
      return refuse('no operator can log in: OPERATOR_TOKEN is not set (wrangler secret put OPERATOR_TOKEN)');
    }
  }
  const token = /^Bearer +([\x21-\x7e]+)$/i.exec(authorization ?? '')?.[1];
  if (token === undefined) return refuse('send the operator token as Authorization: Bearer …');
  const issuer = claimedIssuer(operatorIssuers, 'authorization', token);
  if (issuer) return named(await verifyToken(issuer, token, nowMs));
  return authenticateOwnToken(settings, d1, token, address, nowMs);
}

/** Whoever has `OPERATOR_TOKEN`, or a token that was made here. `address`: where it came from. */
export async function authenticateOwnToken(
  { operatorToken }: Settings,
  d1: D1Database,
  token: string,
  address: string,
  nowMs: number,
): Promise<Result<Operator>> {
  if (operatorToken !== null && (await sameSecret(token, operatorToken))) return succeed(breakGlassOperator);
  if (looksLikeToken(token)) return named(await authenticateToken(d1, token, address, nowMs));
  return refuse('this operator token is not valid');
}

function refuse(problem: string): Result<never> {
  return fail({ kind: 'unauthorised', problem });
}

export function named(identity: Result<Identity>): Result<Operator> {
  return identity.ok ? succeed({ ...identity.value, breakGlass: false }) : identity;
}

/**
 * Whether a browser sends this for a page of another site. Cloudflare Access logs a browser in by a cookie, and a form on
 * any page can post with it (a `text/plain` body can be JSON). Clients that are no browser send neither header.
 */

/**
 * Notes a read with `OPERATOR_TOKEN`, where operators have other ways to log in. Where they have none, it is the ordinary
 * one. A log that cannot be written keeps nobody from reading: break-glass is for such outages.
 */
export async function noteBreakGlassRead(
  { operatorIssuers }: Settings,
  env: Env,
  use: string,
  nowMs: number,
): Promise<void> {
  if (operatorIssuers.length === 0 && !(await anyLiveToken(env.DB, nowMs).catch(() => true))) return;
  const mutation = mutationBy(env, breakGlassActor, nowMs);
  const written = note(mutation, 'operator.break-glass', use.slice(0, 200), {});
  waitUntil(written);
  await withinMs(written, answerMs);
}
