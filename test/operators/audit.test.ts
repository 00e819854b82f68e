// The audit log as operators read it.
import { env } from 'cloudflare:workers';
import { beforeEach, expect, test } from 'vitest';
import { asBouncer, operator } from '../support/http.ts';
import { startModelEngine } from '../support/model-engine.ts';

beforeEach(() => {
  startModelEngine();
});

test('a row whose detail is not JSON is shown as it is, and the others are, too', async () => {
  for (const name of ['a', 'b', 'c']) await operator('POST', '/bouncers', { name });
  await env.DB.prepare(`UPDATE audit SET detail_json = '{"cut' WHERE target = 'b'`).run();
  const { status, body } = await operator('GET', '/audit?action=bouncer.create');
  expect(status).toBe(200);
  expect(body.audit.map(({ target, detail }: any) => [target, typeof detail])).toEqual([
    ['c', 'object'],
    ['b', 'string'],
    ['a', 'object'],
  ]);
  expect(body.audit[1].detail).toBe('{"cut');
  expect((await operator('GET', '/audit/verify')).body.ok).toBe(false);
});

test('times in details are written as all times are', async () => {
  const { key } = (await operator('POST', '/bouncers', { name: 'fw', expires_in: '90d' })).body;
  await asBouncer(key, '/v1/decisions/stream');
  const next = (await operator('POST', '/bouncers/fw/rotate', { grace: '1h', expires_in: '80d' })).body.key;
  await asBouncer(next, '/v1/decisions/stream');
  await operator('POST', '/rotations', { selector: { names: ['fw'] }, spread: '1h' });
  await operator('POST', '/enrolments', { hosts: 'web-*' });
  await operator('POST', '/operator-tokens', { name: 'night', role: 'viewer', expires_in: '1h' });
  await operator('POST', '/decisions', { value: '192.0.2.1', duration: '4h' });
  const { audit } = (await operator('GET', '/audit')).body;
  const times = audit.flatMap(({ action, detail }: any) =>
    Object.entries(detail)
      .filter(([name, value]) => /_at$|^until$/.test(name) && value !== null)
      .map(([name, value]) => [action, name, value]),
  );
  const iso = expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  expect(times.map(([action, name]: string[]) => `${action} ${name}`)).toEqual(
    expect.arrayContaining(['bouncer.create expires_at', 'bouncer.first-use ends_at', 'decision.ban until']),
  );
  for (const [action, name, value] of times) expect([action, name, value]).toEqual([action, name, iso]);
});
