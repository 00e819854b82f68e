// Tokens of OIDC issuers. jose checks the signature and the claims; what it must insist on is pinned here, from
// the settings and never from the token (RFC 8725). No text of a token gets into a failure or the log.

import { createRemoteJWKSet, customFetch, decodeJwt, jwtVerify, type JWTPayload } from 'jose';
import { sinceMs } from '../runtime/clock.ts';
import { fail, succeed, type Result } from '../http/failure.ts';
import type { Condition, Issuer, Trust } from '../config/issuers.ts';
import type { Role } from '../config/roles.ts';

/** An operator by a token of an issuer. */
export interface Identity {
  readonly actor: string;
  readonly role: Role;
}

/**
 * How long keys are trusted without asking again: an issuer that is down locks nobody out for that long, and a key
 * that it takes back is good for that long.
 */
const keysTrustedMs = 10 * 60_000;
/**
 * How often an issuer is asked at most: anybody can send a token with an unknown key, and none of them may make
 * us hammer an issuer, up or down. A new key is known after this time.
 */
const askAgainMs = 10_000;
const issuerTimeoutMs = 5_000;
const clockToleranceSeconds = 30;
const longestSubject = 500;

type KeySet = ReturnType<typeof createRemoteJWKSet>;

/** By address. jose never waits for a request that another of the Worker's requests started, so they may be shared. */
const keySets = new Map<string, KeySet>();

/** Its issuer by the `iss` that the token claims, which is not verified yet; undefined: none of ours. */
export function claimedIssuer(issuers: readonly Issuer[], header: string, token: string): Issuer | undefined {
  let claimed: unknown;
  try {
    claimed = decodeJwt(token).iss;
  } catch {
    return undefined;
  }
  return issuers.find((candidate) => candidate.header === header && candidate.issuer === claimed);
}

/** A good token's claims. 401: it is not good; 503: its issuer's keys can't be had. */
export async function verifyClaims(issuer: Trust, token: string, nowMs: number): Promise<Result<JWTPayload>> {
  try {
    const verified = await jwtVerify(token, keysOf(issuer.jwksUri), {
      algorithms: [...issuer.algorithms],
      issuer: issuer.issuer,
      audience: issuer.audience,
      requiredClaims: ['sub', 'iat', 'exp'],
      maxTokenAge: issuer.maxAgeSeconds,
      clockTolerance: clockToleranceSeconds,
      currentDate: new Date(nowMs),
    });
    return succeed(verified.payload);
  } catch (error) {
    return refuse(error, issuer);
  }
}

/** Who a token is of. 401: it is not good; 403: it is, and opens nothing; 503: its issuer's keys can't be had. */
export async function verifyToken(issuer: Issuer, token: string, nowMs: number): Promise<Result<Identity>> {
  const verified = await verifyClaims(issuer, token, nowMs);
  if (!verified.ok) return verified;
  const claims = verified.value;
  const subject = issuer.subjectClaims.map((name) => claims[name]).find(isName);
  if (subject === undefined) {
    return fail({
      kind: 'unauthorised',
      problem: `the token names nobody in ${issuer.subjectClaims.join(', ')}`,
    });
  }
  const rule = issuer.rules.find(({ conditions }) =>
    conditions.every((condition) => holds(condition, claims)),
  );
  if (!rule) {
    const problem = 'the token is good, but no rule of OPERATOR_ISSUERS gives it a role';
    return fail({ kind: 'forbidden', problem });
  }
  return succeed({ actor: `oidc:${issuer.name}:${subject}`, role: rule.role });
}

function keysOf(jwksUri: string): KeySet {
  const known = keySets.get(jwksUri);
  if (known) return known;
  let failedMs = -Infinity;
  const made = createRemoteJWKSet(new URL(jwksUri), {
    timeoutDuration: issuerTimeoutMs,
    cacheMaxAge: keysTrustedMs,
    cooldownDuration: askAgainMs,
    // jose waits between two answers; between two failures we do. It follows no redirect.
    async [customFetch](url, init) {
      if (sinceMs(failedMs, Date.now()) < askAgainMs) throw new Error('did not answer a moment ago');
      try {
        const response = await fetch(url, init);
        if (response.status !== 200) failedMs = Date.now();
        return response;
      } catch (error) {
        failedMs = Date.now();
        throw error;
      }
    },
  });
  keySets.set(jwksUri, made);
  return made;
}

/** What jose says of a token that is at fault, by its stable codes. */
const faults: Readonly<Record<string, string>> = {
  ERR_JWT_EXPIRED: 'has expired, or is older than max_age_seconds allows',
  ERR_JOSE_ALG_NOT_ALLOWED: 'is signed with an algorithm that is not allowed',
  ERR_JOSE_NOT_SUPPORTED: 'is signed in a way that is not allowed',
  ERR_JWS_SIGNATURE_VERIFICATION_FAILED: 'is not signed by its issuer',
  ERR_JWKS_NO_MATCHING_KEY: 'is signed with a key that its issuer does not publish',
  ERR_JWKS_MULTIPLE_MATCHING_KEYS: 'does not say with which key it is signed',
  ERR_JWS_INVALID: 'is not a signed token',
  ERR_JWT_INVALID: 'is not a signed token',
};

/** Anything else that jose throws is of the issuer's keys: 503, so that an operator knows whom to blame. */
function refuse(error: unknown, issuer: Trust): Result<never> {
  const { code = '', claim } = error as { code?: string; claim?: string };
  if (code === 'ERR_JWT_CLAIM_VALIDATION_FAILED') {
    return fail({ kind: 'unauthorised', problem: `the token's ${claim} is not what it must be` });
  }
  const fault = faults[code];
  if (fault !== undefined) return fail({ kind: 'unauthorised', problem: `the token ${fault}` });
  console.error(
    `couldn't get the keys of ${issuer.name}: ${error instanceof Error ? error.message : 'unknown'}`,
  );
  return fail({ kind: 'unavailable', problem: `the keys of ${issuer.name} can't be had now; try again` });
}

/** A claim by its name, or a nested one by the names on the way to it, with dots between. */
export function claimAt(claims: JWTPayload, name: string): unknown {
  if (Object.hasOwn(claims, name)) return claims[name];
  let value: unknown = claims;
  for (const part of name.split('.')) {
    const object = typeof value === 'object' && value !== null ? value : {};
    value = Object.hasOwn(object, part) ? (object as Record<string, unknown>)[part] : undefined;
  }
  return value;
}

export function holds({ claim, oneOf }: Condition, claims: JWTPayload): boolean {
  const value = claimAt(claims, claim);
  const texts: unknown[] = Array.isArray(value) ? value : [value];
  return texts.some((text) => typeof text === 'string' && oneOf.includes(text));
}

/** What can stand in the audit log as a name. */
function isName(value: unknown): value is string {
  return typeof value === 'string' && /^[^\p{Cc}]+$/u.test(value) && value.length <= longestSubject;
}
