// D1 answers nobody: it is as out of reach as one that fails. And what strangers may ask of it when it does answer.
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { mintSecret } from '../../src/crypto/mint.ts';
import { type Gated, startGated } from '../lab/gate.ts';

let lapidary: Gated;
/** Has no decisions, and is down for every machine. */
let engine: Server;
beforeAll(async () => {
  engine = createServer((request, answer) => {
    answer.setHeader('content-type', 'application/json');
    if (request.url?.startsWith('/v1/decisions/stream')) return answer.end('{"new":[],"deleted":[]}');
    answer.writeHead(request.url?.startsWith('/v1/decisions') ? 200 : 502).end('null');
  }).listen(0, '127.0.0.1');
  await once(engine, 'listening');
  const { port } = engine.address() as AddressInfo;
  lapidary = await startGated({
    settings: { CLIENT_ADDRESS_HEADER: 'x-forwarded-for' },
    upstream: { url: `http://127.0.0.1:${port}`, key: 'of-nobody' },
  });
});
afterEach(() => lapidary?.open());
afterAll(async () => {
  await lapidary?.close();
  engine?.close();
});

/** Above every wait for D1: nothing hangs. */
const boundMs = 8_000;

interface Ask {
  method?: string;
  address?: string;
  path?: string;
  body?: string;
  headers?: Record<string, string>;
}

async function statusOf(key: string | null, ask: Ask = {}): Promise<number> {
  const { method = 'GET', address = '192.0.2.1', path = '/v1/decisions', body, headers = {} } = ask;
  const response = await fetch(`${lapidary.url}${path}`, {
    method,
    headers: { 'x-forwarded-for': address, ...(key === null ? {} : { 'x-api-key': key }), ...headers },
    signal: AbortSignal.timeout(boundMs),
    ...(body === undefined ? {} : { body }),
  });
  await response.text();
  return response.status;
}

/** What this isolate knew it asks D1 for anew: something was changed here. */
const endTrust = (name: string): Promise<string> => lapidary.addBouncer(name);

/** A machine's token as a stranger makes it up. */
function tokenOf(machine: string): string {
  const claims = { id: machine, exp: Math.floor(Date.now() / 1000) + 3600 };
  return ['{}', JSON.stringify(claims), 'none']
    .map((part) => Buffer.from(part).toString('base64url'))
    .join('.');
}

const randomKey = (): string => randomBytes(24).toString('base64url');
const many = <T>(count: number, make: (index: number) => Promise<T>): Promise<T[]> =>
  Promise.all(Array.from({ length: count }, (_, index) => make(index)));
const all = (count: number, status: number): number[] => Array.from({ length: count }, () => status);

