// Machines through us, where a real engine can't be brought to it: what one writes is in the feed when it has its answer,
// also what LAPI's own deltas lose; what is refused here; and what is kept of answers.
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';
import { wholeMinute } from '../support/minute.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { bouncer, feed } from '../support/bouncer.ts';
import { waitFor } from '../support/patience.ts';

const hour = 3_600_000;
let engine: ModelEngine;

beforeEach(() => {
  engine = startModelEngine();
});

const until = () => Date.now() + hour;
const kinds = (requests: readonly string[]) =>
  requests.map((path) => (path.includes('stream') ? 'delta' : path.includes('id_gt') ? 'tail' : 'full'));

/** What the engine was asked while `work` ran. */
async function askedBy(work: () => Promise<unknown>): Promise<string[]> {
  const before = engine.requests.length;
  await work();
  return kinds(engine.requests.slice(before));
}

/** An answer of the engine that ends before it is whole. */
function brokenOff(start: string): Response {
  const parts = [new TextEncoder().encode(start)];
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      const part = parts.shift();
      if (part) controller.enqueue(part);
      else controller.error(new Error('connection lost'));
    },
  });
  return new Response(body, { headers: { 'content-type': 'application/json' } });
}

async function started(): Promise<ReturnType<typeof bouncer>> {
  engine.add({ value: '192.0.2.1', untilMs: until() });
  const client = bouncer();
  await client.pull(true);
  await feed().sync({ full: true, force: false });
  return client;
}

/** Long enough for the rounds so far to be out of the way of a write that begins now. */
function pass(ms: number): void {
  const now = Date.now();
  vi.useFakeTimers({ toFake: ['Date'] });
  vi.setSystemTime(now + ms);
}

const added = (tookMs: number) => ({ effect: 'added', certain: false, tookMs }) as const;

describe('a write', () => {
  test('that nothing overlapped costs one delta and a tail', async () => {
    const client = await started();
    pass(5_000);
    engine.add({ value: '192.0.2.2', untilMs: until() });
    expect(await askedBy(() => feed().syncAfter('default', added(20)))).toEqual(['delta', 'tail']);
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.1', '192.0.2.2']);
  });

  test.each([
    ['A', 'full'],
    ['C', 'tail'],
  ] as const)('of dialect %s that a round overlapped is looked for in the %s', async (dialect, list) => {
    engine.dialect = dialect;
    const client = await started();
    pass(5_000);
    // A delta that was pulled between stamp and commit: no later one has the row.
    await feed().sync({ full: false, force: false });
    engine.addUnseen({ value: '192.0.2.2', untilMs: until() });
    expect(await askedBy(() => feed().syncAfter('default', added(200)))).toContain(list);
    await client.pull(false);
    expect(client.banned()).toContain('192.0.2.2');
  });

  test('is looked for in the tail where the engine has one', async () => {
    const client = await started();
    await feed().sync({ full: false, force: false });
    pass(5_000);
    await feed().sync({ full: false, force: false });
    pass(1_000);
    engine.addUnseen({ value: '192.0.2.2', untilMs: until() });
    const asked = await askedBy(() => feed().syncAfter('default', added(1_200)));
    expect(asked).toEqual(['delta', 'tail']);
    await client.pull(false);
    expect(client.banned()).toContain('192.0.2.2');
  });

  test('shares its rounds with all the others at the same time', async () => {
    await started();
    pass(5_000);
    const held = Promise.withResolvers<void>();
    engine.fault = async (_, target) => {
      await held.promise;
      return engine.answer(target);
    };
    const asked = await askedBy(async () => {
      const writes = Array.from({ length: 100 }, (_, index) => {
        engine.add({ value: `198.51.100.${index}`, untilMs: until() });
        return feed().syncAfter('default', added(20));
      });
      // Answered after all of them have come to the object.
      await feed().status();
      held.resolve();
      await Promise.all(writes);
    });
    // The one that was under way when they came, and the one that they share.
    expect(asked.filter((kind) => kind === 'delta')).toHaveLength(2);
    expect((await feed().status()).decisions).toBe(101);
  });
});

