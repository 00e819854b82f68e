// A feed that does not know what its engine bans, in workerd: it says so, to bouncers and in /health, and never that
// nobody is banned.
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import type { WireDecision } from '../support/bouncer.ts';
import { asBouncer, call, operator } from '../support/http.ts';
import { type ModelEngine } from '../support/model-engine.ts';
import { startEdge } from '../support/edge.ts';
import { waitUntil } from '../support/patience.ts';

const hour = 3_600_000;
let engine: ModelEngine;
let key: string;

beforeEach(async () => {
  ({ engine, key } = await startEdge());
  vi.useFakeTimers({ toFake: ['Date'] });
});

const pass = (ms: number): void => void vi.setSystemTime(Date.now() + ms);
const get = (path: string) => asBouncer(key, `/v1/decisions${path}`);
const health = async () => (await call('/health')).json();
const values = (list: WireDecision[]): string[] => list.map(({ value }) => value).sort();

/** The full list fails; deltas and everything else go through. */
function failList(): void {
  engine.fault = (path, target) =>
    target === '/v1/decisions'
      ? Response.json({ message: 'timeout' }, { status: 500 })
      : engine.answer(target);
}

/** A poll that asks for changes: the feed's first contact, from which on all wait. */
const contact = () => get('/stream');

describe('with the full list failing and deltas passing', () => {
  beforeEach(async () => {
    engine.addUnseen({ value: '192.0.2.1', untilMs: Date.now() + hour });
    failList();
    await contact();
    pass(25_000);
    await operator('POST', '/feed/sync');
  });

  test.each(['/stream?startup=true', '?ip=192.0.2.1', '', '?scopes=ip'])(
    'GET /v1/decisions%s is a 503 of LAPI’s form that says when to come again',
    async (path) => {
      const response = await get(path);
      expect(response.status).toBe(503);
      expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
      expect(await response.json()).toEqual({ message: expect.stringContaining('not known yet') });
    },
  );

  test('a delta is empty, and is no place in the feed: the start-up after it carries all', async () => {
    for (let poll = 0; poll < 3; poll++) {
      expect(await (await get('/stream')).json()).toEqual({ new: [], deleted: [] });
    }
    engine.fault = undefined;
    await operator('POST', '/feed/sync?full=true');
    const { new: added } = await (await get('/stream')).json<{ new: WireDecision[] }>();
    expect(values(added)).toEqual(['192.0.2.1']);
  });

  test('a HEAD is a question about the key, and /health says cold', async () => {
    for (const path of ['/stream', '']) {
      const response = await asBouncer(key, `/v1/decisions${path}`, { method: 'HEAD' });
      expect(response.status).toBe(200);
    }
    expect(await health()).toMatchObject({ status: 'up', feed: 'cold', full_age_seconds: null });
    expect((await operator('GET', '/feed')).body).toMatchObject({
      freshness: 'cold',
      full_age_seconds: null,
    });
  });

  test('an operator’s own decision is known all the same', async () => {
    await operator('POST', '/decisions', { value: '192.0.2.77', duration: '1h' });
    expect(values(await (await get('?ip=192.0.2.77')).json())).toEqual(['192.0.2.77']);
    expect((await get('?ip=192.0.2.78')).status).toBe(503);
    // A list would lack the engine's.
    expect((await get('')).status).toBe(503);
  });

  test('the first list that is accepted ends it', async () => {
    engine.fault = undefined;
    await operator('POST', '/feed/sync?full=true');
    expect(await (await get('?ip=192.0.2.200')).json()).toBeNull();
    expect(await health()).toMatchObject({ feed: 'fresh', full_age_seconds: 0 });
  });
});

test('a start-up waits for the first full list', async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  engine.addUnseen({ value: '192.0.2.1', untilMs: Date.now() + hour });
  engine.fault = async (_, target) => {
    if (target === '/v1/decisions') await released;
    return engine.answer(target);
  };
  const started = get('/stream?startup=true');
  await waitUntil(() => engine.requests.includes('/v1/decisions'));
  release();
  const { new: added } = await (await started).json<{ new: WireDecision[] }>();
  expect(values(added)).toEqual(['192.0.2.1']);
});

describe('/health', () => {
  test('is stale when full lists fail for twice their interval, whatever the deltas say', async () => {
    await operator('POST', '/feed/sync?full=true');
    expect(await health()).toMatchObject({ feed: 'fresh', age_seconds: 0, full_age_seconds: 0 });
    failList();
    const { RESYNC_INTERVAL_SECONDS } = env;
    pass(2 * Number(RESYNC_INTERVAL_SECONDS) * 1000 + 1000);
    await operator('POST', '/feed/sync');
    expect(await health()).toMatchObject({
      feed: 'stale',
      age_seconds: 0,
      full_age_seconds: 2 * Number(RESYNC_INTERVAL_SECONDS) + 1,
    });
    // What was believed once is served all the same.
    expect((await get('/stream?startup=true')).status).toBe(200);
  });
});
