// `HOST_ISSUERS`: whose tokens prove which host an instance is. Pure. Any process on an instance can get such a token,
// and anybody's instances get theirs from the same issuer, so a rule says whose are ours, and the token is good for a
// first contact only.

import { algorithmsKnown, isAddress, readCondition, type Condition, type Trust } from './issuers.ts';
import { isText, isTexts, onlyKnows, readEntries, type EntriesRead } from './json-list.ts';

/** An OIDC issuer whose tokens may name hosts. */
export interface HostIssuer extends Omit<Trust, 'audience'> {
  /** What the token's `aud` must be; null: the address that the request is signed for. */
  readonly audience: string | null;
  /** Claims, with a dot between the names of nested ones. */
  readonly hostClaim: string;
  readonly instanceClaim: string;
  /** All must hold. */
  readonly conditions: readonly Condition[];
  /** Names of hosts that it may give; `*` is any text. */
  readonly hosts: string;
  /** The name of a host's bouncer; `{host}` is the host's. */
  readonly bouncer: string;
  /** The engine at which a host may have a machine's account; null: at none. */
  readonly machine: string | null;
}

const common = ['audience', 'max_age_seconds', 'hosts', 'bouncer', 'machine'];
const presetFields = ['preset', 'projects', ...common];
const genericFields = [
  ...['issuer', 'jwks_uri', 'algorithms', 'host_claim', 'instance_claim', 'conditions'],
  ...common,
];

export function readHostIssuers(json: string): EntriesRead<HostIssuer> {
  return readEntries(json, 'issuers', readEntry);
}

function readEntry(entry: Record<string, unknown>): HostIssuer | string {
  if (!('preset' in entry)) {
    return onlyKnows(entry, genericFields) ? readFields(entry) : `no fields but ${genericFields.join(', ')}`;
  }
  const { preset, projects, ...own } = entry;
  if (preset !== 'gce') return 'as preset gce';
  if (!onlyKnows(entry, presetFields)) return `no fields but ${presetFields.join(', ')}`;
  // Google signs for everybody's instances.
  if (!isTexts(projects)) return 'as projects the ids of your Google Cloud projects';
  return readFields({
    ...own,
    issuer: 'https://accounts.google.com',
    jwks_uri: 'https://www.googleapis.com/oauth2/v3/certs',
    algorithms: ['RS256'],
    host_claim: 'google.compute_engine.instance_name',
    instance_claim: 'google.compute_engine.instance_id',
    conditions: [{ claim: 'google.compute_engine.project_id', one_of: projects }],
  });
}

function readFields(fields: Record<string, unknown>): HostIssuer | string {
  const {
    issuer,
    audience = null,
    algorithms = ['RS256', 'ES256'],
    hosts = '*',
    bouncer = '{host}',
    machine = null,
  } = fields;
  const {
    host_claim: hostClaim,
    instance_claim: instanceClaim = 'sub',
    max_age_seconds: age = 3600,
  } = fields;
  if (!isAddress(issuer)) return 'as issuer its address, with https';
  const jwksUri = fields['jwks_uri'] ?? `${issuer.replace(/\/+$/, '')}/.well-known/jwks.json`;
  if (!isAddress(jwksUri)) return 'as jwks_uri an address, with https';
  if (audience !== null && !isText(audience)) return 'as audience a text';
  if (!isTexts(algorithms) || !algorithms.every((each) => algorithmsKnown.includes(each))) {
    return `as algorithms some of ${algorithmsKnown.join(', ')}`;
  }
  if (!isText(hostClaim)) return 'as host_claim the claim that names the host';
  if (!isText(instanceClaim)) return 'as instance_claim the claim that names the instance';
  if (!isText(hosts) || !isText(bouncer)) return 'as hosts and bouncer a pattern each';
  if (machine !== null && !isText(machine)) return 'as machine the name of an engine';
  if (!Number.isInteger(age) || (age as number) < 60 || (age as number) > 86_400) {
    return 'as max_age_seconds a whole number from 60 to 86400';
  }
  const given = fields['conditions'];
  const conditions = Array.isArray(given) ? given.map(readCondition) : [];
  // Without one, whoever has an instance there is a host of ours.
  if (conditions.length === 0 || conditions.includes(undefined)) {
    return 'conditions: one or more {"claim", "equals" or "one_of"}';
  }
  const { host, pathname } = new URL(issuer);
  return {
    issuer,
    name: host + pathname.replace(/\/+$/, ''),
    audience,
    jwksUri,
    algorithms,
    maxAgeSeconds: age as number,
    hostClaim,
    instanceClaim,
    conditions: conditions as Condition[],
    hosts,
    bouncer,
    machine,
  };
}