describe('alerts that are deleted', () => {
  const dropped = (certain: boolean) => ({ effect: 'dropped', certain, tookMs: 10 }) as const;

  test('take their decisions along, though it be all of them', async () => {
    const client = await started();
    engine.drop(1);
    await feed().syncAfter('default', dropped(true));
    await client.pull(false);
    expect(client.banned()).toEqual([]);
  });

  test('are looked for, too, when the engine’s answer breaks off', async () => {
    await started();
    engine.fault = (path, target) => {
      if (path !== '/v1/alerts') return engine.answer(target);
      engine.drop(1);
      return brokenOff('{"nbDeleted":"1');
    };
    const asked = await askedBy(async () => {
      const headers = { authorization: 'Bearer a.b.c', 'x-lapidary-token': operatorToken };
      const deleted = await call('/v1/alerts', { method: 'DELETE', headers });
      await expect(deleted.text()).rejects.toThrow();
    });
    expect(asked).toContain('full');
  });

  test('take nothing along where the engine deleted none', async () => {
    const client = await started();
    engine.swap();
    await feed().syncAfter('default', dropped(false));
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.1']);
  });
});

test('a poll right after a write does not get what this isolate knew before', async () => {
  await started();
  const key = await addBouncer('reader');
  const poll = async () => (await asBouncer(key, '/v1/decisions/stream')).json<any>();
  for (let i = 0; i < 3; i++) await poll();
  expect(await poll()).toEqual({ new: [], deleted: [] });
  engine.fault = (path, target) => {
    if (path !== '/v1/alerts') return engine.answer(target);
    engine.add({ value: '192.0.2.2', untilMs: until() });
    return Response.json(['1'], { status: 201 });
  };
  const headers = { authorization: 'Bearer a.b.c' };
  const posted = await call('/v1/alerts', { method: 'POST', body: '[]', headers });
  expect([posted.status, await posted.json()]).toEqual([201, ['1']]);
  expect((await poll()).new).toMatchObject([{ value: '192.0.2.2' }]);
});

test('an engine that fails is asked what it wrote, and its answer is forwarded', async () => {
  await started();
  engine.fault = (path, target) => {
    if (path !== '/v1/alerts') return engine.answer(target);
    engine.add({ value: '192.0.2.2', untilMs: until() });
    return Response.json({ message: 'database is locked' }, { status: 500 });
  };
  const headers = { authorization: 'Bearer a.b.c' };
  const posted = await call('/v1/alerts', { method: 'POST', body: '[]', headers });
  expect([posted.status, await posted.json()]).toEqual([500, { message: 'database is locked' }]);
  await waitFor(async () => expect((await feed().status()).decisions).toBe(2));
});

test('a machine whose name is hidden in a token’s padding, or not there at all, is the engine’s to refuse', async () => {
  const message = 'signature is invalid';
  engine.fault = () => Response.json({ code: 401, message }, { status: 401 });
  for (const token of [
    'Bearer a.b.c',
    'Bearer ..',
    'Bearer a.bnVsbA.c',
    'Bearer a.e30.c',
    'Bearer a.IngiCg.c',
  ]) {
    const answer = await call('/v1/heartbeat', { headers: { authorization: token } });
    expect([token, answer.status, await answer.json()]).toEqual([token, 401, { code: 401, message }]);
  }
});

