// `OPERATOR_ISSUERS`: whose tokens are believed, from where, and what they open. Pure. What is loose here is open to
// whoever has an account at the issuer, so every field is checked and none has a generous default.

import { isObject, isText, isTexts, onlyKnows, readEntries, type EntriesRead } from './json-list.ts';
import { isRole, type Role } from './roles.ts';

/** Whose tokens are believed, and what is insisted on. */
export interface Trust {
  /** The token's `iss`, letter by letter. */
  readonly issuer: string;
  /** Host and path of `issuer`: what the audit log calls it. */
  readonly name: string;
  /** What the token's `aud` must be or hold: this Lapidary and nothing else. */
  readonly audience: string;
  /** Where its public keys are. */
  readonly jwksUri: string;
  readonly algorithms: readonly string[];
  /** How long after its `iat` a token is good, whatever its `exp` says. */
  readonly maxAgeSeconds: number;
}

/** An OIDC issuer whose tokens may name operators. */
export interface Issuer extends Trust {
  /** Where its tokens arrive, in lower case; `authorization` means a bearer token. */
  readonly header: string;
  /** The first of these claims that is a text names the operator. */
  readonly subjectClaims: readonly string[];
  /** The first that matches decides; none, and the token opens nothing. */
  readonly rules: readonly RoleRule[];
}

export interface RoleRule {
  /** All of them must hold. */
  readonly conditions: readonly Condition[];
  readonly role: Role;
}

/** A claim that is one of these texts, or a list that holds one of them. */
export interface Condition {
  readonly claim: string;
  readonly oneOf: readonly string[];
}

/** Asymmetric ones only: with a shared secret whoever checks a token could make one. */
export const algorithmsKnown = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'],
  ...['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'],
];
const longestAgeSeconds = 30 * 86_400;

/** An issuer's fields without their defaults; a preset fills some of them. */
interface Fields {
  readonly issuer?: unknown;
  readonly audience?: unknown;
  readonly jwks_uri?: unknown;
  readonly algorithms?: unknown;
  readonly header?: unknown;
  readonly max_age_seconds?: unknown;
  readonly subject_claim?: unknown;
  readonly rules?: unknown;
}

const fieldNames = [
  ...['issuer', 'audience', 'jwks_uri', 'algorithms', 'header', 'max_age_seconds', 'subject_claim', 'rules'],
];

export function readIssuers(json: string): EntriesRead<Issuer> {
  return readEntries<Issuer>(json, 'issuers', (entry, before) => {
    const read = readEntry(entry);
    if (typeof read === 'string') return read;
    // Two with one name would share their operators' names, and with them their Idempotency-Keys.
    return before.some(({ name }) => name === read.name) ? 'an issuer of its own' : read;
  });
}

/** The issuer, or what it must have. */
function readEntry(entry: Record<string, unknown>): Issuer | string {
  if (!('preset' in entry)) {
    return onlyKnows(entry, fieldNames)
      ? readFields(entry, ['sub'])
      : `no fields but ${fieldNames.join(', ')}`;
  }
  const { preset, team, ...own } = entry;
  const mayHave = ['audience', 'rules', 'max_age_seconds', 'subject_claim'];
  if (!onlyKnows(own, mayHave)) return `no fields but preset, team, ${mayHave.join(', ')}`;
  switch (preset) {
    case 'cloudflare-access': {
      if (typeof team !== 'string' || !/^[a-z0-9-]{1,63}$/.test(team)) {
        return 'as team what stands before .cloudflareaccess.com';
      }
      const issuer = `https://${team}.cloudflareaccess.com`;
      const filled = {
        issuer,
        jwks_uri: `${issuer}/cdn-cgi/access/certs`,
        algorithms: ['RS256'],
        header: 'Cf-Access-Jwt-Assertion',
        // The token is as old as the session; Access ends that, after a day unless told otherwise.
        max_age_seconds: 86_400,
        ...own,
      };
      // A service token has neither an e-mail address nor a subject, but the name of its client.
      return readFields(filled, ['email', 'common_name', 'sub']);
    }
    case 'github-actions': {
      if (team !== undefined) return 'no team';
      const issuer = 'https://token.actions.githubusercontent.com';
      const filled = {
        issuer,
        jwks_uri: `${issuer}/.well-known/jwks`,
        algorithms: ['RS256'],
        max_age_seconds: 900,
        ...own,
      };
      return readFields(filled, ['sub']);
    }
    default:
      return 'as preset cloudflare-access or github-actions';
  }
}

