// Requests that bring about what /openapi.json says of each operation, in an order in which they work: what one makes,
// a later one shows, changes and takes away.

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
}

const digest = 'ab'.repeat(64);
const web1 = { name: 'web-1' };
const latest = { 'if-match': '*' };

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
  { id: 'postDecisions', status: 201, body: { value: '192.0.2.1', duration: '4h' } },
  { id: 'getDecisions', status: 200 },
  { id: 'deleteDecisions', status: 200, query: { value: '192.0.2.1' } },
  { id: 'getFeed', status: 200 },
  { id: 'postFeedSync', status: 200, query: { full: 'true' } },
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
  { id: 'postAuditAcknowledge', status: 200 },
];
