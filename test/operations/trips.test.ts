// What a mutation costs: trips to D1, and calls of the feed's object, one after the other. A rack of hosts that comes up
// at once pays each of them in the time of the slowest.
import { env } from 'cloudflare:workers';
import { beforeEach, expect, test } from 'vitest';
import { digestOf } from '../../src/crypto/secret.ts';
import { enrolmentToken, makeHost, makeKey } from '../support/hosts.ts';
import { operator } from '../support/http.ts';
import { startModelEngine } from '../support/model-engine.ts';
import { serveWith } from '../support/edge.ts';

let trips = { d1: 0, feed: 0 };

/** An isolate's bindings that count. A commit is a call of the object, and a trip of its own to D1. */
const counting = {
  DB: {
    prepare: (query: string) => counted(env.DB.prepare(query)),
    batch: (statements: { bare: D1PreparedStatement }[]) => {
      trips.d1++;
      return env.DB.batch(statements.map(({ bare }) => bare));
    },
  },
  DECISION_FEED: {
    getByName: (name: string) =>
      new Proxy(env.DECISION_FEED.getByName(name), {
        get: (stub, method: 'commit') => {
          trips.feed++;
          if (method === 'commit') trips.d1++;
          return stub[method];
        },
      }),
  },
};

function counted(bare: D1PreparedStatement): object {
  const trip =
    (method: 'all' | 'run' | 'raw') =>
    (...given: []) => {
      trips.d1++;
      return bare[method](...given);
    };
  const bind = (...params: unknown[]) => counted(bare.bind(...params));
  return { bare, bind, all: trip('all'), run: trip('run'), raw: trip('raw') };
}

let token: string;

beforeEach(async () => {
  startModelEngine();
  const body = { name: 'ops', role: 'admin', expires_in: '1d' };
  token = (await operator('POST', '/operator-tokens', body)).body.token;
  await operator('POST', '/bouncers', { name: 'fw' });
});

/** A call by an operator with a token of ours, which D1 has to know. */
async function asked(method: string, path: string, body: object = {}): Promise<[number, typeof trips]> {
  trips = { d1: 0, feed: 0 };
  const { status } = await serveWith({ ...env, ...counting }, `/api/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, 'idempotency-key': crypto.randomUUID(), 'if-match': '*' },
    ...(method === 'GET' ? {} : { body: JSON.stringify(body) }),
  });
  return [status, trips];
}

const least = { d1: 3, feed: 1 };

test.each([
  ['POST', '/bouncers', 201, { name: 'b' }],
  ['POST', '/bouncers/fw/rotate', 200, {}],
  ['POST', '/bouncers/fw/versions/1/revoke', 200, {}],
  ['PATCH', '/bouncers/fw', 200, { rate_limit: { per_minute: 600 } }],
  ['DELETE', '/bouncers/fw', 204, {}],
  [
    'POST',
    '/bouncers/import',
    200,
    {
      bouncers: [
        { name: 'b', api_key: 'a'.repeat(128), ip_address: '192.0.2.1', last_pull: '2026-01-02 03:04:05' },
      ],
    },
  ],
  ['POST', '/rotations', 201, { selector: { names: ['fw'] } }],
  ['POST', '/enrolments', 201, { hosts: 'web-*' }],
  ['POST', '/operator-tokens', 201, { name: 'other', role: 'viewer', expires_in: '1d' }],
  ['DELETE', '/operator-tokens/ops', 200, {}],
  ['PUT', '/blocked-machines/lab', 200, {}],
])('%s %s takes three trips to D1 and one call of the feed', async (method, path, status, body) => {
  expect(await asked(method, path, body)).toEqual([status, least]);
});

test('making a host, changing it and removing it do', async () => {
  const { key } = await makeHost();
  const fields = { public_key: key.publicKey, bouncers: ['web-1'] };
  expect(await asked('PUT', '/hosts/web-1', fields)).toEqual([201, least]);
  expect(await asked('PUT', '/hosts/web-1', { ...fields, engine: true })).toEqual([200, least]);
  expect(await asked('POST', '/hosts/web-1/recoveries')).toEqual([200, least]);
  expect(await asked('DELETE', '/hosts/web-1')).toEqual([204, least]);
});

test('a host’s first registration, its next key and its engine’s do', async () => {
  const host = await makeHost();
  const settings = counting;
  const enrolment = await enrolmentToken();
  const sent = { public_key: host.key.publicKey, enrolment_token: enrolment };
  trips = { d1: 0, feed: 0 };
  expect((await host.register(sent, { settings })).status).toBe(200);
  expect(trips).toEqual(least);
  const next = { key_sha512: await digestOf(makeKey()) };
  trips = { d1: 0, feed: 0 };
  expect((await host.register(next, { settings })).body).toMatchObject({ generation: 2 });
  expect(trips).toEqual(least);
  // The same again: nothing is written but that its nonce is used up.
  trips = { d1: 0, feed: 0 };
  expect((await host.register(next, { settings })).body).toMatchObject({ state: 'unchanged' });
  expect(trips.d1 + trips.feed).toBeLessThanOrEqual(5);
});

test('verifying the audit log takes a trip for each 5,000 rows, and three besides', async () => {
  expect(await asked('GET', '/audit/verify?after=1')).toEqual([200, { d1: 3 + 1, feed: 1 }]);
});

test('an address that is fixed once is read no more', async () => {
  // Of one isolate.
  const unset = { ...env, ...counting, PUBLIC_URL: '' };
  const read = async (): Promise<typeof trips> => {
    trips = { d1: 0, feed: 0 };
    const headers = { authorization: `Bearer ${token}` };
    expect((await serveWith(unset, '/api/v1/bouncers', { headers })).status).toBe(200);
    return trips;
  };
  const [, set] = await asked('GET', '/bouncers');
  const first = await read();
  // Its mutation reads once and writes once.
  expect([first.d1 - set.d1, (await read()).d1 - set.d1]).toEqual([2, 0]);
});
