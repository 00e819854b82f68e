// What a mutation answers is what a GET says at once after it, and what its repetition is answered; but for a secret,
// which is shown once.
import { env } from 'cloudflare:workers';
import { beforeEach, expect, test, vi } from 'vitest';
import { digestOf } from '../../src/crypto/secret.ts';
import { knownHost, makeKey } from '../support/hosts.ts';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';
import { startModelEngine } from '../support/model-engine.ts';

type Shown = Record<string, unknown>;

beforeEach(async () => {
  startModelEngine();
  vi.useFakeTimers({ toFake: ['Date'] });
  // Both are in use: the one's keys are made here, the other's by its host.
  await poll(await addBouncer('fw'), 'fw/v1', '192.0.2.7');
  const key = makeKey();
  const host = await knownHost('web-1');
  expect((await host.register({ key_sha512: await digestOf(key) })).status).toBe(200);
  await poll(key, 'nginx/v2', '192.0.2.8');
  vi.setSystemTime(Date.now() + 60_000);
});

async function poll(key: string, userAgent: string, address: string): Promise<void> {
  const headers = { 'user-agent': userAgent, 'cf-connecting-ip': address };
  expect((await asBouncer(key, '/v1/decisions/stream?startup=true', { headers })).status).toBe(200);
}

async function ask(method: string, path: string, body: object, key: string) {
  const response = await call(`/api/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${operatorToken}`, 'idempotency-key': key, 'if-match': '*' },
    body: JSON.stringify(body),
  });
  const { status, headers } = response;
  const answer = (await response.json()) as Shown & { key?: string; keys?: object; token?: string };
  const { key: shown, keys, token, ...described } = answer;
  return { status, described, etag: headers.get('etag'), secret: shown ?? keys ?? token, headers };
}

/** Changes something, twice under one `Idempotency-Key`. */
async function change(method: string, path: string, body: object = {}): Promise<[number, Shown, string?]> {
  const key = crypto.randomUUID();
  const first = await ask(method, path, body, key);
  const again = await ask(method, path, body, key);
  expect(again.headers.get('idempotent-replayed')).toBe('true');
  expect([again.status, again.described, again.etag]).toEqual([first.status, first.described, first.etag]);
  expect(again.secret).toBeUndefined();
  return [first.status, first.described, first.etag ?? undefined];
}

async function bouncerNow(name: string): Promise<[Shown, string]> {
  const { body, headers } = await operator('GET', `/bouncers/${name}`);
  return [{ bouncer: without(body, 'metrics', 'metrics_at') }, headers.get('etag') ?? ''];
}

/** What only a GET tells. */
function without(body: Shown, ...keys: string[]): Shown {
  return Object.fromEntries(Object.entries(body).filter(([key]) => !keys.includes(key)));
}

test.each([
  ['POST', '/bouncers/fw/rotate', 200, { grace: '1h' }],
  ['POST', '/bouncers/fw/rotate', 200, { grace: '0s', expires_in: '30d' }],
  ['POST', '/bouncers/web-1/rotate', 202, { expires_in: '30d' }],
  ['POST', '/bouncers/web-1/rotate', 200, { key_sha512: 'a'.repeat(128) }],
  ['POST', '/bouncers/fw/versions/1/revoke', 200, {}],
  ['POST', '/bouncers/web-1/versions/1/revoke', 200, {}],
  ['PATCH', '/bouncers/fw', 200, { rate_limit: { per_minute: 600 } }],
  ['PATCH', '/bouncers/web-1', 200, { allowed_addresses: ['192.0.2.0/24'] }],
])('%s %s (%i, %o): the bouncer as it is', async (method, path, expected, body) => {
  const name = path.split('/')[2] ?? '';
  const [status, described, etag] = await change(method, path, body);
  expect(status).toBe(expected);
  expect([described, etag]).toEqual(await bouncerNow(name));
  const last = { last_pull: expect.any(String), clients: [{ last_pull: expect.any(String) }] };
  expect(described['bouncer']).toMatchObject(name === 'fw' ? last : { ...last, host: 'web-1' });
});

