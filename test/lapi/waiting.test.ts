// Polls that wait for a change: what ends them, and that nothing counts as delivered by one whose client may have gone.
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { serve } from '../../src/app.ts';
import { waiting as waitingPolls } from '../../src/feed/client.ts';
import { feed } from '../support/bouncer.ts';
import { startEdge } from '../support/edge.ts';
import type { ModelEngine } from '../support/model-engine.ts';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';
import { waitUntil } from '../support/patience.ts';
import { watchWaits, type Stream } from '../support/waiting.ts';

const path = '/v1/decisions/stream';
const nothing = { new: [], deleted: [] };
let engine: ModelEngine;
let key: string;
let waits: ReturnType<typeof watchWaits>;
/** By how much the clock is wrong. */
let wrongMs = 0;

beforeEach(async () => {
  wrongMs = 0;
  const now = Date.now.bind(Date);
  vi.spyOn(Date, 'now').mockImplementation(() => now() + wrongMs);
  waits = watchWaits({ serve, waiting: waitingPolls });
  ({ engine, key } = await startEdge());
  await operator('POST', '/feed/sync?full=true');
  await settle();
});

const ban = async (value: string, more: object = {}) => {
  expect((await operator('POST', '/decisions', { value, duration: '1h', ...more })).status).toBe(201);
};
const poll = async (query = ''): Promise<Stream> => (await asBouncer(key, `${path}${query}`)).json();
const values = ({ new: added }: Stream): string[] => added.map(({ value }) => value);

/** The bouncer has all that there is. */
async function settle(query = ''): Promise<void> {
  for (let polls = 0; polls < 3; polls++) await poll(query);
}

/** A poll that waits, once it does so. */
const waiting = (query = 'wait=50', bindings: object = {}, signal?: AbortSignal) =>
  waits.wait(key, { query, bindings, ...(signal && { signal }) });

const patch = (policy: object) =>
  call('/api/v1/bouncers/fw', {
    method: 'PATCH',
    headers: { authorization: `Bearer ${operatorToken}`, 'if-match': '*' },
    body: JSON.stringify(policy),
  });

describe('a poll that waits is answered', () => {
  test('with a ban as soon as there is one, and with its end', async () => {
    const banned = await waiting();
    expect(banned.isOver()).toBe(false);
    await ban('192.0.2.1');
    expect(values(await banned.stream())).toEqual(['192.0.2.1']);
    for (let polls = 0; polls < 2; polls++) expect(values(await poll('?wait=2'))).toEqual(['192.0.2.1']);
    const ended = await waiting();
    await operator('DELETE', '/decisions?value=192.0.2.1');
    const { deleted } = await ended.stream();
    expect(deleted.map(({ value }) => value)).toEqual(['192.0.2.1']);
  });

  test('with LAPI’s empty object when the time is up', async () => {
    const response = await asBouncer(key, `${path}?wait=1`);
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/json']);
    expect(await response.text()).toBe('{"new": [], "deleted": []}');
  });

  test('at once where there is something already, and at a start-up', async () => {
    await ban('192.0.2.1');
    expect(values(await poll('?wait=50'))).toEqual(['192.0.2.1']);
    expect(values(await poll('?startup=true&wait=50'))).toEqual(['192.0.2.1']);
    expect(await poll('?wait=0')).toBeDefined();
  });

  test('with a long answer as well', async () => {
    const late = await waiting();
    const untilMs = Date.now() + 3_600_000;
    for (let at = 1; at <= 300; at++) engine.add({ value: `2001:db8::${at.toString(16)}`, untilMs });
    await operator('POST', '/feed/sync');
    expect((await late.stream()).new).toHaveLength(300);
  });

  test('not with what is outside of its view', async () => {
    await settle('?scopes=country');
    const late = await waiting('scopes=country&wait=50');
    await ban('192.0.2.1');
    await ban('192.0.2.2');
    await waits.looked();
    expect(late.isOver()).toBe(false);
    await ban('FR', { scope: 'country' });
    expect(values(await late.stream())).toEqual(['FR']);
  });

  test('with what an entry of the allow-list withholds from now on', async () => {
    await ban('192.0.2.1');
    await settle();
    const late = await waiting();
    const entry = { value: '192.0.2.1', comment: 'ours' };
    expect((await operator('POST', '/allowlist', entry)).status).toBe(201);
    expect((await late.stream()).deleted.map(({ value }) => value)).toEqual(['192.0.2.1']);
  });
});

test.each(['x', '', '-1', '1.5', '56', '1e1', '%201', '5&wait=5', '5&w%61it=6'])(
  'wait=%s is refused',
  async (wait) => {
    for (const query of [`wait=${wait}`, `startup=true&wait=${wait}`]) {
      const response = await asBouncer(key, `${path}?${query}`);
      expect(response.status).toBe(400);
      expect((await response.json<{ message: string }>()).message).toMatch(/^wait: /);
    }
  },
);

