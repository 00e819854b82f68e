// Usage metrics on their way to the engine: what it gets of a bouncer, how often it is asked, and what a bouncer and the
// feed notice of it, which is nothing.
import { runDurableObjectAlarm } from 'cloudflare:test';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { reportOf } from '../../src/engines/metrics.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { feed } from '../support/bouncer.ts';
import { addBouncer, asBouncer, operator } from '../support/http.ts';
import { waitFor } from '../support/patience.ts';

const hour = 3_600_000;
let engine: ModelEngine;

beforeEach(() => {
  engine = startModelEngine();
  vi.useFakeTimers({ toFake: ['Date'] });
});

const meta = { window_size_seconds: 900, utc_now_timestamp: 1_700_000_900 };
const dropped = (value: unknown) => ({ name: 'dropped', unit: 'packet', value, labels: { origin: 'CAPI' } });
const componentOf = (value: number) => ({
  type: 'fw',
  version: 'v1',
  utc_startup_timestamp: 1_700_000_000,
  metrics: [{ meta, items: [dropped(value)] }],
});

async function report(key: string, value: number): Promise<void> {
  const body = JSON.stringify({ remediation_components: [componentOf(value)] });
  const headers = { 'cf-connecting-ip': '192.0.2.77' };
  const response = await asBouncer(key, '/v1/usage-metrics', { method: 'POST', body, headers });
  expect([response.status, await response.text()]).toEqual([201, '']);
}

/** A sync interval later. */
async function alarm(afterMs = 10_000): Promise<void> {
  vi.setSystemTime(Date.now() + afterMs);
  expect(await runDurableObjectAlarm(feed())).toBe(true);
  // Until the object has the engine's answer.
  await feed().status();
}

/** Until the object has what a bouncer reported beside its 201: then a round makes a post of it. */
async function untilPosts(count: number): Promise<void> {
  await waitFor(async () => {
    await alarm();
    expect(engine.metrics).toHaveLength(count);
  });
}

const itemsOf = (post: number) =>
  engine.metrics[post]?.body.remediation_components[0].metrics.flatMap((part: any) => part.items);
const bouncersOf = (post: number): string[] => itemsOf(post).map((item: any) => item.labels.bouncer);

const take = (bouncer: string, value = 1, items = 1) => {
  const component = { metrics: [{ meta, items: Array(items).fill(dropped(value)) }] };
  const made = reportOf(component, bouncer);
  if (!made) throw new Error('there is no report');
  return feed().takeReport(made, null);
};

test("a bouncer's report reaches the engine as the feed's, under the bouncer's name", async () => {
  const key = await addBouncer('web-1');
  await feed().status();
  await report(key, 7);
  await untilPosts(1);
  const [post] = engine.metrics;
  expect(post?.body).toEqual({
    remediation_components: [
      {
        type: 'lapidary',
        version: 'v1',
        feature_flags: [],
        utc_startup_timestamp: expect.any(Number),
        metrics: [
          {
            meta,
            items: [
              { name: 'dropped', unit: 'packet', value: 7, labels: { origin: 'CAPI', bouncer: 'web-1' } },
            ],
          },
        ],
      },
    ],
  });
  expect(post?.headers.get('x-api-key')).toBe('feed-key-of-the-tests');
  const sent = JSON.stringify([post?.body, ...(post?.headers ?? [])]);
  expect(sent).not.toContain(key);
  expect(sent).not.toContain('192.0.2.77');
  await alarm();
  expect(engine.metrics).toHaveLength(1);
});

test('300 bouncers are one post, of each its newest; much is several, 10 s apart', async () => {
  for (let index = 0; index < 300; index++) await take(`web-${index}`, 1);
  await take('web-0', 2);
  await alarm();
  expect(engine.metrics).toHaveLength(1);
  expect(new Set(bouncersOf(0)).size).toBe(300);
  expect(itemsOf(0)[0]).toMatchObject({ value: 2, labels: { bouncer: 'web-0' } });

  for (let index = 0; index < 30; index++) await take(`big-${index}`, 1, 500);
  await alarm();
  await alarm(1_000);
  expect(engine.metrics).toHaveLength(2);
  await untilPosts(4);
  const all = [1, 2, 3].flatMap(bouncersOf);
  expect(new Set(all).size).toBe(30);
  for (const { body } of engine.metrics) expect(JSON.stringify(body).length).toBeLessThan(600_000);
});

test('reports that would fill the object are not kept', async () => {
  for (let index = 0; index < 100; index++) await take(`big-${index}`, 1, 500);
  for (let round = 0; round < 10; round++) await alarm();
  const bouncers = engine.metrics.flatMap((_, post) => bouncersOf(post));
  expect(new Set(bouncers).size).toBeGreaterThan(20);
  expect(new Set(bouncers).size).toBeLessThan(60);
});