test('a new bouncer, and one that a host was waiting for', async () => {
  await knownHost('db', { bouncers: ['db-1'] });
  for (const name of ['new', 'db-1']) {
    const [status, described, etag] = await change('POST', '/bouncers', { name, expires_in: '30d' });
    expect(status).toBe(201);
    expect([described, etag]).toEqual(await bouncerNow(name));
  }
  expect((await bouncerNow('db-1'))[0]['bouncer']).toMatchObject({ host: 'db' });
});

test('a host that is made, changed, and allowed to begin anew', async () => {
  const { body } = await operator('GET', '/hosts/web-1');
  const fields = { public_key: body.host.public_key, bouncers: ['web-2', 'web-1'], machine: 'default' };
  const changes = [
    ['PUT', '/hosts/web-1', fields],
    ['POST', '/hosts/web-1/recoveries', {}],
    ['PUT', '/hosts/web-1', { ...fields, machine: null, engine: true }],
  ] as const;
  for (const [method, path, fields] of changes) {
    const [status, described, etag] = await change(method, path, fields);
    const now = await operator('GET', '/hosts/web-1');
    expect([status, described, etag]).toEqual([200, now.body, now.headers.get('etag')]);
  }
  await operator('DELETE', '/hosts/web-1');
  const [status, described] = await change('PUT', '/hosts/web-1', fields);
  expect([status, described]).toEqual([201, (await operator('GET', '/hosts/web-1')).body]);
});

/** The one of a list of which this is true. */
async function listed(path: string, list: string, isIt: (each: any) => boolean): Promise<unknown> {
  const { body } = await operator('GET', path);
  return body[list].find(isIt);
}

test('an enrolment, an operator’s token and a blocked machine, made and taken back', async () => {
  const [, made] = await change('POST', '/enrolments', { hosts: 'db-*', max_hosts: 3 });
  const { id } = made['enrolment'] as { id: string };
  const enrolment = () => listed('/enrolments', 'enrolments', (each) => each.id === id);
  expect(made['enrolment']).toEqual(await enrolment());
  const [, revoked] = await change('DELETE', `/enrolments/${id}`);
  expect(revoked['enrolment']).toEqual(await enrolment());

  const token = () => listed('/operator-tokens', 'operator_tokens', (each) => each.name === 'ops');
  const fields = { name: 'ops', role: 'viewer', expires_in: '1d' };
  expect((await change('POST', '/operator-tokens', fields))[1]['operator_token']).toEqual(await token());
  expect((await change('DELETE', '/operator-tokens/ops'))[1]['operator_token']).toEqual(await token());

  const [, blocked] = await change('PUT', '/blocked-machines/lab', { reason: 'stolen' });
  const machine = await listed('/blocked-machines', 'blocked_machines', (each) => each.machine === 'lab');
  expect(blocked['blocked_machine']).toEqual(machine);
});

test('a repetition of what the release before answered is answered so', async () => {
  await ask('POST', '/bouncers', { name: 'new' }, 'from-before');
  await env.DB.prepare('UPDATE idempotent_answers SET body_json = ?')
    .bind('{"bouncer":{"revision":7}}')
    .run();
  const { status, described, etag } = await ask('POST', '/bouncers', { name: 'new' }, 'from-before');
  expect([status, described, etag]).toEqual([201, { bouncer: { revision: 7 } }, '"7"']);
});

test.each(['0s', '1h'])('a rotation of many (grace %s)', async (grace) => {
  const [status, described] = await change('POST', '/rotations', { selector: { names: ['*'] }, grace });
  const { body } = await operator('GET', '/rotations/1');
  expect([status, described]).toEqual([201, without(body, 'counts')]);
  expect(body.members).toMatchObject([
    { name: 'fw', state: grace === '0s' ? 'done' : 'waiting' },
    { name: 'web-1', state: 'waiting', old_last_used: expect.any(String) },
  ]);
});
