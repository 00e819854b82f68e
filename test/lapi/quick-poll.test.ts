// Polls that are answered before the router: each answer is what the router says, and nothing that it does is left out.
import { createExecutionContext, waitOnExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi, type MockInstance } from 'vitest';
import { routes, serve } from '../../src/app.ts';
import { startEdge } from '../support/edge.ts';
import { feed } from '../support/bouncer.ts';
import { addBouncer, operator, operatorToken, call } from '../support/http.ts';

const hour = 3_600_000;
const path = '/v1/decisions/stream';
const addressHeader = 'x-client';
const paris = { name: 'paris', url: 'http://paris.example', key: 'key', hosts: ['paris.edge.example'] };
const bindings = bindingsWith({ UPSTREAMS: JSON.stringify([paris]) });
let routed: MockInstance<typeof routes.fetch>;
let key: string;

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  routed = vi.spyOn(routes, 'fetch');
  const edge = await startEdge();
  key = edge.key;
  edge.engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
  await operator('POST', '/feed/sync?full=true');
  // The first use is noted, and both clients have what there is.
  for (const address of ['192.0.2.101', '192.0.2.102']) {
    for (let polls = 0; polls < 4; polls++) await quick(path, {}, address);
  }
});

function bindingsWith(settings: object): Env {
  return { ...env, CLIENT_ADDRESS_HEADER: addressHeader, ...settings } as Env;
}

interface Answered {
  status: number;
  headers: [string, string][];
  body: string;
}

function requestOf(target: string, init: RequestInit, address: string): Request {
  const url = target.startsWith('http') ? target : `http://edge.example${target}`;
  return new Request(url, {
    ...init,
    headers: { 'x-api-key': key, [addressHeader]: address, ...init.headers },
  });
}

async function answered(answer: Response | Promise<Response>, ctx: ExecutionContext): Promise<Answered> {
  const { status, headers } = await answer;
  const body = await (await answer).text();
  await waitOnExecutionContext(ctx);
  return { status, headers: [...headers], body };
}

/** What the Worker answers, and whether the router was asked. */
async function quick(target: string, init: RequestInit = {}, address = '192.0.2.101', given = bindings) {
  const before = routed.mock.calls.length;
  const ctx = createExecutionContext();
  const answer = await answered(serve(requestOf(target, init, address), given, ctx), ctx);
  return { answer, isQuick: routed.mock.calls.length === before };
}

/** What the router answers to another client in the same state. */
function byRouter(target: string, init: RequestInit = {}, address = '192.0.2.102'): Promise<Answered> {
  const ctx = createExecutionContext();
  return answered(Promise.resolve(routes.fetch(requestOf(target, init, address), bindings, ctx)), ctx);
}