test('an engine before 1.6.3 is asked once, and again an hour later', async () => {
  engine.metricsStatus = 404;
  const key = await addBouncer('web-1');
  await feed().status();
  await report(key, 1);
  await untilPosts(1);
  for (let round = 0; round < 6; round++) {
    await report(key, 2);
    await take('web-2');
    await alarm(9 * 60_000);
  }
  expect(engine.metrics).toHaveLength(1);
  engine.metricsStatus = 201;
  await alarm(hour);
  await take('web-3');
  await alarm();
  expect(engine.metrics).toHaveLength(2);
  expect(bouncersOf(1)).toContain('web-3');
});

test.each([500, 422, 403, 302])('an engine that answers %i costs one report', async (status) => {
  engine.metricsStatus = status;
  await take('web-1');
  await alarm();
  expect(engine.metrics).toHaveLength(1);
  expect((await feed().status()).engines[0]).toMatchObject({ link: 'ok', lastError: null });
  engine.metricsStatus = 201;
  await take('web-2');
  await alarm();
  expect(bouncersOf(1)).toEqual(['web-2']);
});

test('an engine that is down is sent nothing: reports wait until it is back', async () => {
  await take('web-1');
  engine.fault = () => Promise.reject(new Error('down'));
  await alarm();
  expect(engine.metrics).toHaveLength(0);
  engine.fault = undefined;
  await alarm();
  expect(bouncersOf(0)).toEqual(['web-1']);
});

test('no key, no post: a key that the engine refuses is not tried with metrics', async () => {
  engine.keys = [];
  await take('web-1');
  await alarm();
  expect(engine.metrics).toHaveLength(0);
  expect((await operator('GET', '/feed')).body.engines[0].state).toBe('refused');
});

describe('what LAPI would refuse is left out, the rest goes', () => {
  const of = (component: unknown) => JSON.parse(`[${reportOf(component, 'web-1')?.metrics ?? ''}]`);
  const withItem = (item: object) => of({ metrics: [{ meta, items: [item] }] });
  const labels = { bouncer: 'web-1' };

  test.each([
    ['no object', null],
    ['no metrics', { version: 'v1' }],
    ['an object for the list', { metrics: {} }],
    ['no meta', { metrics: [{ items: [dropped(1)] }] }],
    [
      'a time that is text',
      { metrics: [{ meta: { ...meta, utc_now_timestamp: '1' }, items: [dropped(1)] }] },
    ],
    [
      'a time out of range',
      { metrics: [{ meta: { ...meta, utc_now_timestamp: 1e30 }, items: [dropped(1)] }] },
    ],
    ['an object for the items', { metrics: [{ meta, items: {} }] }],
    ['null for an item', { metrics: [{ meta, items: [null] }] }],
    ['a value that is text', { metrics: [{ meta, items: [dropped('1')] }] }],
    ['a value without end', { metrics: [{ meta, items: [dropped(JSON.parse('1e999'))] }] }],
    ['no unit', { metrics: [{ meta, items: [{ name: 'dropped', value: 1 }] }] }],
    ['too much', { metrics: [{ meta, items: Array(2000).fill(dropped(1)) }] }],
  ])('%s', (_, component) => expect(of(component)).toEqual([]));

  test('one bad item does not cost the good one', () => {
    const [part] = of({ metrics: [{ meta, items: [dropped('1'), dropped(2)] }] });
    expect(part.items).toMatchObject([{ value: 2 }]);
  });

  test('fractions of seconds, labels that are no text, long texts', () => {
    const part = { meta: { window_size_seconds: 0.5, utc_now_timestamp: 1.9 }, items: [dropped(0.5)] };
    expect(of({ metrics: [part] })).toMatchObject([
      { meta: { window_size_seconds: 0, utc_now_timestamp: 1 }, items: [{ value: 0.5 }] },
    ]);
    const bare = { name: 'n', unit: '', value: 0 };
    expect(withItem(bare)).toEqual([{ meta, items: [{ ...bare, labels }] }]);
    expect(withItem({ ...bare, labels: [] })).toEqual([{ meta, items: [{ ...bare, labels }] }]);
    const odd = { a: 1, b: null, c: 'x'.repeat(300), bouncer: 'somebody else' };
    expect(withItem({ ...bare, name: 'n'.repeat(300), labels: odd })).toEqual([
      {
        meta,
        items: [{ ...bare, name: 'n'.repeat(255), labels: { ...labels, c: 'x'.repeat(255) } }],
      },
    ]);
  });
});
