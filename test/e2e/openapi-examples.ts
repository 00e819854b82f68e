// Requests that bring about what /openapi.json says of each operation, in an order in which they work: what one creates,
// a later one shows, changes and removes.
import type { Lapidary } from '../lab/lapidary.ts';
import { createSshHost, type BootstrapPath } from '../lab/ssh-host.ts';

export interface Example {
  /** The operation's id in the document. */
  id: string;
  status: number;
  params?: Record<string, string>;
  query?: Record<string, string>;
  body?: unknown;
  /** A body as it is, in place of `body`. */
  text?: string;
  headers?: Record<string, string>;
  /** False: it changes nothing, so there is no answer to repeat. */
  changes?: boolean;
  /** What is known only when the examples before it were sent. */
  make?: (lapidary: Lapidary) => Promise<Partial<Example>>;
}

const digest = 'ab'.repeat(64);
const allowed = { value: '192.0.2.77', comment: 'office' };
const web1 = { name: 'web-1' };
const latest = { 'if-match': '*' };
const host1 = { name: 'host-1' };
const host = createSshHost('host-1');
const stranger = createSshHost('host-1');
const engineKey = { engine_key: 'a-key-that-cscli-made' };
const account = { machine_password: 'a-password-that-the-host-has-made' };
const fw = { bouncer: 'fw', key_sha512: 'ef'.repeat(64) };

/** A request that the host `from` signs. */
function sent(path: BootstrapPath, fields: object, from = host): Example['make'] {
  return async ({ url }) => ({ body: await from.request(url, path, fields) });
}

let last: unknown;
const keys: Example['make'] = async ({ url }) => ({ body: (last = await host.request(url, 'keys', fw)) });
const keysAgain: Example['make'] = async () => ({ body: last });

const enrolmentMade: Example['make'] = async ({ operator }) => {
  const { body } = await operator('GET', '/enrolments');
  return { params: { id: body.enrolments[0].id } };
};

