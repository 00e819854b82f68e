// The operator API over HTTP: keys, local decisions, and what it refuses.
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';

let engine: ModelEngine;
beforeEach(() => {
  engine = startModelEngine();
});

const digestOf = async (key: string): Promise<string> => {
  return new Uint8Array(await crypto.subtle.digest('SHA-512', new TextEncoder().encode(key))).toHex();
};

describe('who may call', () => {
  test.each([
    ['nobody', undefined],
    ['a wrong token', 'Bearer operator-token-of-the-test'],
    ['a longer token', `Bearer ${operatorToken}s`],
    ['another scheme', `Basic ${operatorToken}`],
    ['no token', 'Bearer '],
  ])('%s: 401 as problem+json, also for paths that do not exist', async (_, authorization) => {
    for (const path of ['/api/v1/bouncers', '/api/v1/nothing']) {
      const response = await call(path, authorization === undefined ? {} : { headers: { authorization } });
      expect(response.status).toBe(401);
      expect(response.headers.get('content-type')).toBe('application/problem+json');
      expect(await response.text()).not.toContain(operatorToken);
    }
  });

  test('a bouncer key opens nothing here', async () => {
    const key = await addBouncer('fw');
    expect((await call('/api/v1/bouncers', { headers: { authorization: `Bearer ${key}` } })).status).toBe(
      401,
    );
    expect((await asBouncer(key, '/api/v1/bouncers')).status).toBe(401);
  });
});

describe('bouncers', () => {
  test('a made key is shown once, has the format that scanners know, and works', async () => {
    const { status, body } = await operator('POST', '/bouncers', { name: 'fw-1' });
    expect(status).toBe(201);
    expect(body.key).toMatch(/^csb_[0-9A-Za-z]{49}$/);
    expect(body.bouncer).toMatchObject({ name: 'fw-1', last_pull: null });
    expect(JSON.stringify((await operator('GET', '/bouncers/fw-1')).body)).not.toContain(body.key);
    expect((await asBouncer(body.key, '/v1/decisions')).status).toBe(200);
  });

  test('a key that the caller made is registered by its digest and never seen', async () => {
    const digest = await digestOf('0123456789abcdef0123456789abcdef');
    const { status, body } = await operator('POST', '/bouncers', { name: 'old', key_sha512: digest });
    expect([status, 'key' in body]).toEqual([201, false]);
    expect((await asBouncer('0123456789abcdef0123456789abcdef', '/v1/decisions')).status).toBe(200);
  });

  test('last pull, address, type and version are shown, per client', async () => {
    const key = await addBouncer('fw-1');
    const headers = { 'user-agent': 'crowdsec-firewall-bouncer/v0.0.31', 'cf-connecting-ip': '192.0.2.44' };
    await asBouncer(key, '/v1/decisions/stream?startup=true', { headers });
    const { body } = await operator('GET', '/bouncers/fw-1');
    expect(body).toMatchObject({
      type: 'crowdsec-firewall-bouncer',
      version: 'v0.0.31',
      address: '192.0.2.44',
    });
    expect(Date.parse(body.last_pull)).toBeGreaterThan(0);
    const { body: list } = await operator('GET', '/bouncers');
    expect(list.bouncers.map(({ name }: { name: string }) => name)).toEqual(['fw-1']);
  });

  test.each([
    ['a/b/c', 'a/b/c', 'N/A'],
    ['plain', 'plain', 'N/A'],
    ['a/b', 'a', 'b'],
  ])('User-Agent %s is taken apart as LAPI does', async (agent, type, version) => {
    const key = await addBouncer('fw-1');
    await asBouncer(key, '/v1/decisions/stream', { headers: { 'user-agent': agent } });
    expect((await operator('GET', '/bouncers/fw-1')).body).toMatchObject({ type, version });
  });

  test('a deleted bouncer is refused at once here, and its key can not read any more', async () => {
    const key = await addBouncer('fw-1');
    expect((await asBouncer(key, '/v1/decisions')).status).toBe(200);
    expect((await operator('DELETE', '/bouncers/fw-1')).status).toBe(204);
    vi.useFakeTimers({ toFake: ['Date'] });
    vi.setSystemTime(Date.now() + 5_001);
    expect((await asBouncer(key, '/v1/decisions')).status).toBe(403);
    expect((await operator('GET', '/bouncers/fw-1')).status).toBe(404);
    expect((await operator('DELETE', '/bouncers/fw-1')).status).toBe(404);
  });

  test('names and keys are unique, and a refused registration leaves nothing', async () => {
    const digest = await digestOf('x'.repeat(32));
    await operator('POST', '/bouncers', { name: 'one', key_sha512: digest });
    const sameName = await operator('POST', '/bouncers', { name: 'one' });
    const sameKey = await operator('POST', '/bouncers', { name: 'two', key_sha512: digest });
    expect([sameName.status, sameKey.status]).toEqual([409, 409]);
    expect([sameName.body.detail, sameKey.body.detail]).toEqual([
      expect.stringContaining('name'),
      expect.stringContaining('key_sha512'),
    ]);
    expect((await operator('GET', '/bouncers/two')).status).toBe(404);
  });

  test('25 registrations of one name at once leave one bouncer', async () => {
    const answers = await Promise.all(
      Array.from({ length: 25 }, () => operator('POST', '/bouncers', { name: 'race' })),
    );
    expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array(24).fill(409)]);
    const winner = answers.find(({ status }) => status === 201);
    expect((await asBouncer(winner?.body.key, '/v1/decisions')).status).toBe(200);
  });

  test('pages by cursor', async () => {
    for (const name of ['a', 'b', 'c']) await addBouncer(name);
    const first = (await operator('GET', '/bouncers?limit=2')).body;
    const second = (await operator('GET', `/bouncers?limit=2&after=${first.next}`)).body;
    expect([first.bouncers.length, second.bouncers.length, second.next]).toEqual([2, 1, null]);
  });

  test('usage metrics are kept, the latest wins', async () => {
    const key = await addBouncer('fw-1');
    for (const version of ['v1', 'v2']) {
      const body = JSON.stringify({ remediation_components: [{ version, utc_startup_timestamp: 1 }] });
      expect((await asBouncer(key, '/v1/usage-metrics', { method: 'POST', body })).status).toBe(201);
    }
    expect((await operator('GET', '/bouncers/fw-1')).body.metrics).toMatchObject({ version: 'v2' });
  });
});

