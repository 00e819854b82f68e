// Every route of machines, asked of a real engine and of Lapidary in front of it: status, headers and body are the
// engine's own. And what must not cross: addresses that a client claims, bodies beyond all bounds, redirects.
import { once } from 'node:events';
import { createServer, request as httpRequest, type IncomingMessage, type Server } from 'node:http';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { login, postAlert } from '../lab/alert.ts';
import { startEngine, type Engine } from '../lab/engine.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { freePort } from '../lab/ports.ts';

interface Asked {
  method: string;
  path: string;
  body?: string | Uint8Array<ArrayBuffer>;
  headers?: Record<string, string>;
  token?: string | null;
}

async function ask(url: string, { method, path, body, headers, token }: Asked) {
  const response = await fetch(url + path, {
    method,
    redirect: 'manual',
    headers: {
      'user-agent': 'lab/v1',
      ...(token ? { authorization: `Bearer ${token}` } : {}),
      ...headers,
    },
    ...(body === undefined ? {} : { body }),
  });
  const told = ['content-type', 'www-authenticate'].map((name) => [name, response.headers.get(name)]);
  return { status: response.status, ...Object.fromEntries(told), body: await response.text() };
}

type Answer = Awaited<ReturnType<typeof ask>>;

/** What differs from one moment, or one row, to the next. */
function settled(answer: Answer): Answer {
  const body = answer.body
    .replace(/"token":"[^"]+"/, '"token":"…"')
    .replace(/"(expire|duration|until)":"[^"]+"/g, '"$1":"…"')
    .replace(/"\d+"/g, '"n"')
    .replace(/(decision with id|user) '\w+'/, "$1 '…'");
  return { ...answer, body };
}

const alert = (value: string) =>
  JSON.stringify([
    {
      scenario: 'lab',
      scenario_hash: 'lab',
      scenario_version: '0.1',
      message: value,
      events_count: 1,
      start_at: new Date().toISOString(),
      stop_at: new Date().toISOString(),
      capacity: 0,
      leakspeed: '0',
      simulated: false,
      events: [],
      source: { scope: 'Ip', value },
      decisions: [
        {
          scope: 'Ip',
          value,
          type: 'ban',
          duration: '4h',
          origin: 'crowdsec',
          scenario: 'lab',
          simulated: false,
        },
      ],
    },
  ]);