describe('without a token that could be good', () => {
  const claiming = (claims: object) => `Bearer a.${btoa(JSON.stringify(claims)).replace(/=+$/, '')}.c`;
  const nowSeconds = () => Math.floor(Date.now() / 1000);
  const ask = async (path: string, authorization: string, method = 'GET') => {
    const headers = { ...(authorization ? { authorization } : {}), 'user-agent': 'crowdsec/v1' };
    const answer = await call(path, { method, headers, ...(method === 'POST' ? { body: '{}' } : {}) });
    expect(answer.headers.get('www-authenticate')).toBe('JWT realm=Crowdsec API local');
    return [answer.status, await answer.text()];
  };
  const refusal = (message: string) => [401, `{"code":401,"message":"${message}"}`];

  test.each([
    ['', 'cookie token is empty'],
    ['Bearer', 'cookie token is empty'],
    ['Basic a.b.c', 'cookie token is empty'],
    ['bearer a.e30.c', 'cookie token is empty'],
    ['Bearer x', 'token contains an invalid number of segments'],
    ['Bearer a.b.c.d', 'token contains an invalid number of segments'],
    [claiming({ exp: 1, id: 'lab' }), 'Token is expired'],
  ])('%j is refused in LAPI’s words, on every route, and the engine is not asked', async (token, message) => {
    for (const [method, path] of [
      ['GET', '/v1/heartbeat'],
      ['GET', '/v1/alerts'],
      ['POST', '/v1/alerts'],
      ['DELETE', '/v1/alerts/1'],
      ['DELETE', '/v1/decisions'],
      ['DELETE', '/v1/watchers/self'],
      ['GET', '/v1/allowlists/check/192.0.2.1'],
      ['POST', '/v1/usage-metrics'],
    ] as const) {
      expect([method, path, ...(await ask(path, token, method))]).toEqual([
        method,
        path,
        ...refusal(message),
      ]);
    }
    expect(fetch).not.toHaveBeenCalled();
  });

  test('one that has just ended, by a clock ahead of the engine’s, is the engine’s to refuse', async () => {
    engine.fault = () => new Response(null);
    const headers = { authorization: claiming({ exp: nowSeconds() - 5, id: 'lab' }) };
    expect((await call('/v1/heartbeat', { headers })).status).toBe(200);
  });

  test('one that has ended is renewed within the hour, and not after', async () => {
    engine.fault = () => Response.json({ code: 200 });
    const issued = (secondsAgo: number) => {
      const then = nowSeconds() - secondsAgo;
      return claiming({ exp: then + 60, orig_iat: then, id: 'lab' });
    };
    const headers = { authorization: issued(3_500) };
    expect((await call('/v1/refresh_token', { headers })).status).toBe(200);
    expect(await ask('/v1/refresh_token', issued(3_700))).toEqual(refusal('token is expired'));
  });
});

/** As LAPI refuses every log-in. */
const largeLogin = [401, { code: 401, message: 'missing: http: request body too large' }];

/** How much is unfolded: test/http/body.test.ts. */
test.each([
  ['/v1/watchers/login', largeLogin],
  ['/v1/alerts', [400, { message: 'http: request body too large' }]],
])('a gzip body that unfolds to more than the limit of %s is refused', async (path, refusal) => {
  vi.mocked(fetch).mockImplementation(async (_, init) => {
    await new Response(init?.body).arrayBuffer();
    return Response.json([]);
  });
  const megabytes = new Blob(Array<string>(100).fill(' '.repeat(1024 * 1024)));
  const zipped = megabytes.stream().pipeThrough(new CompressionStream('gzip'));
  const body = await new Response(zipped).arrayBuffer();
  const headers = { 'content-encoding': 'gzip', authorization: 'Bearer a.b.c' };
  const answer = await call(path, { method: 'POST', body, headers });
  expect([answer.status, await answer.json()]).toEqual(refusal);
});

test('a log-in of more than 2 MiB is refused as LAPI refuses a log-in', async () => {
  const body = JSON.stringify({ machine_id: 'a', password: 'x'.repeat(2 * 1024 * 1024) });
  const answer = await call('/v1/watchers/login', { method: 'POST', body });
  expect([answer.status, await answer.json()]).toEqual(largeLogin);
  expect(answer.headers.get('www-authenticate')).toBe('JWT realm=Crowdsec API local');
  expect(fetch).not.toHaveBeenCalled();
});

test.each([
  ['a second value', '{"machine_id":"a \\"}{","x":{}} {}'],
  ['a word', '{"machine_id":"a"} x'],
  ['the start of one', '{"machine_id":"a"}{'],
])('a log-in with %s behind its first, which the engine would not look at, is refused', async (_, body) => {
  const answer = await call('/v1/watchers/login', { method: 'POST', body });
  expect([answer.status, await answer.json()]).toEqual([400, { message: 'body: must be one JSON value' }]);
});