describe('the answer is the router’s', () => {
  test.each([
    path,
    `${path}?`,
    `${path}?startup=false`,
    `${path}?startup=true`,
    `${path}?startup=TRUE`,
    `${path}?dedup=false`,
    `${path}?scopes=ip,country&origins=crowdsec`,
    `${path}?scope=ip&unknown=1;2&%zz`,
    `${path}?ip=192.0.2.1`,
    `${path}#fragment`,
    `/${path}`,
    `${path}/`,
    `/engines/paris${path}`,
    `http://paris.edge.example${path}`,
    `http://edge.example:8080${path}`,
  ])('to %s, at once', async (target) => {
    for (let polls = 0; polls < 3; polls++) {
      const { answer, isQuick } = await quick(target);
      expect(answer).toEqual(await byRouter(target));
      expect([answer.status, isQuick]).toEqual([200, true]);
    }
  });

  test.each([
    '/v1/decisions',
    '/v1/decisions?ip=192.0.2.1',
    '/v1/decisions/?ip=192.0.2.200',
    '/v1/decisions?ip=::ffff:192.0.2.1&type=ban',
    '/v1/decisions?range=192.0.2.0/24&contains=false',
    '/v1/decisions?limit=1&offset=1',
    `/v1/decisions?value=${path}`,
    '/engines/paris/v1/decisions?ip=192.0.2.1',
    'http://paris.edge.example/v1/decisions?ip=192.0.2.1',
  ])('to the look-up %s, at once', async (target) => {
    for (let times = 0; times < 3; times++) {
      const { answer, isQuick } = await quick(target);
      expect(answer).toEqual(await byRouter(target));
      expect([answer.status, isQuick]).toEqual([200, true]);
    }
  });

  test.each([
    [`${path}?ip=nowhere`, 400],
    ['/v1/decisions?ip=nowhere', 400],
    ['/v1/decisions?limit=one', 400],
    [`${path}?contains=maybe`, 400],
    [`${path}/more`, 404],
    [`${path}s`, 405],
    [`/more${path}`, 404],
    [`/engines/rome${path}`, 404],
    ['/v1/decisions%2Fstream', 404],
    ['/V1/decisions/stream', 404],
    [`/health?${path}`, 200],
    [`/v1/decisions/${path}`, 404],
  ])('to %s, by the router itself', async (target, status) => {
    const { answer, isQuick } = await quick(target);
    expect(answer).toEqual(await byRouter(target));
    expect([answer.status, isQuick]).toEqual([status, false]);
  });

  test.each([
    ['HEAD', 200],
    ['POST', 405],
    ['PUT', 405],
    ['OPTIONS', 405],
    ['DELETE', 401],
  ])('to %s, by the router itself', async (method, status) => {
    const { answer, isQuick } = await quick(path, { method });
    expect(answer).toEqual(await byRouter(path, { method }));
    expect([answer.status, isQuick]).toEqual([status, false]);
  });

  test.each([
    ['no key', () => '', 403, false],
    ['an unknown key', () => 'unknown', 403, false],
    ['a key in other letters', () => key.toUpperCase(), 403, false],
    ['half a key', () => key.slice(1), 403, false],
    ['a header that was sent twice', () => `${key}, unknown`, 200, true],
    ['a header that was sent twice, the other way round', () => `unknown, ${key}`, 403, false],
    ['a key between spaces', () => ` ${key} `, 200, true],
  ])('to %s', async (_, sent, status, isQuick) => {
    const init = { headers: { 'x-api-key': sent() } };
    const one = await quick(path, init);
    expect(one.answer).toEqual(await byRouter(path, init));
    expect([one.answer.status, one.isQuick]).toEqual([status, isQuick]);
  });

  test('to a client that accepts gzip', async () => {
    const init = { headers: { 'accept-encoding': 'gzip' } };
    for (const target of [`${path}?startup=true`, path]) {
      const { answer } = await quick(target, init);
      expect(answer).toEqual(await byRouter(target, init));
    }
  });

  test('where the feed does not answer', async () => {
    const stream = () => Promise.reject(new Error('internal error in the object'));
    const getByName = () => new Proxy(feed(), { get: () => stream });
    const broken = bindingsWith({ DECISION_FEED: { getByName } });
    const told = vi.spyOn(console, 'error').mockImplementation(() => undefined);
    const ctx = createExecutionContext();
    const request = requestOf(`${path}?startup=true`, {}, '192.0.2.102');
    const routed = await answered(Promise.resolve(routes.fetch(request, broken, ctx)), ctx);
    const { answer, isQuick } = await quick(`${path}?startup=true`, {}, '192.0.2.101', broken);
    expect([answer.status, routed.status, isQuick]).toEqual([500, 500, true]);
    const idAside = (text: unknown) => String(text).replace(/[0-9a-f-]{36}/, '');
    expect(idAside(answer.body)).toBe(idAside(routed.body));
    const [one, other] = told.mock.calls.map(([line]) => idAside(line).split('\n')[0]);
    expect(one).toBe(other);
  });
});