describe('local decisions', () => {
  const served = async (): Promise<string[]> => {
    const key = await addBouncer(`reader-${crypto.randomUUID()}`);
    const stream = '/v1/decisions/stream?startup=true&scopes=ip,range,country,as,username';
    const json = (await (await asBouncer(key, stream)).json()) as { new: { value: string }[] };
    return json.new.map(({ value }) => value);
  };

  test.each([
    [{ value: '192.0.2.1' }, { scope: 'Ip', value: '192.0.2.1' }],
    [{ value: '192.0.2.77/24' }, { scope: 'Range', value: '192.0.2.0/24' }],
    [{ value: '2001:0DB8:0:0::A1' }, { scope: 'Ip', value: '2001:db8::a1' }],
    [
      { value: '2001:db8::/32', scope: 'range' },
      { scope: 'Range', value: '2001:db8::/32' },
    ],
    [
      { value: 'fr', scope: 'country' },
      { scope: 'Country', value: 'FR' },
    ],
    [
      { value: 'AS64496', scope: 'as' },
      { scope: 'AS', value: '64496' },
    ],
    [
      { value: 'mallory', scope: 'username', type: 'captcha' },
      { scope: 'username', type: 'captcha' },
    ],
  ])('%j is stored in LAPI’s spelling', async (input, expected) => {
    const { status, body } = await operator('POST', '/decisions', { duration: '4h', ...input });
    expect(status).toBe(201);
    expect(body.decision).toMatchObject({ origin: 'lapidary', ...expected });
    expect(body.decision.id).toBeGreaterThanOrEqual(2 ** 30);
    expect(body.decision.id).toBeLessThan(2 ** 31);
    expect(await served()).toEqual([body.decision.value]);
  });

  test.each([
    ['not an address', { value: 'nonsense', duration: '4h' }, 'value'],
    ['a prefix beyond 32', { value: '192.0.2.0/33', duration: '4h' }, 'value'],
    ['leading zeros', { value: '192.0.2.01', duration: '4h' }, 'value'],
    ['a zone', { value: 'fe80::1%eth0', duration: '4h' }, 'value'],
    ['no value', { duration: '4h' }, 'value'],
    ['a range as Ip', { value: '192.0.2.0/24', scope: 'Ip', duration: '4h' }, 'value'],
    ['a country of three letters', { value: 'FRA', scope: 'Country', duration: '4h' }, 'value'],
    ['a negative duration', { value: '192.0.2.1', duration: '-4h' }, 'duration'],
    ['no duration', { value: '192.0.2.1' }, 'duration'],
    ['half a second', { value: '192.0.2.1', duration: '500ms' }, 'duration'],
    ['for ever', { value: '192.0.2.1', duration: '99999d' }, 'duration'],
    ['a number for a duration', { value: '192.0.2.1', duration: 4 }, 'duration'],
    ['an unknown type', { value: '192.0.2.1', duration: '4h', type: 'tickle' }, 'type'],
    ['a scenario with a line break', { value: '192.0.2.1', duration: '4h', scenario: 'a\nb' }, 'scenario'],
    ['an unknown field', { value: '192.0.2.1', duration: '4h', until: 'x' }, 'until'],
    ['an origin', { value: '192.0.2.1', duration: '4h', origin: 'CAPI' }, 'origin'],
    ['a list', [], 'body'],
    ['no JSON', '{"value":', 'body'],
  ])('%s is a 400 that names the field, and nothing is stored', async (_, body, field) => {
    const answer = await operator('POST', '/decisions', body);
    expect(answer.status).toBe(400);
    expect(answer.headers.get('content-type')).toBe('application/problem+json');
    expect(answer.body.errors[0].field).toBe(field);
    expect((await operator('GET', '/decisions')).body.decisions).toEqual([]);
  });

  test('a body of 1 MB is a 413 that names it', async () => {
    const { status, body } = await operator('POST', '/decisions', {
      value: 'x'.repeat(1_000_000),
      duration: '1h',
    });
    expect([status, body.errors[0].field]).toEqual([413, 'body']);
  });

  test('are removed by value, and by type and scope', async () => {
    await operator('POST', '/decisions', { value: '192.0.2.1', duration: '4h' });
    await operator('POST', '/decisions', { value: '192.0.2.1', duration: '4h', type: 'captcha' });
    const remove = async (query: string) => (await operator('DELETE', `/decisions?${query}`)).body;
    expect(await remove('value=192.0.2.1&type=captcha')).toEqual({ removed: 1, still_banned_by: [] });
    expect(await remove('value=192.0.2.1&scope=ip')).toEqual({ removed: 1, still_banned_by: [] });
    expect(await remove('value=192.0.2.1')).toEqual({ removed: 0, still_banned_by: [] });
    expect(await served()).toEqual([]);
  });

  test.each([
    ['', 'value'],
    ['?value=', 'value'],
    ['?value=192.0.2.1&ip=x', 'ip'],
    ['?value=x&scope=ip', 'value'],
  ])('a removal with %j is refused: nothing is taken away by mistake', async (query, field) => {
    const { status, body } = await operator('DELETE', `/decisions${query}`);
    expect([status, body.errors[0].field]).toEqual([400, field]);
  });

  test('an engine’s decision is the engine’s to remove: 409 that says where', async () => {
    engine.add({ value: '192.0.2.9', untilMs: Date.now() + 3_600_000 });
    await operator('POST', '/feed/sync');
    const { status, body } = await operator('DELETE', '/decisions?value=192.0.2.9');
    expect([status, body.detail]).toEqual([
      409,
      'value: nothing was banned here; 192.0.2.9 is banned by these engines: default; ' +
        'remove it there (cscli decisions delete --value 192.0.2.9)',
    ]);
    expect(await served()).toEqual(['192.0.2.9']);
    // Made here as well: what is left of it is said.
    await operator('POST', '/decisions', { value: '192.0.2.9', duration: '4h' });
    const { body: partly } = await operator('DELETE', '/decisions?value=192.0.2.9');
    expect(partly).toEqual({ removed: 1, still_banned_by: ['default'] });
    expect(await served()).toEqual(['192.0.2.9']);
  });

  test.each([
    ['2001:DB8::A1', 'Ip', ['2001:DB8::A1', '2001:db8::a1', '2001:db8:0::a1', '2001:db8::a1/128']],
    ['192.0.2.9/32', 'Range', ['192.0.2.9/32', '192.0.2.9', '::ffff:192.0.2.9']],
    ['192.0.2.9', 'Range', ['192.0.2.9', '192.0.2.9/32']],
    ['::ffff:192.0.2.50', 'Ip', ['::ffff:192.0.2.50', '192.0.2.50']],
    ['192.0.2.77/24', 'Range', ['192.0.2.77/24', '192.0.2.0/24']],
    ['fr', 'Country', ['fr', 'FR']],
    ['AS64500', 'AS', ['AS64500', 'as64500', '64500']],
  ])(
    'an engine’s %s (%s) is named by a removal in any spelling, as the engine has it',
    async (value, scope, asked) => {
      engine.add({ value, scope, untilMs: Date.now() + 3_600_000 });
      await operator('POST', '/feed/sync');
      for (const text of asked) {
        for (const query of [`value=${text}`, `value=${text}&scope=${scope}`]) {
          const { status, body } = await operator('DELETE', `/decisions?${query}`);
          expect([status, body.detail], query).toEqual([
            409,
            expect.stringContaining(`default; remove it there (cscli decisions delete --value ${value})`),
          ]);
        }
      }
      expect(await served()).toEqual([value]);
    },
  );

  test.each([
    ['2001:db8::a1', undefined, '2001:DB8:0::A1'],
    ['192.0.2.9', undefined, '192.0.2.9/32'],
    ['192.0.2.9/32', 'Range', '::ffff:192.0.2.9'],
    ['192.0.2.0/24', undefined, '192.0.2.200/24'],
    ['FR', 'Country', 'fr'],
    ['64500', 'AS', 'AS64500'],
  ])(
    '%s (%s) that was decided here is removed as %s, and its sibling’s engine named',
    async (value, scope, asked) => {
      await operator('POST', '/decisions', { value, duration: '4h', ...(scope && { scope }) });
      engine.add({ value: asked, scope: scope ?? 'Ip', untilMs: Date.now() + 3_600_000 });
      await operator('POST', '/feed/sync');
      const { body } = await operator('DELETE', `/decisions?value=${asked}`);
      expect(body).toEqual({ removed: 1, still_banned_by: ['default'] });
      expect(await served()).toEqual([asked]);
    },
  );

  test('are listed in pages, with those of the engine', async () => {
    engine.add({ value: '192.0.2.9', untilMs: Date.now() + 3_600_000 });
    await operator('POST', '/feed/sync?full=true');
    for (const value of ['192.0.2.1', '192.0.2.2']) {
      await operator('POST', '/decisions', { value, duration: '4h' });
    }
    const first = (await operator('GET', '/decisions?limit=2')).body;
    const second = (await operator('GET', `/decisions?limit=2&after=${first.next}`)).body;
    const values = [...first.decisions, ...second.decisions].map(({ value }: { value: string }) => value);
    expect([values, second.next]).toEqual([['192.0.2.9', '192.0.2.1', '192.0.2.2'], null]);
  });

  test('live on while the engine is down, and a resync leaves them alone', async () => {
    await operator('POST', '/decisions', { value: '192.0.2.1', duration: '4h' });
    await operator('POST', '/feed/sync?full=true');
    engine.fault = () => Promise.reject(new Error('down'));
    await operator('POST', '/feed/sync?full=true');
    expect(await served()).toEqual(['192.0.2.1']);
  });
});

