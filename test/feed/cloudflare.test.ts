// What Cloudflare does and local workerd does not, by what stands in its place: requests as it hands them on, and
// bindings that answer as its own may.
import { runInDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { fixLocation } from '../../src/feed/location.ts';
import { DecisionFeed } from '../../src/feed/object.ts';
import { settleLocation } from '../../src/feed/location.ts';
import worker from '../../src/index.ts';
import type { FeedLocation } from '../../src/config/location.ts';
import { call, operator, operatorToken } from '../support/http.ts';
import { startModelEngines, type ModelEngine } from '../support/model-engine.ts';
import { serveWith, startEdge } from '../support/edge.ts';

const hour = 3_600_000;
let engine: ModelEngine;
let key: string;

beforeEach(async () => {
  ({ engine, key } = await startEdge());
});

/** A request of the bouncer through an isolate with these bindings. */
async function poll(query: string, init: RequestInit = {}, bindings: object = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  headers.set('x-api-key', key);
  return serveWith({ ...env, ...bindings }, `/v1/decisions/stream${query}`, { ...init, headers });
}

describe('a client that did not ask for gzip gets none, whatever Cloudflare made of its Accept-Encoding', () => {
  beforeEach(async () => {
    for (let index = 1; index <= 2000; index++) {
      engine.add({ value: `2001:db8::${index.toString(16)}`, untilMs: Date.now() + hour });
    }
    await operator('POST', '/feed/sync?full=true');
  });

  test.each([
    ['nothing is known of it', {}, null],
    ['it sent none', { clientAcceptEncoding: '' }, null],
    ['identity', { clientAcceptEncoding: 'identity' }, null],
    ['gzip', { clientAcceptEncoding: 'gzip' }, 'gzip'],
  ])('%s', async (_, asked, encoding) => {
    const cf = { colo: 'CDG', ...asked };
    const headers = { 'accept-encoding': 'br, gzip' };
    const response = await poll('?startup=true', { headers, cf });
    expect(response.headers.get('content-encoding')).toBe(encoding);
    await response.body?.cancel();
  });
});

test('a rate limit that throws lets the poll through, and the log says so', async () => {
  const logged = vi.spyOn(console, 'error').mockReturnValue();
  const headers = { authorization: `Bearer ${operatorToken}`, 'if-match': '"1"' };
  const body = JSON.stringify({ rate_limit: { per_minute: 60 } });
  await call('/api/v1/bouncers/fw', { method: 'PATCH', headers, body });
  const broken = { limit: () => Promise.reject(new Error('internal error')) };
  const response = await poll('?startup=true', {}, { RATE_LIMIT_60: broken });
  expect(response.status).toBe(200);
  expect(logged.mock.calls.flat()).toEqual(['a rate limit does not answer: internal error']);
});

test.each([
  ['Access', 403, 'text/html', '<title>Forbidden</title>'],
  ['a firewall', 403, 'text/plain', 'error code: 1020'],
  ['Access, of an unknown token', 401, 'text/plain', ''],
])('a refusal by %s is none of the engine’s', async (_, status, type, text) => {
  vi.spyOn(console, 'error').mockReturnValue();
  engine.fault = () => new Response(text, { status, headers: { 'content-type': type } });
  await operator('POST', '/feed/sync');
  const [known] = (await operator('GET', '/feed')).body.engines;
  expect(known).toMatchObject({
    state: 'failing',
    last_error: `what stands before the engine answers with status ${status}`,
  });
});

test('no question to an engine may be answered by a cache before it', async () => {
  await operator('POST', '/feed/sync?full=true');
  expect(vi.mocked(fetch).mock.calls.length).toBeGreaterThan(2);
  for (const [, init] of vi.mocked(fetch).mock.calls) expect(init?.cache).toBe('no-store');
});

describe('six requests of an object may wait for their answers at once', () => {
  const silent = ['s1', 's2', 's3', 's4', 's5', 's6'];
  const settings = {
    UPSTREAM_URL: '',
    UPSTREAM_TIMEOUT_SECONDS: '1',
    UPSTREAMS: JSON.stringify(
      [...silent, 'good'].map((name) => ({ name, key: 'k', url: `http://${name}.example` })),
    ),
  };

  /** Cloudflare's own: a seventh begins when one of six has its answer; its signal counts meanwhile. */
  function sixAtOnce(answer: typeof fetch): typeof fetch {
    let free = 6;
    const waiting: (() => void)[] = [];
    return async (input, init) => {
      if (free === 0) await new Promise<void>((resolve) => waiting.push(resolve));
      else free--;
      try {
        init?.signal?.throwIfAborted();
        return await answer(input, init);
      } finally {
        const next = waiting.shift();
        if (next) next();
        else free++;
      }
    };
  }

  /** A good engine is far away as well. */
  const wayMs = 50;
  const never = (signal: AbortSignal): Promise<Response> =>
    new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)));

  test('six silent engines keep a seventh from nothing', async () => {
    vi.spyOn(console, 'error').mockReturnValue();
    startModelEngines('good.example');
    const answer = vi.mocked(fetch).getMockImplementation() as typeof fetch;
    const network: typeof fetch = async (input, init) => {
      const signal = init?.signal as AbortSignal;
      if (new URL(String(input)).hostname !== 'good.example') return never(signal);
      await scheduler.wait(wayMs);
      signal.throwIfAborted();
      return answer(input, init);
    };
    vi.mocked(fetch).mockImplementation(sixAtOnce(network));
    await runInDurableObject(env.DECISION_FEED.getByName('seven'), async (_, state) => {
      const feed = new DecisionFeed(state, { ...env, ...settings } as Env);
      const sync = (engine?: string) => feed.sync({ engine, full: true, force: false });
      const links = () => Object.fromEntries(feed.status().engines.map(({ name, link }) => [name, link]));
      await sync();
      const allSilent = Object.fromEntries(silent.map((name) => [name, 'failing']));
      expect(links()).toEqual({ ...allSilent, good: 'ok' });

      let over = false;
      const others = Promise.all(silent.map((name) => sync(name))).then(() => (over = true));
      expect(await sync('good')).toMatchObject({ ok: true });
      expect(over).toBe(false);
      await others;
    });
  });
});