describeWith('routes of machines', ['lab'], () => {
  let engine: Engine;
  let lapidary: Lapidary;
  let token: string;
  beforeAll(async () => {
    engine = await startEngine();
    lapidary = await startLapidary({
      upstream: { url: engine.url, key: await engine.addBouncer('lapidary') },
      settings: { MACHINE_ALLOW: '127.0.0.1' },
    });
    token = await login(engine);
    for (let i = 1; i <= 20; i++) await postAlert(engine, { decisions: [{ value: `192.0.2.${i}` }] }, token);
  });
  afterAll(async () => {
    await lapidary?.close();
    await engine?.close();
  });

  const account = () => ({ machine_id: engine.machine.login, password: engine.machine.password });
  const loginBody = () => JSON.stringify({ ...account(), scenarios: ['lab'] });
  /** What to ask, of the engine (`side` 1) and of Lapidary (2): each side changes rows of its own. */
  const requests: [string, (side: number) => Asked][] = [
    ['logs in', () => ({ method: 'POST', path: '/v1/watchers/login', body: loginBody(), token: null })],
    [
      'refuses a wrong password',
      () => ({
        method: 'POST',
        path: '/v1/watchers/login',
        body: JSON.stringify({ ...account(), password: 'wrong', scenarios: [] }),
        token: null,
      }),
    ],
    ['refuses no JSON', () => ({ method: 'POST', path: '/v1/watchers/login', body: '{', token: null })],
    ['refuses an empty login', () => ({ method: 'POST', path: '/v1/watchers/login', token: null })],
    [
      'registers',
      (side) => ({
        method: 'POST',
        path: '/v1/watchers',
        body: JSON.stringify({ machine_id: `new${side}`, password: 'long-enough' }),
        token: null,
      }),
    ],
    [
      'registers nobody twice',
      (side) => ({
        method: 'POST',
        path: '/v1/watchers',
        body: JSON.stringify({ machine_id: `new${side}`, password: 'long-enough' }),
        token: null,
      }),
    ],
    ['registers no nonsense', () => ({ method: 'POST', path: '/v1/watchers', body: '[]', token: null })],
    ['refreshes a token', () => ({ method: 'GET', path: '/v1/refresh_token' })],
    ['beats', () => ({ method: 'GET', path: '/v1/heartbeat' })],
    ['beats not without a token', () => ({ method: 'GET', path: '/v1/heartbeat', token: null })],
    ['beats not with a bad token', () => ({ method: 'GET', path: '/v1/heartbeat', token: 'a.b.c' })],
    ['lists alerts', () => ({ method: 'GET', path: '/v1/alerts?ip=192.0.2.1' })],
    ['lists no alerts', () => ({ method: 'GET', path: '/v1/alerts?ip=198.51.100.1' })],
    ['asks about alerts', () => ({ method: 'HEAD', path: '/v1/alerts' })],
    ['knows not every filter', () => ({ method: 'GET', path: '/v1/alerts?foo=bar' })],
    ['shows an alert', () => ({ method: 'GET', path: '/v1/alerts/1' })],
    ['asks about an alert', () => ({ method: 'HEAD', path: '/v1/alerts/1' })],
    ['shows no alert', () => ({ method: 'GET', path: '/v1/alerts/9999' })],
    ['shows no alert that is no number', () => ({ method: 'GET', path: '/v1/alerts/first' })],
    ['takes an alert', (side) => ({ method: 'POST', path: '/v1/alerts', body: alert(`198.51.100.${side}`) })],
    ['takes no alerts', () => ({ method: 'POST', path: '/v1/alerts', body: '[]' })],
    ['takes no half alert', () => ({ method: 'POST', path: '/v1/alerts', body: '[{}]' })],
    ['takes no broken alert', () => ({ method: 'POST', path: '/v1/alerts', body: '[{' })],
    ['deletes an alert', (side) => ({ method: 'DELETE', path: `/v1/alerts/${side}` })],
    ['deletes no alert', () => ({ method: 'DELETE', path: '/v1/alerts/9999' })],
    ['deletes alerts', (side) => ({ method: 'DELETE', path: `/v1/alerts?ip=192.0.2.${side + 2}` })],
    ['ends a decision', (side) => ({ method: 'DELETE', path: `/v1/decisions/${side + 4}` })],
    ['ends no decision', () => ({ method: 'DELETE', path: '/v1/decisions/9999' })],
    ['ends no decision that is no number', () => ({ method: 'DELETE', path: '/v1/decisions/stream' })],
    ['ends decisions', (side) => ({ method: 'DELETE', path: `/v1/decisions?ip=192.0.2.${side + 6}` })],
    ['ends decisions of no filter', () => ({ method: 'DELETE', path: '/v1/decisions?foo=bar' })],
    ['ends nothing without a token', () => ({ method: 'DELETE', path: '/v1/decisions', token: null })],
    ['lists allowlists', () => ({ method: 'GET', path: '/v1/allowlists?with_content=true' })],
    ['shows an allowlist', () => ({ method: 'GET', path: '/v1/allowlists/none' })],
    ['checks an address', () => ({ method: 'GET', path: '/v1/allowlists/check/192.0.2.1' })],
    ['asks about an address', () => ({ method: 'HEAD', path: '/v1/allowlists/check/192.0.2.1' })],
    [
      'checks addresses',
      () => ({ method: 'POST', path: '/v1/allowlists/check', body: '{"targets":["192.0.2.1"]}' }),
    ],
    ['takes usage metrics', () => ({ method: 'POST', path: '/v1/usage-metrics', body: '{}' })],
    ['takes itself away', () => ({ method: 'DELETE', path: '/v1/watchers/self', token: 'a.b.c' })],
  ];

  it.each(requests)('%s as the engine does', async (_, asked) => {
    const [direct, through] = [1, 2].map((side) => ({ token, ...asked(side) }));
    const engines = await ask(engine.url, direct as Asked);
    expect(settled(await ask(lapidary.url, through as Asked))).toEqual(settled(engines));
  });

  it('has a list of what passes', async () => {
    for (const [method, path, status] of [
      ['GET', '/v1/heartbeat/x', 404],
      ['PUT', '/v1/alerts', 405],
      ['GET', '/v1/decisions/1', 405],
      ['POST', '/v1/decisions', 405],
      ['GET', '/v1/watchers', 405],
      ['GET', '/v1/bouncers', 404],
      ['DELETE', '/v1/decisions/..%2Falerts', 400],
      ['DELETE', '/v1/decisions/x%2F..%2Falerts', 400],
      ['GET', `/v1/heartbeat?token=${token}`, 400],
    ] as const) {
      const { status: got, body } = await ask(lapidary.url, { method, path, token });
      expect([path, got]).toEqual([path, status]);
      expect(JSON.parse(body)).toHaveProperty('message');
    }
  });

  it('takes no empty id for all of them', async () => {
    const active = { method: 'GET', path: '/v1/alerts?has_active_decision=true', token };
    const banning = async () =>
      (JSON.parse((await ask(engine.url, active)).body) as { id: number }[]).map(({ id }) => id);
    const before = await banning();
    expect(before.length).toBeGreaterThan(0);
    for (const path of ['decisions/', 'decisions//', 'decisions/?ip=192.0.2.15', 'alerts/', 'alerts/x/..']) {
      const refused = await ask(lapidary.url, { method: 'DELETE', path: `/v1/${path}`, token });
      expect([path, refused.status]).toEqual([path, 400]);
      expect(JSON.parse(refused.body).message).toMatch(/^path: an id is missing/);
      const named = `/engines/default/v1/${path}`;
      expect((await ask(lapidary.url, { method: 'DELETE', path: named, token })).status).toBe(400);
    }
    expect(await banning()).toEqual(before);
    // With an id the slash does no harm.
    const one = await ask(lapidary.url, { method: 'DELETE', path: '/v1/decisions/9999/', token });
    expect(one.body).toContain('9999');
  });

  it('inflates what newer agents compress, for an engine that does not', async () => {
    const many = gzipSync(alert('198.51.100.77'));
    const headers = { 'content-encoding': 'gzip' };
    const posted = { method: 'POST', path: '/v1/alerts', token, headers };
    expect(await ask(lapidary.url, { ...posted, body: many })).toMatchObject({ status: 201 });
    const cut = { ...posted, body: many.subarray(0, many.length - 30) };
    expect(await ask(lapidary.url, cut)).toMatchObject({ status: 400 });
    const bomb = gzipSync(Buffer.alloc(60 * 1024 * 1024, ' '));
    const bombed = await ask(lapidary.url, { ...posted, body: bomb });
    expect(bombed).toMatchObject({ status: 400, body: '{"message":"http: request body too large"}' });
  });

  it('streams a long list and a long post', async () => {
    const long = JSON.parse(alert('198.51.100.78')) as [{ message: string }];
    long[0].message = 'long '.repeat(400_000);
    const posted = await ask(lapidary.url, {
      method: 'POST',
      path: '/v1/alerts',
      body: JSON.stringify(long),
      token,
    });
    expect(posted.status).toBe(201);
    const asked = { method: 'GET', path: '/v1/alerts?ip=198.51.100.78', token };
    const direct = settled(await ask(engine.url, asked));
    expect(direct.body.length).toBeGreaterThan(1_000_000);
    expect(settled(await ask(lapidary.url, asked))).toEqual(direct);
  });

  it('is closed where it is switched off', async () => {
    const closed = await startLapidary({
      upstream: { url: engine.url, key: await engine.addBouncer('closed') },
      settings: { MACHINE_ROUTES: 'off' },
    });
    try {
      const asked = { method: 'POST', path: '/v1/alerts', body: '[]', token };
      const { status, body } = await ask(closed.url, asked);
      expect([status, JSON.parse(body)]).toEqual([
        404,
        { message: 'MACHINE_ROUTES is off: this path not found' },
      ]);
      expect((await ask(closed.url, { method: 'DELETE', path: '/v1/decisions', token })).status).toBe(405);
    } finally {
      await closed.close();
    }
  });

  it('works below a path, and with two slashes', async () => {
    const below = await startLapidary({
      upstream: { url: engine.url, key: await engine.addBouncer('below') },
      settings: { PATH_PREFIX: '/lapi' },
    });
    try {
      for (const path of ['/lapi/v1/alerts/20', '/lapi//v1/alerts/20/']) {
        expect((await ask(below.url, { method: 'GET', path, token })).status).toBe(200);
      }
      const metrics = { method: 'POST', path: '/lapi/v1/usage-metrics', body: '{}', token };
      const direct = await ask(engine.url, { ...metrics, path: '/v1/usage-metrics' });
      expect(await ask(below.url, metrics)).toEqual(direct);
    } finally {
      await below.close();
    }
  });

  it('tells an engine that is out of reach from one that refuses', async () => {
    const other = await startEngine();
    const front = await startLapidary({ upstream: { url: other.url, key: await other.addBouncer('front') } });
    try {
      const beat = { method: 'GET', path: '/v1/heartbeat', token: await login(other) };
      expect((await ask(front.url, beat)).status).toBe(200);
      await other.stop();
      const down = await ask(front.url, beat);
      expect(down).toMatchObject({ status: 503, body: '{"message":"the engine is out of reach"}' });
    } finally {
      await front.close();
      await other.close();
    }
  });

  it('needs no new login after a restart of an engine that keeps its secret', async () => {
    const keeping = await startEngine({ env: { CS_LAPI_SECRET: 'kept-over-restarts-'.repeat(4) } });
    const front = await startLapidary({
      upstream: { url: keeping.url, key: await keeping.addBouncer('front') },
    });
    try {
      const beat = { method: 'GET', path: '/v1/heartbeat', token: await login(keeping) };
      await keeping.stop();
      await keeping.start();
      expect((await ask(front.url, beat)).status).toBe(200);
      await engine.stop();
      await engine.start();
      expect((await ask(lapidary.url, { ...beat, token })).status).toBe(401);
    } finally {
      token = await login(engine);
      await front.close();
      await keeping.close();
    }
  });

  describe('an engine that trusts X-Forwarded-For', () => {
    it('hears of the address that Lapidary saw, whatever the client claims', async () => {
      const server = [
        'use_forwarded_for_headers: true',
        'trusted_proxies: [127.0.0.1]',
        'trusted_ips: [127.0.0.1, 203.0.113.0/24]',
      ];
      const trusting = await startEngine({ server });
      const front = await startLapidary({
        upstream: { url: trusting.url, key: await trusting.addBouncer('front') },
        settings: { CLIENT_ADDRESS_HEADER: 'x-edge-client', MACHINE_ALLOW: '203.0.113.0/24' },
      });
      try {
        const headers = {
          'x-edge-client': '203.0.113.9',
          'x-forwarded-for': '127.0.0.1',
          'x-real-ip': '127.0.0.1',
          forwarded: 'for=127.0.0.1',
        };
        const { login: machine_id, password } = trusting.machine;
        const body = JSON.stringify({ machine_id, password, scenarios: [] });
        const logged = await ask(front.url, { method: 'POST', path: '/v1/watchers/login', body, headers });
        expect(logged.status).toBe(200);
        const machines = JSON.parse(await trusting.cscli('machines', 'list', '-o', 'json'));
        expect(machines[0].ipAddress).toBe('203.0.113.9');
        const own = JSON.parse(logged.body).token as string;
        const deletion = { method: 'DELETE', path: '/v1/alerts', token: own };
        expect((await ask(front.url, { ...deletion, headers })).status).toBe(200);
        // Lapidary's word is not enough where the engine has one of its own.
        const asked = { name: 'deleter', role: 'operator', expires_in: '1h' };
        const { token: operators } = (await front.operator('POST', '/operator-tokens', asked)).body;
        const elsewhere = { 'x-edge-client': '198.51.100.3', 'x-lapidary-token': operators };
        const refused = await ask(front.url, { ...deletion, headers: elsewhere });
        expect(refused.status).toBe(403);
        expect(refused.body).toContain('access forbidden from this IP (198.51.100.3)');
      } finally {
        await front.close();
        await trusting.close();
      }
    });
  });
});