describe('the feed', () => {
  test('is described, in words an operator can act on', async () => {
    engine.add({ value: '192.0.2.9', untilMs: Date.now() + 3_600_000 });
    expect((await operator('POST', '/feed/sync?full=true')).body).toMatchObject({ ok: true, added: 1 });
    const { body } = await operator('GET', '/feed');
    expect(body).toMatchObject({ sequence: 2, decisions: 1, tombstones: 0, cursors: 0, freshness: 'fresh' });
    const [shown] = body.engines;
    expect(shown).toMatchObject({ name: 'default', decisions: 1, state: 'ok', last_error: null });
    expect(Date.parse(shown.last_resync_at)).toBeGreaterThan(0);
  });

  test('names a key that the engine refuses, here and in /health', async () => {
    engine.fault = () => Response.json({ message: 'access forbidden' }, { status: 403 });
    expect((await operator('POST', '/feed/sync')).status).toBe(502);
    expect((await operator('GET', '/feed')).body.engines[0]).toMatchObject({
      state: 'refused',
      last_error: expect.stringContaining('UPSTREAM_API_KEY'),
    });
    expect(await (await call('/health')).json()).toMatchObject({
      status: 'up',
      feed: 'cold',
      upstream: 'refused',
    });
  });

  test('/health tells fresh from stale, with the age', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    await operator('POST', '/feed/sync');
    expect(await (await call('/health')).json()).toEqual({
      status: 'up',
      feed: 'fresh',
      age_seconds: 0,
      full_age_seconds: 0,
    });
    vi.setSystemTime(Date.now() + 4 * 3_600_000);
    expect(await (await call('/health')).json()).toEqual({
      status: 'up',
      feed: 'stale',
      age_seconds: 14_400,
      full_age_seconds: 14_400,
    });
  });

  test.each([
    ['PUT', '/bouncers', 'GET, POST'],
    ['POST', '/feed', 'GET'],
    ['GET', '/feed/sync', 'POST'],
  ])('%s %s: 405 with Allow', async (method, path, allow) => {
    const { status, headers } = await operator(method, path);
    expect([status, headers.get('allow')]).toEqual([405, allow]);
  });

  test('unknown paths are problem+json 404', async () => {
    const { status, body } = await operator('GET', '/nothing');
    expect([status, body.status]).toEqual([404, 404]);
  });
});