describe('while D1 is silent', () => {
  test('50 polls at once with a key that was good are answered, after one question of theirs', async () => {
    const key = await lapidary.addBouncer('remembered');
    expect(await statusOf(key)).toBe(200);
    await endTrust('remembered-2');
    await lapidary.silence();
    await lapidary.questions();
    expect(await many(50, () => statusOf(key))).toEqual(all(50, 200));
    // The other three are the object's own, which looks for what is too old, for webhooks, and for the allow-list.
    expect(await lapidary.questions()).toBeLessThanOrEqual(4);
    expect(await statusOf(key, { method: 'HEAD', path: '/v1/decisions/stream' })).toBe(200);
  });

  test('a new key is told to wait, and is good as soon as D1 answers', async () => {
    const key = await lapidary.addBouncer('cold');
    await lapidary.silence();
    expect(await many(20, () => statusOf(key))).toEqual(all(20, 503));
    await lapidary.open();
    expect(await many(20, () => statusOf(key))).toEqual(all(20, 200));
  });

  test('whoever may ask anything without a key ends nobody’s 15 minutes', async () => {
    const key = await lapidary.addBouncer('not-forgotten');
    expect(await statusOf(key)).toBe(200);
    await endTrust('not-forgotten-2');
    await lapidary.silence();
    expect(await statusOf(key)).toBe(200);
    const body = JSON.stringify({ payload: 'e30=', signature: 'x' });
    for (const path of ['/bootstrap/v1/keys', '/bootstrap/v1/engine-key', '/bootstrap/v1/machine']) {
      expect(await statusOf(null, { method: 'POST', path, body })).toBe(400);
    }
    for (const path of ['/api/v1/bouncers', '/v1/watchers/login', '/v1/alerts', '/v1/usage-metrics']) {
      expect(await statusOf(null, { method: 'POST', path, body: '{}' })).toBeGreaterThanOrEqual(400);
    }
    expect(await statusOf(randomKey())).toBe(503);
    expect(await statusOf(key)).toBe(200);
  });

  test('what was revoked just before is refused here, and nothing else is', async () => {
    const keys = await many(4, (index) => lapidary.addBouncer(`taken-${index}`));
    const beat = { path: '/v1/heartbeat', headers: { authorization: `Bearer ${tokenOf('stolen')}` } };
    expect(await many(4, (index) => statusOf(keys[index]!))).toEqual(all(4, 200));
    expect(await statusOf(null, beat)).not.toBe(403);
    await lapidary.operator('DELETE', '/bouncers/taken-0');
    await lapidary.operator('POST', '/bouncers/taken-1/versions/1/revoke');
    const policy = { allowed_addresses: ['203.0.113.9'] };
    const any = { 'if-match': '*' };
    expect((await lapidary.operator('PATCH', '/bouncers/taken-2', policy, any)).status).toBe(200);
    await lapidary.operator('PUT', '/blocked-machines/stolen', {});
    await lapidary.silence();
    expect(await many(3, (index) => statusOf(keys[index]!))).toEqual(all(3, 503));
    expect(await statusOf(keys[3]!)).toBe(200);
    expect(await statusOf(null, beat)).toBe(403);
  });

  test('usage metrics are told to wait', async () => {
    const key = await lapidary.addBouncer('measured');
    expect(await statusOf(key)).toBe(200);
    await lapidary.silence();
    const body = JSON.stringify({ remediation_components: [{}] });
    const ask = { method: 'POST', path: '/v1/usage-metrics', body };
    expect(await statusOf(key, ask)).toBe(503);
  });

  test('an operator’s token is told to wait', async () => {
    const { body } = await lapidary.operator('POST', '/operator-tokens', {
      name: 'silent',
      role: 'viewer',
      expires_in: '1h',
    });
    const headers = { authorization: `Bearer ${body.token}` };
    expect(await statusOf(null, { path: '/api/v1/feed', headers })).toBe(200);
    await lapidary.silence();
    expect(await many(20, () => statusOf(null, { path: '/api/v1/feed', headers }))).toEqual(all(20, 503));
    // OPERATOR_TOKEN is for such days: what the feed itself knows is told.
    expect((await lapidary.operator('GET', '/feed')).status).toBe(200);
    expect((await lapidary.operator('POST', '/bouncers', { name: 'silent' })).status).toBe(503);
  });

  test('whatever an operator reads of D1 is told to wait, and so is what is decided on it', async () => {
    await lapidary.addBouncer('listed');
    await lapidary.silence();
    const reads = [
      ...[
        '/bouncers',
        '/bouncers/listed',
        '/rotations',
        '/rotations/1',
        '/hosts',
        '/hosts/listed',
        '/enrolments',
      ],
      ...['/blocked-machines', '/operator-tokens', '/audit', '/audit/verify'],
    ];
    const read = reads.map((path) => lapidary.operator('GET', path));
    const rotated = lapidary.operator('POST', '/rotations', { selector: { names: ['*'] } });
    for (const { status, headers, body } of await Promise.all([...read, rotated])) {
      expect([status, headers.get('content-type')]).toEqual([503, 'application/problem+json']);
      expect(Number(headers.get('retry-after'))).toBeGreaterThan(0);
      expect(body.type).toBe('urn:lapidary:unavailable');
    }
  });
});

