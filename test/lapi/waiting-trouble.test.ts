// Polls that wait for a change while something goes wrong, or is changed through another isolate: what each is answered, and
// how soon it is over.
import { evictDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { serve } from '../../src/app.ts';
import { waiting } from '../../src/feed/client.ts';
import { feed } from '../support/bouncer.ts';
import { addBouncer, operatorToken } from '../support/http.ts';
import { type Isolate, makeIsolates } from '../support/isolate.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { watchWaits, type Stream } from '../support/waiting.ts';

const minute = 60_000;
const nothing = { new: [], deleted: [] };
/** What operators do goes through this one. */
let other: Isolate;
let waits: ReturnType<typeof watchWaits>;
let engine: ModelEngine;
let key: string;
/** By how much the clock is wrong. Each test is later than the one before, so nothing that was known counts in the next. */
let wrongMs = 0;
/** What D1 does where the polls wait. */
let store: 'answers' | 'fails' | 'is silent' = 'answers';
const bindings = {
  DB: {
    prepare: (query: string) => env.DB.prepare(query),
    batch: (statements: D1PreparedStatement[]) => {
      if (store === 'answers') return env.DB.batch(statements);
      return store === 'fails' ? Promise.reject(new Error('D1 is down')) : new Promise(() => undefined);
    },
  },
};

beforeAll(async () => {
  [other] = (await makeIsolates(1)) as [Isolate];
}, minute);

beforeEach(async () => {
  wrongMs += 30 * minute;
  const now = Date.now.bind(Date);
  vi.spyOn(Date, 'now').mockImplementation(() => now() + wrongMs);
  vi.spyOn(console, 'error').mockReturnValue();
  store = 'answers';
  waits = watchWaits({ serve, waiting });
  engine = startModelEngine();
  key = await addBouncer('fw');
});

const operator = async (method: string, path: string, body?: object): Promise<number> => {
  const headers = { authorization: `Bearer ${operatorToken}`, 'if-match': '*' };
  const init = { method, headers, ...(body && { body: JSON.stringify(body) }) };
  return (await other(`/api/v1${path}`, init)).status;
};
const ban = async (value: string) => {
  expect(await operator('POST', '/decisions', { value, duration: '1h' })).toBe(201);
};
const poll = (query = ''): Promise<Stream> => waits.begin(key, { query, bindings }).stream();
const values = ({ new: added }: Stream): string[] => added.map(({ value }) => value);

/** The bouncer has all that there is, of an engine that is known. */
async function settle(): Promise<void> {
  expect(await operator('POST', '/feed/sync?full=true')).toBe(200);
  for (let polls = 0; polls < 3; polls++) await poll();
}

/** A poll that waits, once it has looked and seen nothing. */
async function wait() {
  const late = await waits.wait(key, { bindings });
  await waits.looked();
  expect(late.isOver()).toBe(false);
  return late;
}

describe('through another isolate', () => {
  const changes: [string, number, () => Promise<number>][] = [
    ['a revocation', 403, () => operator('DELETE', '/bouncers/fw')],
    ['a pause', 403, () => operator('PATCH', '/bouncers/fw', { paused: true })],
    [
      'other addresses',
      403,
      () => operator('PATCH', '/bouncers/fw', { allowed_addresses: ['198.51.100.1'] }),
    ],
    ['other limits', 200, () => operator('PATCH', '/bouncers/fw', { view: { scopes: ['country'] } })],
  ];

  test.each(changes)('%s ends it with the first look after 5 s: %i', async (_, status, change) => {
    await settle();
    const late = await wait();
    expect(await change()).toBeLessThan(300);
    wrongMs += 5_000;
    const looks = waits.looks();
    expect(await late.status()).toBe(status);
    // It asked for no change with a key that it could not trust.
    expect(waits.looks()).toBe(looks);
  });

  test('a ban is seen all the same', async () => {
    await settle();
    const late = await wait();
    await ban('192.0.2.1');
    expect(values(await late.stream())).toEqual(['192.0.2.1']);
  });
});

describe('while D1 is out of reach', () => {
  beforeEach(settle);

  test.each(['fails', 'is silent'] as const)(
    '(it %s), a key that was good waits on, and has its ban',
    async (how) => {
      const late = await wait();
      store = how;
      wrongMs += 6_000;
      await waits.looked();
      expect(late.isOver()).toBe(false);
      await ban('192.0.2.1');
      expect(values(await late.stream())).toEqual(['192.0.2.1']);
    },
  );

  test('a revocation is seen once D1 is back', async () => {
    const late = await wait();
    store = 'fails';
    wrongMs += 6_000;
    await waits.looked();
    expect(await operator('DELETE', '/bouncers/fw')).toBe(204);
    await waits.looked();
    expect(late.isOver()).toBe(false);
    store = 'answers';
    expect(await late.status()).toBe(403);
  });

  test('it is a 503 when nobody has heard of D1 for 15 minutes', async () => {
    const late = await wait();
    store = 'fails';
    wrongMs += 15 * minute;
    expect(await late.status()).toBe(503);
  });

  test('the end of its key is its end', async () => {
    const made = await other('/api/v1/bouncers', {
      method: 'POST',
      headers: { authorization: `Bearer ${operatorToken}` },
      body: JSON.stringify({ name: 'expiring', expires_in: '2m' }),
    });
    ({ key } = await made.json<{ key: string }>());
    await settle();
    const late = await wait();
    store = 'fails';
    wrongMs += 2 * minute;
    expect(await late.status()).toBe(403);
  });
});

describe('after a restart of the feed’s object', () => {
  async function restart(): Promise<void> {
    // The log is sealed behind the answers: not while the object goes.
    await feed().sealAudit();
    await evictDurableObject(feed());
  }

  test('what comes then is not lost', async () => {
    await settle();
    const late = await wait();
    await restart();
    await ban('192.0.2.1');
    const answers = [await late.stream(), await poll('wait=50'), await poll('wait=50')];
    expect(answers.map(values).filter(([value]) => value === '192.0.2.1').length).toBeGreaterThanOrEqual(2);
  });

  test('while nothing comes, a poll waits on', async () => {
    await settle();
    const late = await wait();
    await restart();
    wrongMs += 2_000;
    await waits.looked();
    await waits.looked();
    expect(late.isOver()).toBe(false);
    await ban('192.0.2.1');
    await late.stream();
    expect(values(await poll('wait=50'))).toEqual(['192.0.2.1']);
  });
});

describe('before the engine is known', () => {
  test('a start-up is refused, and never waits', async () => {
    engine.fault = () => new Response('', { status: 500 });
    await poll();
    wrongMs += 25_000;
    expect(await waits.begin(key, { query: 'startup=true&wait=50', bindings }).status()).toBe(503);
  });

  test('a poll for changes is over when the engine is known, and the next one has all', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + 60 * minute });
    engine.fault = () => new Response('', { status: 500 });
    await poll();
    wrongMs += 25_000;
    const late = await wait();
    engine.fault = undefined;
    expect(await operator('POST', '/feed/sync?full=true')).toBe(200);
    expect(await late.stream()).toEqual(nothing);
    expect(values(await poll('wait=50'))).toEqual(['192.0.2.1']);
  });
});

describe('its rate', () => {
  let asked = 0;
  let isWithin = true;
  const limited = {
    ...bindings,
    RATE_LIMIT_10: {
      limit: () => {
        asked++;
        return Promise.resolve({ success: isWithin });
      },
    },
  };
  beforeEach(async () => {
    await operator('PATCH', '/bouncers/fw', { rate_limit: { per_minute: 10 } });
    await settle();
    [asked, isWithin] = [0, true];
  });

  test('counts it once, however often it looks', async () => {
    const late = await waits.wait(key, { bindings: limited });
    for (let looks = 0; looks < 3; looks++) await waits.looked();
    await ban('192.0.2.1');
    expect(values(await late.stream())).toEqual(['192.0.2.1']);
    expect(asked).toBe(1);
  });

  test('refuses it at once, and it takes no place', async () => {
    isWithin = false;
    for (let polls = 0; polls < 5; polls++) {
      const refused = await waits.begin(key, { bindings: limited }).ended();
      expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, '60']);
    }
    isWithin = true;
    const late = await waits.wait(key, { bindings: limited });
    expect(late.isOver()).toBe(false);
  });
});
