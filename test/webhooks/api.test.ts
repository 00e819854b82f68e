// Webhooks as operators make, change and delete them.
import { env } from 'cloudflare:workers';
import { beforeEach, expect, test } from 'vitest';
import { startModelEngine } from '../support/model-engine.ts';
import { startReceiver, isSigned, type Receiver } from '../support/receiver.ts';
import { operator, operatorToken } from '../support/http.ts';
import { request } from '../support/operators.ts';

const url = 'https://hooks.example/secret-path-1234';
let receiver: Receiver;

beforeEach(() => {
  startModelEngine();
  receiver = startReceiver('hooks.example');
});

const make = (more: object = {}) => operator('POST', '/webhooks', { name: 'ops', url, ...more });
const auth = { authorization: `Bearer ${operatorToken}` };

test('a webhook is made with a secret that is shown once and kept sealed', async () => {
  const { status, body, headers } = await make({ events: ['engine.stale', 'engine.stale'] });
  expect(status).toBe(201);
  expect(headers.get('etag')).toBe('"1"');
  expect(body.secret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
  expect(body.webhook).toEqual({
    name: 'ops',
    url,
    events: ['engine.stale'],
    revision: 1,
    created_at: expect.any(String),
  });
  const shown = await operator('GET', '/webhooks/ops');
  expect(shown.body).toEqual({ ...body.webhook, delivery: null });
  expect((await operator('GET', '/webhooks')).body).toEqual({ webhooks: [shown.body], next: null });
  const kept = JSON.stringify((await env.DB.prepare('SELECT * FROM webhooks').all()).results);
  expect(kept).not.toContain(body.secret.slice(6, 20));
});

test.each([
  ['http://hooks.example/', 'url'],
  ['http://127.0.0.1:9/', 'url'],
  ['https://user:pass@hooks.example/', 'url'],
  ['ftp://hooks.example/', 'url'],
  ['hooks.example', 'url'],
])('%s is refused, and the field is named', async (bad, field) => {
  const { status, body } = await operator('POST', '/webhooks', { name: 'ops', url: bad });
  expect([status, body.errors[0].field]).toEqual([400, field]);
  expect(JSON.stringify(body)).not.toContain('pass@');
});

test('http to this machine is taken where a setting allows it, and nowhere else', async () => {
  const settings = { WEBHOOK_ADDRESSES: 'private' };
  const post = (address: string) =>
    request('/webhooks', { method: 'POST', headers: auth, settings, body: { name: 'ops', url: address } });
  expect((await post('http://hooks.example/')).status).toBe(400);
  expect((await post('http://127.0.0.1:9/')).status).toBe(201);
});

test('an event that is never sent can not be asked for', async () => {
  const { status, body } = await make({ events: ['bouncer.exploded'] });
  expect([status, body.errors[0].field]).toEqual([400, 'events.0']);
});

test('without BOOTSTRAP_SECRET there is nothing to seal with, which is said', async () => {
  const settings = { BOOTSTRAP_SECRET: '' };
  const answer = await request('/webhooks', {
    method: 'POST',
    headers: auth,
    settings,
    body: { name: 'ops', url },
  });
  expect(answer.status).toBe(503);
  expect(answer.body.detail).toContain('BOOTSTRAP_SECRET');
});

test('a request that is sent again makes nothing twice, and does not show the secret again', async () => {
  const headers = { ...auth, 'idempotency-key': 'once' };
  const post = () => request('/webhooks', { method: 'POST', headers, body: { name: 'ops', url } });
  const { secret, ...first } = (await post()).body;
  expect(secret).toMatch(/^whsec_/);
  const again = await post();
  expect([again.status, again.body]).toEqual([201, first]);
  expect((await make()).status).toBe(409);
});

test('twenty webhooks are enough', async () => {
  for (let at = 0; at < 20; at++) expect((await make({ name: `ops-${at}` })).status).toBe(201);
  expect((await make()).status).toBe(409);
});

test('a change needs the revision that the caller saw', async () => {
  await make();
  const change = (headers: Record<string, string>, body: object = { events: null }) =>
    request('/webhooks/ops', { method: 'PATCH', headers: { ...auth, ...headers }, body });
  expect((await change({})).status).toBe(428);
  const changed = await change({ 'if-match': '"1"' }, { events: ['bouncer.silent'] });
  expect([changed.status, changed.headers.get('etag')]).toEqual([200, '"2"']);
  expect(changed.body.webhook).toMatchObject({ url, events: ['bouncer.silent'], revision: 2 });
  expect((await change({ 'if-match': '"1"' })).status).toBe(412);
  expect((await change({ 'if-match': '*' }, { url: 'http://hooks.example/' })).status).toBe(400);
  expect((await operator('DELETE', '/webhooks/ops')).status).toBe(204);
  expect((await operator('DELETE', '/webhooks/ops')).status).toBe(404);
  expect((await operator('GET', '/webhooks/ops')).status).toBe(404);
});

test('the audit log has what was done, and of the address no more than its host', async () => {
  await make();
  await operator('POST', '/webhooks/ops/test');
  await operator('DELETE', '/webhooks/ops');
  const { body } = await operator('GET', '/audit?target=ops');
  expect(body.audit.map(({ action }: any) => action)).toEqual([
    'webhook.delete',
    'webhook.test',
    'webhook.create',
  ]);
  expect(body.audit[2].detail).toMatchObject({ host: 'hooks.example', events: null });
  expect(JSON.stringify(body)).not.toMatch(/secret-path|whsec_/);
});

test('viewers see no webhook: an address may have a secret in it', async () => {
  const { body } = await operator('POST', '/operator-tokens', {
    name: 'v',
    role: 'viewer',
    expires_in: '1h',
  });
  const headers = { authorization: `Bearer ${body.token}` };
  expect((await request('/webhooks', { headers })).status).toBe(403);
});

test('a test is a signed message of no meaning, and says what came of it', async () => {
  const { secret } = (await make()).body;
  const done = await operator('POST', '/webhooks/ops/test');
  expect([done.status, done.body]).toEqual([
    200,
    { ok: true, at: expect.any(String), status: 204, problem: null },
  ]);
  expect(receiver.taken()).toEqual(['webhook.test']);
  expect(receiver.tries[0]!.data).toEqual({ webhook: 'ops' });
  expect(isSigned(receiver.tries[0]!, secret)).toBe(true);
  expect(isSigned(receiver.tries[0]!, 'whsec_AAAA')).toBe(false);

  receiver.answer = () => Response.redirect('https://elsewhere.example/', 307);
  expect((await operator('POST', '/webhooks/ops/test')).body).toMatchObject({
    ok: false,
    status: 307,
    problem: expect.stringContaining('redirects'),
  });
  receiver.answer = () => Promise.reject(new Error(`no route to ${url}`));
  const { body } = await operator('POST', '/webhooks/ops/test');
  expect(body).toMatchObject({ ok: false, status: null });
  expect(JSON.stringify(body)).not.toContain('secret-path');
  expect((await operator('POST', '/webhooks/nobody/test')).status).toBe(404);
});