function readFields(fields: Fields, subjectClaims: readonly string[]): Issuer | string {
  const { issuer, audience, header = 'Authorization' } = fields;
  if (!isAddress(issuer)) return 'an issuer that is an https:// address (http:// on loopback)';
  if (!isText(audience)) return 'an audience that is a text';
  const jwksUri = fields.jwks_uri ?? `${issuer.replace(/\/+$/, '')}/.well-known/jwks.json`;
  if (!isAddress(jwksUri)) return 'a jwks_uri that is an https:// address (http:// on loopback)';
  const algorithms = fields.algorithms ?? ['RS256', 'ES256'];
  if (!isTexts(algorithms) || !algorithms.every((name) => algorithmsKnown.includes(name))) {
    return `as algorithms a list of ${algorithmsKnown.join(', ')}`;
  }
  if (typeof header !== 'string' || !/^[A-Za-z0-9-]{1,64}$/.test(header))
    return 'as header the name of one header';
  const maxAgeSeconds = fields.max_age_seconds ?? 3600;
  if (!isWholeNumber(maxAgeSeconds, 60, longestAgeSeconds)) {
    return `as max_age_seconds a whole number from 60 to ${longestAgeSeconds}`;
  }
  const subjectClaim = fields.subject_claim;
  if (subjectClaim !== undefined && !isText(subjectClaim)) return 'as subject_claim the name of a claim';
  const rules = readRules(fields.rules);
  if (!rules) {
    return 'rules: one or more {"claim", "equals" or "one_of", "role"}, or {"all": [conditions], "role"}';
  }
  const { host, pathname } = new URL(issuer);
  return {
    issuer,
    name: host + pathname.replace(/\/+$/, ''),
    audience,
    jwksUri,
    algorithms,
    header: header.toLowerCase(),
    maxAgeSeconds,
    subjectClaims: subjectClaim === undefined ? subjectClaims : [subjectClaim],
    rules,
  };
}

function readRules(rules: unknown): RoleRule[] | undefined {
  if (!Array.isArray(rules) || rules.length === 0) return undefined;
  const read = rules.map(readRule);
  return read.includes(undefined) ? undefined : (read as RoleRule[]);
}

function readRule(rule: unknown): RoleRule | undefined {
  if (!isObject(rule) || !isRole(rule['role'])) return undefined;
  const { role, all, ...single } = rule;
  if (all === undefined) return withConditions(role as Role, [single]);
  return Object.keys(single).length === 0 && Array.isArray(all)
    ? withConditions(role as Role, all)
    : undefined;
}

function withConditions(role: Role, from: readonly unknown[]): RoleRule | undefined {
  const conditions = from.map(readCondition);
  // No condition at all would hold for everybody.
  if (conditions.length === 0 || conditions.includes(undefined)) return undefined;
  return { role, conditions: conditions as Condition[] };
}

export function readCondition(condition: unknown): Condition | undefined {
  if (!isObject(condition) || !onlyKnows(condition, ['claim', 'equals', 'one_of'])) return undefined;
  const { claim, equals, one_of: oneOf } = condition;
  if (!isText(claim) || (equals === undefined) === (oneOf === undefined)) return undefined;
  if (oneOf === undefined) return isText(equals) ? { claim, oneOf: [equals] } : undefined;
  return isTexts(oneOf) ? { claim, oneOf } : undefined;
}

function isWholeNumber(value: unknown, least: number, most: number): value is number {
  return Number.isInteger(value) && (value as number) >= least && (value as number) <= most;
}

/** Keys that arrive over plain HTTP are anybody's, except from this machine. */
export function isAddress(value: unknown): value is string {
  if (typeof value !== 'string' || !URL.canParse(value)) return false;
  const { protocol, hostname, username, password, search, hash } = new URL(value);
  if (username + password + search + hash !== '') return false;
  return (
    protocol === 'https:' || (protocol === 'http:' && /^(localhost|127\.0\.0\.1|\[::1\])$/.test(hostname))
  );
}