describe('goes to the router', () => {
  test('the first use of a key, which is noted', async () => {
    const fresh = await addBouncer('fresh');
    const init = { headers: { 'x-api-key': fresh } };
    expect((await quick(path, init)).isQuick).toBe(false);
    const { body } = await operator('GET', '/bouncers/fresh');
    expect(body.key_versions[0].first_used).not.toBeNull();
    expect((await quick(path, init)).isQuick).toBe(true);
  });

  test('a key that expired a moment ago', async () => {
    const expiring = await call('/api/v1/bouncers', {
      method: 'POST',
      headers: { authorization: `Bearer ${operatorToken}` },
      body: JSON.stringify({ name: 'expiring', expires_in: '2m' }),
    });
    const init = { headers: { 'x-api-key': (await expiring.json<any>()).key } };
    for (let polls = 0; polls < 2; polls++) await quick(path, init);
    expect((await quick(path, init)).isQuick).toBe(true);
    vi.setSystemTime(Date.now() + 121_000);
    expect(await quick(path, init)).toMatchObject({ answer: { status: 403 }, isQuick: false });
  });

  test('a key that D1 confirmed more than 5 s ago', async () => {
    vi.setSystemTime(Date.now() + 6_000);
    expect((await quick(path)).isQuick).toBe(false);
    expect((await quick(path)).isQuick).toBe(true);
  });
});

describe('nothing is left out', () => {
  test('a poll is seen', async () => {
    for (const agent of ['first/1', 'second/1', 'third/1']) {
      await quick(path, { headers: { 'user-agent': agent } }, '192.0.2.103');
    }
    const { body } = await operator('GET', '/bouncers/fw');
    const clients = body.clients.map(({ address }: { address: string }) => address);
    expect(clients).toContain('192.0.2.103');
  });

  test('a host that is none is refused, also where the address was read before', async () => {
    for (const host of ['edge.example/', 'a b', 'edge.example"']) {
      const { answer } = await quick(path, { headers: { host } });
      expect([answer.status, answer.body]).toEqual([400, '{"message":"host: no name of a host"}']);
    }
  });

  test('a setting that is wrong is named', async () => {
    vi.spyOn(console, 'error').mockImplementation(() => undefined);
    const { answer } = await quick(path, {}, '192.0.2.101', bindingsWith({ TOMBSTONE_DAYS: 'x' }));
    expect([answer.status, answer.body]).toEqual([503, expect.stringContaining('TOMBSTONE_DAYS')]);
  });

  test('other settings are other addresses', async () => {
    const prefixed = bindingsWith({ PATH_PREFIX: '/lapi' });
    expect((await quick(path, {}, '192.0.2.101', prefixed)).answer.status).toBe(404);
    expect(await quick(`/lapi${path}`, {}, '192.0.2.101', prefixed)).toMatchObject({
      answer: { status: 200 },
      isQuick: true,
    });
    expect((await quick(`/lapi${path}`)).answer.status).toBe(404);
  });
});

// Last: the isolate's memory of this bouncer's change outlives the storage of one test.
test('what a policy counts or refuses goes to the router', async () => {
  await patch({ rate_limit: { per_minute: 10 } });
  const statuses: unknown[] = [];
  for (let polls = 0; polls < 12; polls++) {
    const { answer, isQuick } = await quick(path);
    statuses.push([answer.status, isQuick]);
  }
  expect(statuses.slice(-2)).toEqual([
    [429, false],
    [429, false],
  ]);
  await patch({ rate_limit: null, allowed_addresses: ['192.0.2.101'] });
  await quick(path);
  expect(await quick(path)).toMatchObject({ answer: { status: 200 }, isQuick: true });
  expect(await quick(path, {}, '192.0.2.102')).toMatchObject({ answer: { status: 403 }, isQuick: false });
});

async function patch(policy: object): Promise<void> {
  const { status } = await call('/api/v1/bouncers/fw', {
    method: 'PATCH',
    headers: { authorization: `Bearer ${operatorToken}`, 'if-match': '*' },
    body: JSON.stringify(policy),
  });
  expect(status).toBe(200);
}