describe('what stands before the engine', () => {
  let server: Server;
  let lapidary: Lapidary;
  let answer: (request: IncomingMessage) => {
    status: number;
    headers: Record<string, string>;
    body: string | null;
  };
  const seen: IncomingMessage[] = [];
  beforeAll(async () => {
    const port = await freePort();
    server = createServer((request, response) => {
      seen.push(request);
      const { status, headers, body } = answer(request);
      // No status: it is silent. A body of `null`: it falls silent in the middle.
      if (status === 0) return;
      response.writeHead(status, headers);
      if (body === null) response.write('[');
      else response.end(body);
    });
    await new Promise<void>((listening) => server.listen(port, '127.0.0.1', listening));
    lapidary = await startLapidary({
      upstream: { url: `http://127.0.0.1:${port}`, key: 'key' },
      settings: { UPSTREAM_HEADERS: '{"X-Tunnel-Secret":"between-us"}', UPSTREAM_TIMEOUT_SECONDS: '1' },
    });
  });
  afterAll(async () => {
    await lapidary?.close();
    server?.closeAllConnections();
    server?.close();
  });

  it.each([
    [302, { location: 'https://login.example/' }],
    [403, { 'content-type': 'text/html; charset=UTF-8' }],
    [401, { 'content-type': 'text/plain' }],
    [200, { 'content-type': 'text/html' }],
    [504, {}],
    [530, { 'content-type': 'application/json' }],
    [502, { 'content-type': 'text/html' }],
  ])('is not taken for the engine when it answers %i', async (status, headers) => {
    answer = () => ({ status, headers: headers as Record<string, string>, body: '<html>' });
    const got = await ask(lapidary.url, { method: 'GET', path: '/v1/heartbeat', token: 'a.b.c' });
    expect(got.status).toBe(503);
    expect(JSON.parse(got.body).message).toMatch(new RegExp(`status ${status}`));
  });

  it('is given up when it is silent, from the start or in the middle', async () => {
    answer = () => ({ status: 0, headers: {}, body: '' });
    const silent = await ask(lapidary.url, {
      method: 'POST',
      path: '/v1/alerts',
      body: '[]',
      token: 'a.b.c',
    });
    expect(silent).toMatchObject({ status: 503, body: '{"message":"the engine was silent for 1 s"}' });
    answer = () => ({ status: 200, headers: { 'content-type': 'application/json' }, body: null });
    await expect(ask(lapidary.url, { method: 'GET', path: '/v1/alerts', token: 'a.b.c' })).rejects.toThrow();
    // Announced in full: then nothing of it has gone out yet.
    answer = () => ({ status: 200, headers: { 'content-length': '9' }, body: null });
    const half = await ask(lapidary.url, { method: 'GET', path: '/v1/alerts', token: 'a.b.c' });
    expect(half.status).toBe(503);
  });

  it.each([
    ['GET', '2'],
    ['HEAD', '2'],
    ['GET', '0'],
  ])('is sent no body with a %s that has one of %s bytes', async (method, length) => {
    answer = () => ({ status: 200, headers: {}, body: '' });
    const headers = { authorization: 'Bearer a.b.c', 'content-length': length };
    const sent = httpRequest(`${lapidary.url}/v1/alerts`, { method, headers });
    sent.end(length === '2' ? '[]' : undefined);
    const [got] = (await once(sent, 'response')) as [IncomingMessage];
    got.resume();
    expect(got.statusCode).toBe(200);
    const { headers: relayed } = seen.filter(({ url }) => url === '/v1/alerts').at(-1) as IncomingMessage;
    expect([relayed['content-length'], relayed['transfer-encoding']]).toEqual([undefined, undefined]);
  });

  it('gets the headers on the list, those of the settings, and none besides', async () => {
    answer = () => ({ status: 200, headers: { 'x-own': 'secret', 'set-cookie': 'a=b' }, body: '' });
    const headers = { cookie: 'jwt=x', 'x-api-key': 'k', 'x-lapidary-token': 't', 'x-anything': '1' };
    const response = await fetch(`${lapidary.url}/v1/heartbeat`, {
      headers: { authorization: 'Bearer a.b.c', 'user-agent': 'lab/v1', ...headers },
    });
    expect(response.status).toBe(200);
    expect(response.headers.has('x-own') || response.headers.has('set-cookie')).toBe(false);
    const last = seen.filter(({ url }) => url === '/v1/heartbeat').at(-1) as IncomingMessage;
    const sent = last.headers;
    expect(sent).toMatchObject({ authorization: 'Bearer a.b.c', 'x-tunnel-secret': 'between-us' });
    const names = Object.keys(sent).sort();
    const own = ['accept', 'authorization', 'host', 'user-agent', 'x-forwarded-for', 'x-tunnel-secret'];
    // Nothing on the way may answer in the engine's place.
    const list = [...own, 'cache-control', 'pragma'];
    expect(names.filter((name) => !list.includes(name))).toEqual([]);
  });
});
