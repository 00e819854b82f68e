// The OIDC issuers of `OPERATOR_ISSUERS` and `HOST_ISSUERS`: whose tokens are accepted, and what they open. Pure. What is
// loose here is open to whoever has an account or an instance at the issuer. So every field is checked, and none has a
// generous default.

import * as z from 'zod';
import { fields, filled, parsed, parsePlainUrl, some, text } from './fields.ts';
import { roles } from './roles.ts';

/** An issuer whose tokens may name operators. */
export type Issuer = Readonly<z.output<typeof operatorIssuer>>;

/**
 * An issuer whose tokens prove which host an instance is. Any process on an instance can get such a token. So it is good
 * for a first contact only.
 */
export type HostIssuer = Readonly<z.output<typeof hostIssuer>>;

/** Whose tokens are accepted, and what they must have. `audience`: what `aud` must be or hold. */
export type Trust = Readonly<ReturnType<typeof trustOf>> & { readonly audience: string };

/** A claim that is one of these texts, or a list that holds one of them. */
export interface Condition {
  readonly claim: string;
  readonly oneOf: readonly string[];
}

/** Asymmetric ones only: with a shared secret whoever checks a token could make one. */
const rsaAlgorithms = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'];
const algorithmsKnown = [...rsaAlgorithms, 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'];
const algorithm = z.enum(algorithmsKnown, `one of ${algorithmsKnown.join(', ')}`);

/** Keys that arrive over plain HTTP are anybody's, except from this machine. */
const address = parsed('an https:// address (http:// on loopback)', (given) => {
  const { protocol, hostname } = parsePlainUrl(given) ?? {};
  const isLocal = /^(localhost|127\.0\.0\.1|\[::1\])$/.test(hostname ?? '');
  return protocol === 'https:' || (protocol === 'http:' && isLocal) ? given : null;
});

const claim = filled('the name of a claim');
const texts = some(filled('a text'), 'a list of one or more texts');
const equals = fields({ claim, equals: filled('a text') });
const oneOf = fields({ claim, one_of: texts });

const condition = z
  .union([equals, oneOf], '{"claim", "equals"} or {"claim", "one_of"}')
  .transform(conditionOf);

function conditionOf(given: z.output<typeof equals> | z.output<typeof oneOf>): Condition {
  return { claim: given.claim, oneOf: 'equals' in given ? [given.equals] : given.one_of };
}

// No condition at all would hold for everybody.
const conditions = some(condition, 'a list of one or more {"claim", "equals" or "one_of"}');

const role = z.enum(roles, `one of ${roles.join(', ')}`);
const ruleMustBe = '{"claim", "equals" or "one_of", "role"} or {"all": [conditions], "role"}';
const rule = z
  .union(
    [equals.safeExtend({ role }), oneOf.safeExtend({ role }), fields({ all: conditions, role })],
    ruleMustBe,
  )
  .transform((given) => {
    const conditions = 'all' in given ? given.all : [conditionOf(given)];
    return { conditions, role: given.role };
  });

/** How old a token may be. */
function age(mostSeconds: number) {
  const mustBe = `a whole number from 60 to ${mostSeconds}`;
  return z.int(mustBe).min(60, mustBe).max(mostSeconds, mustBe);
}

/** What an entry without a preset says of its issuer. */
const described = {
  preset: z.undefined().optional(),
  issuer: address,
  jwks_uri: address.optional(),
  algorithms: some(algorithm, 'a list of one or more algorithms').default(['RS256', 'ES256']),
};

type Described = Pick<z.output<typeof generic>, 'issuer' | 'jwks_uri' | 'algorithms' | 'max_age_seconds'>;

function trustOf({ issuer, jwks_uri: jwksUri, algorithms, max_age_seconds: maxAgeSeconds }: Described) {
  const { host, pathname } = new URL(issuer);
  return {
    /** The token's `iss`, letter by letter. */
    issuer,
    /** Host and path of `issuer`: what the audit log calls it. */
    name: host + pathname.replace(/\/+$/, ''),
    /** Where its public keys are. */
    jwksUri: jwksUri ?? `${issuer.replace(/\/+$/, '')}/.well-known/jwks.json`,
    algorithms,
    /** How long after its `iat` a token is good, whatever its `exp` says. */
    maxAgeSeconds,
  };
}

/** For entries of which `preset` says the rest. */
function presetMustBe(names: string) {
  return { error: ({ code }: { code: string }) => (code === 'invalid_union' ? names : 'an object') };
}

const operatorAge = age(30 * 86_400);
const ofOperators = {
  audience: filled('a text'),
  subject_claim: claim.optional(),
  rules: some(rule, `a list of one or more ${ruleMustBe}`),
};

const generic = fields({
  ...described,
  ...ofOperators,
  header: text(/^[A-Za-z0-9-]{1,64}$/, 'the name of one header').default('Authorization'),
  max_age_seconds: operatorAge.default(3600),
}).transform((given) => ({ ...given, subject_claims: ['sub'] }));

const cloudflareAccess = fields({
  preset: z.literal('cloudflare-access'),
  team: text(/^[a-z0-9-]{1,63}$/, 'what stands before .cloudflareaccess.com'),
  ...ofOperators,
  // The token is as old as the session. Access ends that after a day, unless it is set to do otherwise.
  max_age_seconds: operatorAge.default(86_400),
}).transform(({ team, ...given }) => ({
  ...given,
  issuer: `https://${team}.cloudflareaccess.com`,
  jwks_uri: `https://${team}.cloudflareaccess.com/cdn-cgi/access/certs`,
  algorithms: ['RS256'],
  header: 'Cf-Access-Jwt-Assertion',
  // A service token has neither an e-mail address nor a subject, but the name of its client.
  subject_claims: ['email', 'common_name', 'sub'],
}));

const githubActions = fields({
  preset: z.literal('github-actions'),
  ...ofOperators,
  max_age_seconds: operatorAge.default(900),
}).transform((given) => ({
  ...given,
  issuer: 'https://token.actions.githubusercontent.com',
  jwks_uri: 'https://token.actions.githubusercontent.com/.well-known/jwks',
  algorithms: ['RS256'],
  header: 'Authorization',
  subject_claims: ['sub'],
}));

/** An entry of `OPERATOR_ISSUERS`. */
export const operatorIssuer = z
  .discriminatedUnion(
    'preset',
    [generic, cloudflareAccess, githubActions],
    presetMustBe('cloudflare-access or github-actions'),
  )
  .transform((given) => ({
    ...trustOf(given),
    audience: given.audience,
    /** Where its tokens arrive, in lower case; `authorization` means a bearer token. */
    header: given.header.toLowerCase(),
    /** The first of these claims that is a text names the operator. */
    subjectClaims: given.subject_claim === undefined ? given.subject_claims : [given.subject_claim],
    /** The first whose conditions all hold decides. Where none does, the token opens nothing. */
    rules: given.rules,
  }));

const ofHosts = {
  audience: filled('a text').nullable().default(null),
  max_age_seconds: age(86_400).default(3600),
  hosts: filled('a pattern').default('*'),
  bouncer: filled('a pattern').default('{host}'),
  machine: filled('the name of an engine').nullable().default(null),
};

// Without a condition whoever has an instance at the issuer would be a host of ours.
const ownIssuer = { ...described, host_claim: claim, instance_claim: claim.default('sub'), conditions };

// Google signs for everybody's instances, so the projects are a condition.
const gce = fields({ preset: z.literal('gce'), projects: texts, ...ofHosts }).transform(
  ({ projects, ...given }) => ({
    ...given,
    issuer: 'https://accounts.google.com',
    jwks_uri: 'https://www.googleapis.com/oauth2/v3/certs',
    algorithms: ['RS256'],
    host_claim: 'google.compute_engine.instance_name',
    instance_claim: 'google.compute_engine.instance_id',
    conditions: [{ claim: 'google.compute_engine.project_id', oneOf: projects }],
  }),
);

/** An entry of `HOST_ISSUERS`. */
export const hostIssuer = z
  .discriminatedUnion('preset', [fields({ ...ownIssuer, ...ofHosts }), gce], presetMustBe('gce'))
  .transform((given) => ({
    ...trustOf(given),
    /** What the token's `aud` must be; null: the address that the request is signed for. */
    audience: given.audience,
    /** Claims, with a dot between the names of nested ones. */
    hostClaim: given.host_claim,
    instanceClaim: given.instance_claim,
    /** All must hold. */
    conditions: given.conditions as readonly Condition[],
    /** Names of hosts that it may give; `*` is any text. */
    hosts: given.hosts,
    /** The name of a host's bouncer; `{host}` is the host's. */
    bouncer: given.bouncer,
    /** The engine at which a host may have a machine's account; null: at none. */
    machine: given.machine,
  }));
