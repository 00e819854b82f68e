// Storage that takes no write (a full disk, a used-up quota), in workerd: what is in memory is served on.
import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { bouncer, everything, feed, limitsOf, type WireDecision } from '../support/bouncer.ts';
import { asBouncer, call, operator } from '../support/http.ts';
import { waitFor } from '../support/patience.ts';
import { refuseWrites } from '../support/storage.ts';
import { isFull } from '../../src/store/unwritable.ts';
import { type ModelEngine } from '../support/model-engine.ts';
import { startEdge } from '../support/edge.ts';

const hour = 3_600_000;
let engine: ModelEngine;
let key: string;

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  ({ engine, key } = await startEdge());
  engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
  engine.add({ value: '192.0.2.2', untilMs: Date.now() + 3 * hour });
  await operator('POST', '/feed/sync?full=true');
});

const get = (path: string) => asBouncer(key, `/v1/decisions${path}`);
const stream = async (query = '') =>
  (await get(`/stream${query}`)).json<{ new: WireDecision[]; deleted: WireDecision[] }>();
const values = (list: WireDecision[]) => list.map(({ value }) => value);

test('polls, look-ups and /health go on; what has ended is shown to nobody, and told when it can be written', async () => {
  await stream('?startup=true');
  const empty = await refuseWrites();
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

const alarmAt = () => runInDurableObject(feed(), (_, { storage }) => storage.getAlarm());

test('an object that wakes then serves what it has', async () => {
  await operator('POST', '/allowlist', { value: '192.0.2.9', comment: 'office', bouncers: ['vpn-*'] });
  await stream('?startup=true');
  const empty = await refuseWrites();
  await evictDurableObject(feed());
  vi.setSystemTime(Date.now() + 2 * hour);
  expect(values((await stream('?startup=true')).new)).toEqual(['192.0.2.2']);
  expect((await stream()).new).toEqual([]);
  await evictDurableObject(feed());
  expect(values(await (await get('')).json())).toEqual(['192.0.2.2']);
  empty();
  vi.setSystemTime(Date.now() + 2_000);
  expect(values((await stream()).deleted)).toEqual(['192.0.2.1']);
});

test('the alarm that can not be set anew is set by whoever looks later, and its round takes place', async () => {
  const empty = await refuseWrites();
  engine.add({ value: '192.0.2.3', untilMs: Date.now() + 3 * hour });
  // Throws when the handler does, which the platform calls no more than six times again.
  await runDurableObjectAlarm(feed());
  expect(await alarmAt()).toBeNull();
  vi.setSystemTime(Date.now() + 2 * hour);
  expect((await get('/stream')).status).toBe(200);
  expect(await alarmAt()).toBeNull();
  empty();
  vi.setSystemTime(Date.now() + 4 * hour);
  expect((await get('/stream')).status).toBe(200);
  await waitFor(async () => expect(await alarmAt()).toBeGreaterThan(Date.now()));
  await runDurableObjectAlarm(feed());
});

test('a bouncer with limits starts up, and what it stands on is written before its place is', async () => {
  const client = bouncer({ view: { ...everything, limits: limitsOf({ maxDecisions: 1 }) } });
  const other = bouncer({ bouncerId: 2, view: { ...everything, limits: limitsOf({ maxDecisions: 2 }) } });
  const empty = await refuseWrites();
  expect((await client.pull(true)).added).toHaveLength(1);
  await client.pull(false);
  empty();
  // What was given out while nothing could be written has no other's number after a restart.
  vi.setSystemTime(Date.now() + 2_000);
  await runDurableObjectAlarm(feed());
  await evictDurableObject(feed());
  expect((await other.pull(true)).added).toHaveLength(2);
  engine.add({ value: '192.0.2.3', untilMs: Date.now() + 9 * hour });
  await operator('POST', '/feed/sync?full=true');
  await client.pullAll();
  await other.pullAll();
  expect(client.banned()).toHaveLength(1);
  expect(other.banned()).toHaveLength(2);
});

describe('what operators change', () => {
  const unwritable = {
    status: 503,
    body: expect.objectContaining({
      type: 'urn:lapidary:unavailable',
      detail: expect.stringContaining('can not be written'),
    }),
  };

  test.each([
    ['POST', '/decisions', { value: '192.0.2.9', duration: '1h' }],
    ['DELETE', '/decisions?value=198.51.100.1', undefined],
    ['POST', '/bouncers', { name: 'late' }],
    ['DELETE', '/bouncers/fw', undefined],
  ])('%s %s is a 503 that says what is wrong, and nothing was written', async (method, path, body) => {
    await operator('POST', '/decisions', { value: '198.51.100.1', duration: '1h' });
    const empty = await refuseWrites();
    expect(await operator(method, path, body)).toMatchObject(unwritable);
    expect(values(await (await get('')).json())).toEqual(['192.0.2.1', '192.0.2.2', '198.51.100.1']);
    empty();
    expect((await operator('GET', '/bouncers')).body.bouncers).toHaveLength(1);
    expect((await operator(method, path, body)).status).toBeLessThan(300);
  });

  test('a sync says that the round can not be written', async () => {
    await refuseWrites();
    const { status, body } = await operator('POST', '/feed/sync?full=true');
    expect([status, body.detail]).toEqual([503, expect.stringContaining('can not be written')]);
    await runDurableObjectAlarm(feed());
    expect(await (await call('/health')).json()).toMatchObject({ storage: 'unwritable' });
  });

  test('a ban and its Idempotency-Key are one write: a second try bans once', async () => {
    await runInDurableObject(feed(), (_, { storage }) => {
      const sql = Object.getPrototypeOf(storage.sql) as SqlStorage;
      const { exec } = sql;
      vi.spyOn(sql, 'exec').mockImplementation(function (this: SqlStorage, query, ...bindings) {
        if (query.startsWith('INSERT INTO once')) throw new Error('Exceeded allowed rows written');
        return exec.call(this, query, ...bindings) as never;
      });
    });
    const body = { value: '192.0.2.9', duration: '1h' };
    expect(await operator('POST', '/decisions', body)).toMatchObject(unwritable);
    expect(await (await get('?ip=192.0.2.9')).json()).toBeNull();
  });

  test('keys that an isolate does not know are looked up, although the key store has moved meanwhile', async () => {
    const empty = await refuseWrites();
    // As by a commit whose ends the object could not keep.
    await env.DB.prepare(
      `INSERT INTO audit VALUES (99, 1, 'root', 'bouncer.update', 'fw', '{}', '', '', 'moved')`,
    ).run();
    vi.setSystemTime(Date.now() + 60_000);
    expect((await get('/stream')).status).toBe(200);
    empty();
  });
});

describe('an error of D1 says that nothing was written', () => {
  test.each([
    ['Exceeded maximum DB size.', true],
    ["Your account has exceeded D1's maximum account storage limit, please contact Cloudflare.", true],
    ["Your account has exceeded D1's free tier daily row write limit. Upgrade to a paid plan.", true],
    ['Exceeded allowed rows written in Durable Objects free tier.', true],
    ['database or disk is full: SQLITE_FULL', true],
    ['attempt to write a readonly database: SQLITE_READONLY', true],
    ['D1 DB exceeded its CPU time limit and was reset.', false],
    ["D1 DB's isolate exceeded its memory limit and was reset.", false],
    ['D1 DB storage operation exceeded timeout which caused object to be reset.', false],
    ['Network connection lost.', false],
  ])('%s %s', (text, expected) => {
    expect(isFull(new Error(`D1_ERROR: ${text}`))).toBe(expected);
  });
});
