// Tokens of OIDC issuers. jose checks the signature and the claims. What it must insist on comes from the settings and
// never from the token (RFC 8725). No text of a token gets into a failure or the log.

import { createRemoteJWKSet, customFetch, decodeJwt, jwtVerify, type JWTPayload } from 'jose';
import { sinceMs } from '../runtime/clock.ts';
import { fail, succeed, type Result } from '../http/failure.ts';
import type { Condition, Issuer, Trust } from '../config/issuers.ts';
import type { Role } from '../config/roles.ts';

/** Who calls, and in which role. */
export interface Identity {
  /** As the audit log names it: `operator-token`, `token:<name>`, `oidc:<issuer>:<subject>`. */
  readonly actor: string;
  readonly role: Role;
}

/**
 * How long keys are trusted without asking again. For that long an issuer that is down locks nobody out, and a key that
 * it withdraws stays valid.
 */
const keysTrustedMs = 10 * 60_000;
/**
 * The least time between two requests to an issuer. Anybody can send tokens with unknown keys, and must not make us flood
 * an issuer with requests, up or down. A new key is known after this time.
 */
const askAgainMs = 10_000;
const issuerTimeoutMs = 5_000;
const clockToleranceSeconds = 30;
const longestSubject = 500;

type KeySet = ReturnType<typeof createRemoteJWKSet>;

/** By URL. Shared by all requests of an isolate: jose never waits for a fetch that another request started. */
const keySets = new Map<string, KeySet>();

/** The issuer that a token claims in `iss`, which is not verified yet; undefined: it is not in the settings. */
export function claimedIssuer(issuers: readonly Issuer[], header: string, token: string): Issuer | undefined {
  let claimed: unknown;
  try {
    claimed = decodeJwt(token).iss;
  } catch {
    return undefined;
  }
  return issuers.find((candidate) => candidate.header === header && candidate.issuer === claimed);
}

/** The claims of a valid token. 401: it is not valid; 503: its issuer's keys cannot be fetched. */
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

/** Who a token is of. 401: it is not valid; 403: no rule gives it a role; 503: its issuer's keys cannot be fetched. */
export async function verifyToken(issuer: Issuer, token: string, nowMs: number): Promise<Result<Identity>> {
  const verified = await verifyClaims(issuer, token, nowMs);
  if (!verified.ok) return verified;
  const claims = verified.value;
  const subject = issuer.subjectClaims.map((name) => claims[name]).find(isName);
  if (subject === undefined) {
    const problem = `the token has no name in its claims: ${issuer.subjectClaims.join(', ')}`;
    return fail({ kind: 'unauthorised', problem });
  }
  const rule = issuer.rules.find(({ conditions }) =>
    conditions.every((condition) => holds(condition, claims)),
  );
  if (!rule) {
    const problem = 'the token is valid, but no rule of OPERATOR_ISSUERS gives it a role';
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
    // jose waits between two answers, and this between two failures. jose follows no redirect.
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

/** What is wrong with a token, by the stable codes of jose. */
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

/** Any other error of jose is about the issuer's keys: 503, which says that the fault is not the token's. */
function refuse(error: unknown, issuer: Trust): Result<never> {
  const { code = '', claim } = error as { code?: string; claim?: string };
  if (code === 'ERR_JWT_CLAIM_VALIDATION_FAILED') {
    return fail({ kind: 'unauthorised', problem: `the token's ${claim} is not what the settings require` });
  }
  const fault = faults[code];
  if (fault !== undefined) return fail({ kind: 'unauthorised', problem: `the token ${fault}` });
  const why = error instanceof Error ? error.message : 'unknown';
  console.error(`the keys of ${issuer.name} could not be fetched: ${why}`);
  return fail({
    kind: 'unavailable',
    problem: `the keys of ${issuer.name} can not be fetched now; try again`,
  });
}

/** A claim by its name, or a nested one by its path: the names with dots between. */
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

/** What the audit log can take as a name. */
function isName(value: unknown): value is string {
  return typeof value === 'string' && /^[^\p{Cc}]+$/u.test(value) && value.length <= longestSubject;
}
