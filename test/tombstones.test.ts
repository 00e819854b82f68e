// How many ends are remembered, and which of them a start-up carries.
import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from 'cloudflare:test';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { startModelEngine, type ModelEngine } from './support/model-engine.ts';
import { bouncer, everything, feed } from './support/bouncer.ts';

const hour = 3_600_000;
const minute = 60_000;
let engine: ModelEngine;

beforeEach(() => {
  engine = startModelEngine();
  vi.useFakeTimers({ toFake: ['Date'] });
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const sync = () => feed().sync({ full: true, believe: true });
const tombstones = async () => (await feed().status()).tombstones;
const alarmAfter = (ms: number) => {
  vi.setSystemTime(Date.now() + ms);
  return runDurableObjectAlarm(feed());
};

describe('the number of tombstones is bounded', () => {
  /** As if so many decisions had ended, each a moment after the one before it. */
  async function haveEnded(count: number): Promise<void> {
    await sync();
    await runInDurableObject(feed(), (_, { storage }) => {
      const { sequence } = storage.sql.exec<{ sequence: number }>('SELECT sequence FROM feed').one();
      storage.sql.exec(
        `WITH RECURSIVE ended (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM ended WHERE n < ?1)
         INSERT INTO decisions
         SELECT ?2 + 2 * n, n, NULL, 'CAPI', 'test', 'Ip', 'ban', '2001:db8::' || printf('%x', n), ?3, ?2 + 2 * n,
           ?2 + 2 * n + 1, ?3, 'default', 0 FROM ended`,
        count,
        sequence,
        Date.now(),
      );
      storage.sql.exec('UPDATE feed SET sequence = ?', sequence + 2 * count + 1);
    });
    await evictDurableObject(feed());
  }

  test('the oldest go, once every bouncer has had the time to hear of them', async () => {
    await haveEnded(150_000);
    await alarmAfter(0);
    expect(await tombstones()).toBe(150_000);
    await alarmAfter(11 * minute);
    await alarmAfter(11 * minute);
    expect(await tombstones()).toBeLessThanOrEqual(100_000);
    expect(await tombstones()).toBeGreaterThan(50_000);
    await evictDurableObject(feed());
    expect(await tombstones()).toBeLessThanOrEqual(100_000);
    const { ended } = await bouncer({
      view: { ...everything, value: `2001:db8::${(150_000).toString(16)}` },
    }).pull(true);
    expect(ended).toHaveLength(1);
    const first = await bouncer({ view: { ...everything, value: '2001:db8::1' } }).pull(true);
    expect(first.ended).toEqual([]);
  });

  test('more than an object can hold are gone before it reads them', async () => {
    await haveEnded(400_000);
    expect(await tombstones()).toBeLessThanOrEqual(300_000);
    expect(await tombstones()).toBeGreaterThan(200_000);
  });

  test('a large list that goes at once is told to everybody first', async () => {
    const client = bouncer();
    for (let at = 1; at <= 120_000; at++) {
      engine.add({ value: `2001:db8::${at.toString(16)}`, origin: 'CAPI', untilMs: Date.now() + hour });
    }
    await sync();
    await client.pull(true);
    expect(client.banned()).toHaveLength(120_000);
    engine.rows.clear();
    await alarmAfter(11 * minute);
    await alarmAfter(11 * minute);
    await sync();
    await alarmAfter(1000);
    await client.pull(false);
    expect(client.banned()).toEqual([]);
    // It is not told again for ever.
    for (let round = 0; round < 3; round++) await alarmAfter(11 * minute);
    expect(await tombstones()).toBeLessThanOrEqual(100_000);
    expect(await client.pull(false)).toMatchObject({ added: [] });
  });

  test('a bouncer that was away for longer than they reach gets the full state', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + 100 * hour });
    await sync();
    const client = bouncer();
    await client.pull(true);
    await alarmAfter(0);
    await haveEnded(150_000);
    await alarmAfter(11 * minute);
    await alarmAfter(11 * minute);
    expect((await client.pull(false)).added).toHaveLength(1);
  });
});
