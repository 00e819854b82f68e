// Clocks that are set, and machines that sleep, in workerd: nobody is unbanned by a clock alone, and nothing waits for
// a time that has been already.
import { evictDurableObject, runInDurableObject } from 'cloudflare:test';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { bouncer, feed } from '../support/bouncer.ts';
import { addBouncer, asBouncer, operator } from '../support/http.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;
/** SYNC_INTERVAL_SECONDS of the tests. */
const interval = hour;
let engine: ModelEngine;

beforeEach(() => {
  engine = startModelEngine();
  vi.useFakeTimers({ toFake: ['Date'] });
});

/** Time passes for everybody. */
const pass = (ms: number): void => void vi.setSystemTime(Date.now() + ms);
/** Our clock is set; the engine's goes on: what it has ends as much later by ours. */
function setClock(ms: number): void {
  pass(ms);
  for (const row of engine.rows.values()) row.untilMs += ms;
}
const ban = (value: string, untilMs = Date.now() + 4 * hour) => engine.add({ value, untilMs });
const sync = (full = false) => feed().sync({ full, force: false });
const down = () => Promise.reject(new Error('down'));
const alarmInMs = async () =>
  ((await runInDurableObject(feed(), (_, { storage }) => storage.getAlarm())) ?? Infinity) - Date.now();

describe('a clock that is set forward by a day', () => {
  beforeEach(async () => {
    ban('192.0.2.1');
    ban('192.0.2.2');
    await operator('POST', '/decisions', { value: '192.0.2.77', duration: '2h' });
    await sync(true);
  });

  test('unbans nobody whom the engine bans: not in deltas, not in start-ups', async () => {
    const client = bouncer();
    await client.pull(true);
    setClock(day);
    const { ended } = await client.pull(false);
    // What was decided here follows our clock.
    expect(ended.map(({ value }) => value)).toEqual(['192.0.2.77']);
    const starting = bouncer({ address: '192.0.2.201' });
    expect((await starting.pull(true)).added.map(({ value }) => value)).toEqual(['192.0.2.1', '192.0.2.2']);
    await sync();
    for (const each of [client, starting]) {
      await each.pull(false);
      expect(each.banned()).toEqual(['192.0.2.1', '192.0.2.2']);
    }
    const { added } = await bouncer({ address: '192.0.2.202' }).pull(true);
    for (const { duration } of added) expect(duration).toMatch(/^(4h0m0s|3h59m)/);
  });

  test('also when nobody looked while it was set, over a restart', async () => {
    await evictDurableObject(feed());
    setClock(day);
    const { added } = await bouncer().pull(true);
    expect(added.map(({ value }) => value)).toEqual(['192.0.2.1', '192.0.2.2']);
  });

  test('counts after ten minutes, if the engine says nothing', async () => {
    const client = bouncer();
    await client.pull(true);
    engine.fault = down;
    setClock(day);
    await client.pull(false);
    pass(9 * minute);
    await sync();
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.1', '192.0.2.2']);
    pass(minute);
    await client.pull(false);
    expect(client.banned()).toEqual([]);
    // The engine was there all the time.
    engine.fault = undefined;
    await sync();
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.1', '192.0.2.2']);
  });

  test('and back again, with the engine down, has changed nothing', async () => {
    const client = bouncer();
    await client.pull(true);
    engine.fault = down;
    pass(day);
    await client.pull(false);
    pass(-day);
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.1', '192.0.2.2']);
  });
});

test('a machine that slept for a day: what ended meanwhile ends when the engine has said so', async () => {
  ban('192.0.2.1');
  ban('192.0.2.2', Date.now() + 2 * day);
  ban('192.0.2.3', Date.now() + 2 * day);
  await sync(true);
  const client = bouncer();
  await client.pull(true);
  pass(day);
  await client.pull(false);
  expect(client.banned()).toHaveLength(3);
  await sync();
  await client.pull(false);
  expect(client.banned()).toEqual(['192.0.2.2', '192.0.2.3']);
});

describe('a clock that was a day ahead, and is put right', () => {
  beforeEach(async () => {
    pass(day);
    ban('192.0.2.1');
    await sync(true);
  });

  test('the next round is not a day away, and it has a full list', async () => {
    setClock(-day);
    await feed().status();
    expect(await alarmInMs()).toBeLessThanOrEqual(interval);
    const before = engine.requests.length;
    await sync();
    expect(engine.requests.slice(before)).toContain('/v1/decisions');
    const { added } = await bouncer().pull(true);
    expect(added.map(({ duration }) => duration)).toEqual([expect.stringMatching(/^(4h0m0s|3h59m)/)]);
  });

  test('an isolate that answered by itself asks the feed again', async () => {
    const key = await addBouncer('fw');
    const poll = async () =>
      (await asBouncer(key, '/v1/decisions/stream')).json<{ new: { value: string }[] }>();
    for (let count = 0; count < 4; count++) await poll();
    setClock(-day);
    ban('192.0.2.9');
    await feed().sync({ full: false, force: false });
    expect((await poll()).new.map(({ value }) => value)).toContain('192.0.2.9');
  });

  test('also over a restart; no age is below zero, and none is claimed', async () => {
    await evictDurableObject(feed());
    setClock(-day);
    const before = await feed().status();
    expect(before).toMatchObject({ freshness: 'stale', ageSeconds: null, fullAgeSeconds: null });
    expect(await alarmInMs()).toBeLessThanOrEqual(interval);
    await sync();
    expect(await feed().status()).toMatchObject({ freshness: 'fresh', ageSeconds: 0, fullAgeSeconds: 0 });
    const { added } = await bouncer().pull(true);
    expect(added.map(({ duration }) => duration)).toEqual([expect.stringMatching(/^(4h0m0s|3h59m)/)]);
  });
});
