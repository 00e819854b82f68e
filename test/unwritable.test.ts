// Storage that takes no write (a full disk, a used-up quota), in workerd: what is in memory is served on.
import { runInDurableObject } from 'cloudflare:test';
import { beforeEach, expect, test, vi } from 'vitest';
import { feed, type WireDecision } from './support/bouncer.ts';
import { addBouncer, asBouncer, call, operator } from './support/http.ts';
import { startModelEngine, type ModelEngine } from './support/model-engine.ts';

const hour = 3_600_000;
let engine: ModelEngine;
let key: string;

beforeEach(async () => {
  engine = startModelEngine();
  vi.useFakeTimers({ toFake: ['Date'] });
  key = await addBouncer('fw');
  engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
  engine.add({ value: '192.0.2.2', untilMs: Date.now() + 3 * hour });
  await operator('POST', '/feed/sync?full=true');
});

/** From here on no write succeeds, as with SQLITE_FULL; returns how that ends. */
async function fill(): Promise<() => void> {
  let isFull = true;
  await runInDurableObject(feed(), (_, { storage }) => {
    const write = storage.transactionSync.bind(storage);
    storage.transactionSync = <T>(closure: () => T): T => {
      if (isFull) throw new Error('database or disk is full: SQLITE_FULL');
      return write(closure);
    };
  });
  return () => {
    isFull = false;
  };
}

const get = (path: string) => asBouncer(key, `/v1/decisions${path}`);
const stream = async (query = '') =>
  (await get(`/stream${query}`)).json<{ new: WireDecision[]; deleted: WireDecision[] }>();
const values = (list: WireDecision[]) => list.map(({ value }) => value);

test('polls, look-ups and /health go on; what has ended is shown to nobody, and told when it can be written', async () => {
  await stream('?startup=true');
  const empty = await fill();
  vi.setSystemTime(Date.now() + 2 * hour);
  expect(values((await stream('?startup=true')).new)).toEqual(['192.0.2.2']);
  expect(values(await (await get('?ip=192.0.2.2')).json())).toEqual(['192.0.2.2']);
  expect(await (await get('?ip=192.0.2.1')).json()).toBeNull();
  expect(await (await call('/health')).json()).toMatchObject({ status: 'up', storage: 'unwritable' });
  expect((await stream()).deleted).toEqual([]);
  empty();
  vi.setSystemTime(Date.now() + 2_000);
  expect(values((await stream()).deleted)).toEqual(['192.0.2.1']);
  expect(await (await call('/health')).json()).not.toHaveProperty('storage');
});