test.each(['', '{', '{"machine_id":"a', 'x {}', '[{}] {}', '{]} {}', '{"machine_id":"a"}\n'])(
  'what a log-in of %j is, is the engine’s to say',
  async (body) => {
    engine.fault = () => Response.json({ message: 'its word' }, { status: 400 });
    const answer = await call('/v1/watchers/login', { method: 'POST', body });
    expect(await answer.json()).toEqual({ message: 'its word' });
  },
);

test('a machine is stopped under every name that MySQL takes for its own', async () => {
  engine.fault = () => Response.json({ message: 'passed' });
  const status = async (id: string) => {
    const token = `a.${btoa(JSON.stringify({ id })).replace(/=+$/, '')}.c`;
    return (await call('/v1/heartbeat', { headers: { authorization: `Bearer ${token}` } })).status;
  };
  await operator('PUT', '/blocked-machines/lost', {});
  await operator('PUT', `/blocked-machines/${encodeURIComponent('gone ')}`, {});
  for (const id of ['lost', 'lost ', 'lost   ', 'gone', 'gone ']) {
    expect([id, await status(id)]).toEqual([id, 403]);
  }
  for (const id of [' lost', 'lost\t', 'los t']) expect([id, await status(id)]).toEqual([id, 200]);
});

describe('log-ins', () => {
  let network = 0;
  /** Each time another: the isolate remembers from test to test. */
  const somewhere = () => `2001:db8:${(++network).toString(16)}::1`;
  let name: string;
  let tried: number;
  beforeEach(() => {
    name = `machine-${++network}`;
    tried = 0;
    vi.mocked(fetch).mockImplementation(async (input, init) => {
      if (String(input).endsWith('/v1/heartbeat')) return new Response(null);
      tried++;
      const { password } = (await new Response(init?.body).json()) as { password: string };
      if (password === 'down') return Response.json({ message: 'database is locked' }, { status: 500 });
      return password === 'good'
        ? Response.json({ code: 200, token: 'a.b.c' })
        : Response.json({ code: 401, message: 'incorrect Username or Password' }, { status: 401 });
    });
  });
  const post = (address: string, body: string) => {
    const headers = { 'cf-connecting-ip': address };
    return call('/v1/watchers/login', { method: 'POST', body, headers });
  };
  const logIn = async (address: string, password: string, machine_id = name) => {
    const answer = await post(address, JSON.stringify({ machine_id, password, scenarios: [] }));
    if (answer.status === 429) expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0);
    return answer.status;
  };
  const times = async (count: number, work: (i: number) => Promise<number>) => {
    const seen: Record<number, number> = {};
    for (let i = 0; i < count; i++) {
      const status = await work(i);
      seen[status] = (seen[status] ?? 0) + 1;
    }
    return seen;
  };

  test('that are good are no reason to refuse any, however many come from one address', async () => {
    const here = somewhere();
    expect(await times(100, (i) => logIn(here, 'good', `${name}-${i % 7}`))).toEqual({ 200: 100 });
  });

  test('that an engine in trouble does not answer are none that failed', async () => {
    const here = somewhere();
    expect(await times(40, () => logIn(here, 'down'))).toEqual({ 503: 40 });
    expect(await logIn(here, 'good')).toBe(200);
  });

  test('that fail are 30 a minute from one network, whatever of its addresses and names they use', async () => {
    const here = somewhere().replace(/1$/, '');
    expect(await times(35, (i) => logIn(`${here}${i + 1}`, 'bad', `${name}-${i}`))).toEqual({
      401: 30,
      429: 5,
    });
    expect(tried).toBe(30);
    expect(await logIn(somewhere(), 'bad')).toBe(401);
  });

  test('that fail are 60 a minute under one name, in each spelling that an engine takes for it', async () => {
    const guess = (i: number) => logIn(somewhere(), 'bad', name + ' '.repeat(i));
    expect(await times(65, guess)).toEqual({ 401: 60, 429: 5 });
  });

  test('all at once are no more than one after another', async () => {
    const here = somewhere();
    const statuses = await Promise.all(Array.from({ length: 100 }, () => logIn(here, 'bad')));
    expect(statuses.filter((status) => status === 401)).toHaveLength(30);
    expect(tried).toBe(30);
  });

  test('that failed in other isolates are counted by Cloudflare, told at the next', async () => {
    await wholeMinute();
    const here = somewhere();
    const key = here.replace('::1', '::/64');
    for (let i = 0; i < 30; i++) await env.LOGIN_LIMIT_ADDRESS.limit({ key });
    expect(await times(3, () => logIn(here, 'bad'))).toEqual({ 401: 1, 429: 2 });
  });

  test('under a name that somebody guesses go on from where it was good', async () => {
    const [home, other] = [somewhere(), somewhere()];
    expect(await logIn(home, 'good')).toBe(200);
    expect(await times(65, () => logIn(somewhere(), 'bad'))).toEqual({ 401: 60, 429: 5 });
    expect(await logIn(home, 'good')).toBe(200);
    expect(await logIn(other, 'good')).toBe(429);
  });

  test('go on from an address from where another machine fails', async () => {
    const home = somewhere();
    expect(await logIn(home, 'good')).toBe(200);
    expect(await times(35, () => logIn(home, 'bad', 'neighbour'))).toEqual({ 401: 30, 429: 5 });
    expect(await logIn(home, 'good')).toBe(200);
    // Its own password is not guessed from there without end, either.
    expect(await times(35, () => logIn(home, 'bad'))).toEqual({ 401: 30, 429: 5 });
  });

  test('go on from where a machine shows a token that the engine takes', async () => {
    const home = somewhere();
    const token = `a.${btoa(JSON.stringify({ id: name })).replace(/=+$/, '')}.c`;
    const headers = { authorization: `Bearer ${token}`, 'cf-connecting-ip': home };
    expect((await call('/v1/heartbeat', { headers })).status).toBe(200);
    expect(await times(65, () => logIn(somewhere(), 'bad'))).toEqual({ 401: 60, 429: 5 });
    expect(await logIn(home, 'good')).toBe(200);
  });

  test('that are refused before the engine count as well', async () => {
    const here = somewhere();
    expect(await times(35, async () => (await post(here, '{} {}')).status)).toEqual({ 400: 30, 429: 5 });
    expect(await logIn(here, 'good')).toBe(429);
  });
});