export const examples: Example[] = [
  { id: 'postBouncers', status: 201, body: web1 },
  { id: 'postBouncers', status: 409, body: web1 },
  { id: 'getBouncers', status: 200, query: { limit: '10' } },
  { id: 'getBouncersName', status: 200, params: web1 },
  { id: 'getBouncersName', status: 404 },
  {
    id: 'patchBouncersName',
    status: 200,
    params: web1,
    headers: latest,
    body: {
      view: { scopes: ['ip'], max_decisions: 1000 },
      allowed_addresses: ['127.0.0.0/8', '::1'],
      rate_limit: { per_minute: 600 },
    },
  },
  { id: 'patchBouncersName', status: 404, headers: latest, body: { view: null } },
  { id: 'postBouncersNameRotate', status: 200, params: web1, body: { grace: '1m', key_sha512: digest } },
  { id: 'postBouncersNameRotate', status: 409, params: web1, body: { grace: '0s', key_sha512: digest } },
  { id: 'postBouncersNameRotate', status: 404, body: {} },
  {
    id: 'postBouncersNameVersionsNumberRevoke',
    status: 200,
    params: { ...web1, number: '2' },
  },
  { id: 'postBouncersNameVersionsNumberRevoke', status: 404, params: { ...web1, number: '9' } },
  {
    id: 'postBouncersImport',
    status: 200,
    body: {
      bouncers: [{ name: 'old', api_key: 'cd'.repeat(64), revoked: 0, last_pull: '2026-01-02 03:04:05' }],
    },
  },
  { id: 'postRotations', status: 200, body: { selector: { names: ['*'] }, dry_run: true }, changes: false },
  { id: 'postRotations', status: 201, body: { selector: { names: ['web-*'] }, spread: '1h' } },
  {
    id: 'postRotations',
    status: 409,
    body: { selector: { names: ['web-1'] }, keys_sha512: { 'web-1': digest } },
  },
  { id: 'getRotations', status: 200 },
  { id: 'getRotationsId', status: 200, params: { id: '1' } },
  { id: 'getRotationsId', status: 404 },
  { id: 'deleteBouncersName', status: 204, params: web1 },
  { id: 'deleteBouncersName', status: 404 },
  {
    id: 'putHostsName',
    status: 201,
    params: host1,
    body: { public_key: host.publicKey, bouncers: ['fw'], engine: true },
  },
  {
    id: 'putHostsName',
    status: 200,
    params: host1,
    body: { public_key: host.publicKey, bouncers: ['fw', 'nginx'], mode: 'relaxed', engine: true },
  },
  { id: 'putHostsName', status: 409, body: { public_key: stranger.publicKey, bouncers: ['fw'] } },
  { id: 'getChallenge', status: 200 },
  { id: 'postKeys', status: 200, make: keys },
  { id: 'postKeys', status: 409, make: keysAgain },
  { id: 'postKeys', status: 401, make: sent('keys', { ...fw, nonce: 'none' }) },
  { id: 'postKeys', status: 403, make: sent('keys', fw, stranger) },
  // Their other answers take an engine: openapi.test.ts brings them about.
  { id: 'postEngineKey', status: 401, make: sent('engine-key', { ...engineKey, nonce: 'none' }) },
  { id: 'postEngineKey', status: 403, make: sent('engine-key', engineKey, stranger) },
  { id: 'postMachine', status: 401, make: sent('machine', { ...account, nonce: 'none' }) },
  { id: 'postMachine', status: 403, make: sent('machine', account) },
  { id: 'postBouncersNameRotate', status: 202, params: { name: 'fw' }, body: { grace: '5m' } },
  { id: 'getHosts', status: 200 },
  { id: 'getHostsName', status: 200, params: host1 },
  { id: 'getHostsName', status: 404 },
  { id: 'postHostsNameRecoveries', status: 200, params: host1 },
  { id: 'postHostsNameRecoveries', status: 404 },
  { id: 'deleteHostsName', status: 204, params: host1 },
  { id: 'deleteHostsName', status: 404 },
  { id: 'postKeys', status: 410, make: sent('keys', fw) },
  { id: 'postEngineKey', status: 410, make: sent('engine-key', engineKey) },
  { id: 'postMachine', status: 410, make: sent('machine', account) },
  { id: 'putPublicUrl', status: 200, body: { url: 'https://lapidary.example.net' } },
  { id: 'postEnrolments', status: 201, body: { hosts: 'web-*', max_hosts: 10, expires_in: '1h' } },
  { id: 'getEnrolments', status: 200 },
  { id: 'deleteEnrolmentsId', status: 200, make: enrolmentMade },
  { id: 'deleteEnrolmentsId', status: 409, make: enrolmentMade },
  { id: 'deleteEnrolmentsId', status: 404, params: { id: 'none' } },
  { id: 'postDecisions', status: 201, body: { value: '192.0.2.1', duration: '4h' } },
  { id: 'getDecisions', status: 200 },
  { id: 'getDecisions', status: 400, query: { value: '192.0.2.300' } },
  { id: 'getDecisionsValues', status: 200 },
  { id: 'getDecisionsValues', status: 400, query: { value: '192.0.2.300' } },
  { id: 'getDecisionsSent', status: 200, query: { value: '192.0.2.1' } },
  { id: 'getDecisionsSent', status: 400 },
  { id: 'deleteDecisions', status: 200, query: { value: '192.0.2.1' } },
  { id: 'postAllowlist', status: 201, body: allowed },
  { id: 'postAllowlist', status: 409, body: allowed },
  { id: 'postDecisions', status: 409, body: { value: allowed.value, duration: '4h' } },
  { id: 'getAllowlist', status: 200 },
  { id: 'getAllowlistEngines', status: 200, query: { list: 'office' } },
  { id: 'getAllowlistEngines', status: 400, query: { engine: 'nobody' } },
  { id: 'getAllowlistId', status: 200, params: { id: '1' } },
  { id: 'getAllowlistId', status: 404 },
  { id: 'patchAllowlistId', status: 200, params: { id: '1' }, headers: latest, body: { comment: 'home' } },
  { id: 'patchAllowlistId', status: 404, headers: latest, body: { comment: 'home' } },
  { id: 'deleteAllowlistId', status: 204, params: { id: '1' } },
  { id: 'deleteAllowlistId', status: 404 },
  {
    id: 'putBlockedMachinesMachine',
    status: 200,
    params: { machine: 'web-agent' },
    body: { reason: 'stolen' },
  },
  { id: 'getBlockedMachines', status: 200, query: { limit: '10' } },
  { id: 'deleteBlockedMachinesMachine', status: 204, params: { machine: 'web-agent' } },
  { id: 'deleteBlockedMachinesMachine', status: 404 },
  { id: 'getFeed', status: 200 },
  { id: 'postFeedSync', status: 200, query: { full: 'true' } },
  { id: 'postWebhooks', status: 201, body: { name: 'ops', url: 'https://127.0.0.1:9/', events: null } },
  { id: 'postWebhooks', status: 409, body: { name: 'ops', url: 'https://127.0.0.1:9/' } },
  { id: 'getWebhooks', status: 200 },
  { id: 'getWebhooksName', status: 200, params: { name: 'ops' } },
  { id: 'getWebhooksName', status: 404 },
  {
    id: 'patchWebhooksName',
    status: 200,
    params: { name: 'ops' },
    headers: latest,
    body: { events: ['engine.stale'] },
  },
  { id: 'patchWebhooksName', status: 404, headers: latest, body: {} },
  { id: 'postWebhooksNameTest', status: 200, params: { name: 'ops' } },
  { id: 'postWebhooksNameTest', status: 404 },
  { id: 'deleteWebhooksName', status: 204, params: { name: 'ops' } },
  { id: 'deleteWebhooksName', status: 404 },
  {
    id: 'postOperatorTokens',
    status: 201,
    body: { name: 'night-shift', role: 'operator', expires_in: '1h' },
  },
  {
    id: 'postOperatorTokens',
    status: 409,
    body: { name: 'night-shift', role: 'viewer', expires_in: '1h' },
  },
  { id: 'getOperatorTokens', status: 200 },
  { id: 'deleteOperatorTokensName', status: 200, params: { name: 'night-shift' } },
  { id: 'deleteOperatorTokensName', status: 409, params: { name: 'night-shift' } },
  { id: 'deleteOperatorTokensName', status: 404 },
  { id: 'getAudit', status: 200, query: { action: 'bouncer.create' } },
  { id: 'getAuditVerify', status: 200 },
  { id: 'getAuditVerify', status: 409, query: { after: '999999' } },
  { id: 'postAuditAcknowledge', status: 200 },
  { id: 'getMetrics', status: 200, query: { bouncers: '0' } },
];