describe('no change is lost', () => {
  test('where clients go away while they wait', async () => {
    const gone = [await waiting(), await waiting(), await waiting()];
    await ban('192.0.2.1');
    for (const each of gone) expect(values(await each.stream())).toEqual(['192.0.2.1']);
    // Nobody has read those. The first that somebody reads may be lost as well.
    await poll();
    expect(values(await poll())).toEqual(['192.0.2.1']);
    expect(await poll()).toEqual(nothing);
  });

  test('and what one was answered has the next two as well, and no third', async () => {
    const late = await waiting();
    await ban('192.0.2.1');
    await late.stream();
    for (let polls = 0; polls < 2; polls++) expect(values(await poll('?wait=50'))).toEqual(['192.0.2.1']);
    expect((await waiting()).isOver()).toBe(false);
  });

  test('of two clients with one key at one address', async () => {
    const both = [await waiting(), await waiting()];
    await ban('192.0.2.1');
    for (const each of both) expect(values(await each.stream())).toEqual(['192.0.2.1']);
    for (let polls = 0; polls < 2; polls++) expect(values(await poll('?wait=50'))).toEqual(['192.0.2.1']);
  });

  test('that comes after its own answer, and is known here before that answer', async () => {
    const { promise: held, resolve: release } = Promise.withResolvers<void>();
    const isAnswered = vi.fn();
    const stub: object = new Proxy(feed(), {
      get: (object: any, method: string) => async (given: unknown) => {
        const answer = await object[method](given);
        isAnswered(method);
        if (method === 'stream') await held;
        return answer;
      },
    });
    const other = await addBouncer('other');
    // Of a client that the object does not know, it does not say where it stands.
    const late = waits.begin(other, { bindings: { DECISION_FEED: { getByName: () => stub } } });
    await waitUntil(() => isAnswered.mock.calls.flat().includes('stream'));
    await ban('192.0.2.1');
    expect(values(await poll())).toEqual(['192.0.2.1']);
    release();
    expect(await late.stream()).toEqual(nothing);
    key = other;
    expect(values(await poll('?wait=50'))).toEqual(['192.0.2.1']);
  });

  test('where only the object can say what it is', async () => {
    expect((await patch({ view: { max_decisions: 1 } })).status).toBe(200);
    for (let polls = 0; polls < 6; polls++) await poll();
    const late = await waiting();
    expect(late.isOver()).toBe(false);
    await ban('192.0.2.1');
    expect(await late.stream()).toEqual(nothing);
    expect(values(await poll('?wait=50'))).toEqual(['192.0.2.1']);
  });
});

describe('what ends it', () => {
  test('a revoked key', async () => {
    const late = await waiting();
    expect((await operator('DELETE', '/bouncers/fw')).status).toBe(204);
    expect(await late.status()).toBe(403);
  });

  test('a pause', async () => {
    const late = await waiting();
    expect((await patch({ paused: true })).status).toBe(200);
    expect(await late.status()).toBe(403);
  });

  test('an address that is allowed no more', async () => {
    const late = await waiting();
    expect((await patch({ allowed_addresses: ['198.51.100.1'] })).status).toBe(200);
    expect(await late.status()).toBe(403);
  });

  test('the end of its key', async () => {
    const made = await operator('POST', '/bouncers', { name: 'expiring', expires_in: '2m' });
    ({ key } = made.body);
    await settle();
    const late = await waiting();
    wrongMs = 121_000;
    expect(await late.status()).toBe(403);
  });

  test('other limits: the next poll has what they change', async () => {
    await ban('192.0.2.1');
    await settle();
    const late = await waiting();
    expect((await patch({ view: { scopes: ['country'] } })).status).toBe(200);
    expect(await late.stream()).toEqual(nothing);
    expect((await poll('?wait=50')).deleted.map(({ value }) => value)).toEqual(['192.0.2.1']);
  });

  test('a clock that was set back', async () => {
    const late = await waiting();
    wrongMs = -3_600_000;
    expect(await late.stream()).toEqual(nothing);
  });

  test('a client that goes away, whose place is free again', async () => {
    const hungUp = new AbortController();
    const all = [];
    for (let at = 0; at < 4; at++) all.push(await waiting('wait=50', {}, hungUp.signal));
    const fifth = await waiting('wait=50');
    expect(fifth.isOver()).toBe(true);
    hungUp.abort();
    for (const each of all) await each.status();
    expect((await waiting('wait=50')).isOver()).toBe(false);
  });
});

describe('while the feed does not answer', () => {
  let isReached = false;
  let asked: string[] = [];
  const bindings = {
    DECISION_FEED: {
      getByName: () =>
        new Proxy(feed(), {
          get: (stub: any, method: string) => (given: unknown) => {
            asked.push(method);
            if (!isReached && method === 'follow') return Promise.reject(new Error('out of reach'));
            return stub[method](given);
          },
        }),
    },
  };
  beforeEach(() => {
    isReached = false;
    asked = [];
    vi.spyOn(console, 'error').mockImplementation(() => undefined);
  });

  test('it waits on, and has the change once the feed is back', async () => {
    const late = await waiting('wait=50', bindings);
    await ban('192.0.2.1');
    await waitUntil(() => asked.filter((method) => method === 'follow').length > 1);
    expect(late.isOver()).toBe(false);
    isReached = true;
    expect(values(await late.stream())).toEqual(['192.0.2.1']);
  });

  test('it is a 503 in the end, never an empty answer', async () => {
    expect(await (await waiting('wait=1', bindings)).status()).toBe(503);
    expect(asked).toContain('follow');
  });

  test('however many wait, it is asked once a second', async () => {
    isReached = true;
    const keys = [key];
    for (let at = 0; at < 9; at++) keys.push(await addBouncer(`fw${at}`));
    for (key of keys) await settle();
    const all = [];
    for (key of keys) {
      all.push(await waiting('wait=50', bindings));
      all.push(await waiting('wait=50', bindings));
    }
    asked = [];
    const startedMs = Date.now();
    await waitUntil(() => asked.length >= 3);
    expect(asked.every((method) => method === 'follow')).toBe(true);
    expect(asked.length).toBeLessThanOrEqual(1 + (Date.now() - startedMs) / 1000);
    await ban('192.0.2.1');
    for (const each of all) expect(values(await each.stream())).toEqual(['192.0.2.1']);
  });
});