describe('allow-lists', () => {
  const path = '/v1/allowlists?with_content=true';
  const token = (claims: object) => `Bearer a.${btoa(JSON.stringify(claims)).replace(/=+$/, '')}.c`;
  const ask = (authorization: string) => call(path, { headers: { authorization } });

  test('are asked of the engine by each caller, with its own token', async () => {
    const good = token({ id: 'good' });
    vi.mocked(fetch).mockImplementation(async (_, init) => {
      const authorization = new Headers(init?.headers).get('authorization');
      return authorization === good ? Response.json([]) : Response.json({ code: 401 }, { status: 401 });
    });
    const statuses = [good, token({ id: 'bad' }), good].map(async (each) => (await ask(each)).status);
    expect(await Promise.all(statuses)).toEqual([200, 401, 200]);
    expect(vi.mocked(fetch).mock.calls.map(([url]) => new URL(String(url)).search)).toEqual(
      Array.from({ length: 3 }, () => '?with_content=true'),
    );
  });

  test('are unavailable when the answer breaks off', async () => {
    vi.mocked(fetch).mockImplementation(async () => {
      const broken = brokenOff('[{"name":');
      broken.headers.set('content-length', '100');
      return broken;
    });
    expect((await ask(token({ id: 'good' }))).status).toBe(503);
  });

  test('are not shown to a blocked machine', async () => {
    vi.mocked(fetch).mockImplementation(async () => Response.json([]));
    const stolen = token({ id: 'stolen' });
    expect((await ask(stolen)).status).toBe(200);
    await operator('PUT', '/blocked-machines/stolen', {});
    expect((await ask(stolen)).status).toBe(403);
  });
});