describe('strangers', () => {
  test('1,000 keys that are none, at once, are a few questions; good ones beside them are served', async () => {
    const good = await many(20, (index) => lapidary.addBouncer(`neighbour-${index}`));
    await lapidary.questions();
    const address = '198.51.100.1';
    const [refused, served] = await Promise.all([
      many(1_000, () => statusOf(randomKey(), { address })),
      many(10, (index) => statusOf(good[index]!, { address })),
    ]);
    expect(refused).toEqual(all(1_000, 403));
    expect(served).toEqual(all(10, 200));
    const firstUses = 10;
    expect((await lapidary.questions()) - firstUses).toBeLessThan(100);
    // Over the bound by now: late at most.
    expect(await many(10, (index) => statusOf(good[10 + index]!, { address }))).toEqual(all(10, 200));
  });

  test('of one network in IPv6 are looked up together, once a second', async () => {
    const address = (index: number): string => `2001:db8::${index.toString(16)}`;
    await many(40, (index) => statusOf(randomKey(), { address: address(index) }));
    await lapidary.questions();
    expect(await many(200, (index) => statusOf(randomKey(), { address: address(index) }))).toEqual(
      all(200, 403),
    );
    expect(await lapidary.questions()).toBeLessThanOrEqual(6);
  });

  test('a key that was refused a moment ago is no question, nor is none at all', async () => {
    const key = randomKey();
    expect(await statusOf(key, { address: '198.51.100.3' })).toBe(403);
    await lapidary.questions();
    expect(await many(20, () => statusOf(key, { address: '198.51.100.3' }))).toEqual(all(20, 403));
    expect(await many(20, () => statusOf(null, { address: '198.51.100.3' }))).toEqual(all(20, 403));
    expect(await lapidary.questions()).toBe(0);
  });

  test('an operator’s token without a checksum is no question', async () => {
    const headers = { authorization: `Bearer cso_${'0'.repeat(49)}` };
    await lapidary.questions();
    expect(await many(20, () => statusOf(null, { path: '/api/v1/feed', headers }))).toEqual(all(20, 401));
    expect(await lapidary.questions()).toBe(0);
  });

  test('500 operator’s tokens that nobody was given, at once, are a few questions', async () => {
    const ask = (): Promise<number> => {
      const headers = { authorization: `Bearer ${mintSecret('cso_')}` };
      return statusOf(null, { path: '/api/v1/feed', address: '198.51.100.4', headers });
    };
    await lapidary.questions();
    expect(await many(500, ask)).toEqual(all(500, 401));
    expect(await lapidary.questions()).toBeLessThan(60);
  });
});

test('a rotation of many has each of them looked up once, and no other', async () => {
  const rotated = await many(20, (index) => lapidary.addBouncer(`fleet-${index}`));
  const others = await many(20, (index) => lapidary.addBouncer(`other-${index}`));
  for (const key of [...rotated, ...others]) expect(await statusOf(key)).toBe(200);
  const selector = { names: ['fleet-*'] };
  expect((await lapidary.operator('POST', '/rotations', { selector, grace: '1h' })).status).toBe(201);
  // What may have changed is asked for once.
  expect(await statusOf(others[0]!)).toBe(200);
  await lapidary.questions();
  for (const key of others) expect(await statusOf(key)).toBe(200);
  expect(await lapidary.questions()).toBeLessThan(3);
  for (const key of rotated) expect(await statusOf(key)).toBe(200);
  const asked = await lapidary.questions();
  expect(asked).toBeGreaterThanOrEqual(20);
  expect(asked).toBeLessThan(25);
  for (const key of rotated) expect(await statusOf(key)).toBe(200);
  expect(await lapidary.questions()).toBeLessThan(3);
});

test('a rotation and a first use have one key looked up anew, and no other', async () => {
  const keys = await many(40, (index) => lapidary.addBouncer(`many-${index}`));
  for (const key of keys) expect(await statusOf(key)).toBe(200);
  const { body } = await lapidary.operator('POST', '/bouncers/many-0/rotate', { grace: '0s' });
  expect(await statusOf(body.key)).toBe(200);
  await lapidary.questions();
  for (const key of keys.slice(1)) expect(await statusOf(key)).toBe(200);
  expect(await lapidary.questions()).toBeLessThan(5);
  expect(await statusOf(keys[0]!)).toBe(403);
});