describe('where the feed lives', () => {
  /** Its namespace, which notes how the feed is asked for. */
  function noting(asked: unknown[]): Env['DECISION_FEED'] {
    const within = (jurisdiction?: string) => ({
      getByName(name: string, options?: object) {
        asked.push({ jurisdiction, ...options });
        return env.DECISION_FEED.getByName(name);
      },
      jurisdiction: (other: string) => within(other),
    });
    return within() as unknown as Env['DECISION_FEED'];
  }

  test.each([
    ['', {}],
    ['weur', { locationHint: 'weur' }],
    ['eu', { jurisdiction: 'eu' }],
  ])('FEED_LOCATION=%s holds each time that it is asked for', async (FEED_LOCATION, told) => {
    const asked: unknown[] = [];
    const bindings = { FEED_LOCATION, DECISION_FEED: noting(asked) };
    for (const query of ['?startup=true', '']) expect((await poll(query, {}, bindings)).status).toBe(200);
    expect(asked.length).toBeGreaterThan(1);
    expect(new Set(asked.map((each) => JSON.stringify(each)))).toEqual(new Set([JSON.stringify(told)]));
  });

  test('a jurisdiction means nothing to workerd, which is said once', async () => {
    const logged = vi.spyOn(console, 'error').mockReturnValue();
    const bindings = { FEED_LOCATION: 'eu' };
    for (const query of ['?startup=true', '']) expect((await poll(query, {}, bindings)).status).toBe(200);
    expect(logged.mock.calls.flat()).toEqual(['FEED_LOCATION=eu has no effect: this is not Cloudflare']);
  });

  test('the first one stands: the object knows it, and D1 for one that is new', async () => {
    await runInDurableObject(env.DECISION_FEED.getByName('elsewhere'), async (_, { storage: { sql } }) => {
      const settle = (location: FeedLocation) => settleLocation(sql, env.DB, location, true);
      const refused = 'FEED_LOCATION must be empty, as it was when the feed was made';
      await expect(settle('eu')).rejects.toThrow(refused);
      sql.exec(`DELETE FROM location`);
      await expect(settle('eu')).rejects.toThrow(refused);
      await settle('');
      await env.DB.exec(`DELETE FROM feed_location`);
      await expect(settle('weur')).rejects.toThrow(refused);
      sql.exec(`DELETE FROM location`);
      // One that is not new needs no D1 for it.
      await settleLocation(sql, undefined as unknown as D1Database, '', false);
    });
  });

  test('a feed that was there before it could be said is where nobody said', async () => {
    const migration = env.MIGRATIONS.find(({ name }) => name.includes('feed_location'));
    const [statement] = migration?.queries.slice(-1) ?? [];
    await env.DB.exec(`DELETE FROM feed_location`);
    await env.DB.prepare(statement as string).run();
    expect(await fixLocation(env.DB, 'eu', Date.now())).toBe('');
  });

  test('the cron does not make it', async () => {
    await env.DB.exec(`DELETE FROM feed_location`);
    const asked: unknown[] = [];
    const cron = () => worker.scheduled({} as never, { ...env, DECISION_FEED: noting(asked) } as Env);
    await cron();
    expect(asked).toEqual([]);
    await fixLocation(env.DB, '', Date.now());
    await cron();
    expect(asked).toHaveLength(1);
  });
});
