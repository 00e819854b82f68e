// What a receiver is told of keys that expire and of hosts in trouble.
import { beforeEach, expect, test, vi } from 'vitest';
import { addBouncer, operator } from '../support/http.ts';
import { knownHost, makeHost } from '../support/hosts.ts';
import { startModelEngine } from '../support/model-engine.ts';
import { startReceiver, type Receiver } from '../support/receiver.ts';
import { delivery, makeWebhook, namesIn, quiet, round } from '../support/webhooks.ts';

const hour = 3_600_000;
const day = 24 * hour;
let ops: Receiver;

beforeEach(async () => {
  startModelEngine();
  ops = startReceiver('ops.example');
  vi.useFakeTimers({ toFake: ['Date'] });
  await makeWebhook('ops');
  await round();
});

const makeKey = (name: string, life: string) => operator('POST', '/bouncers', { name, expires_in: life });
const types = (): string[] => ops.tries.map(({ type }) => type);
/** Rounds over a long time. */
async function pass(ms: number, stepMs: number): Promise<void> {
  for (let at = 0; at < ms; at += stepMs) await round(stepMs);
  await delivery();
}

test('a key that expires is told of a week before, and when it has', async () => {
  await makeKey('old', '60d');
  await addBouncer('for-ever');
  const endMs = Date.now() + 60 * day;
  await pass(52 * day, 2 * day);
  expect(types()).toEqual([]);
  await pass(2 * day, day);
  await ops.reaches(1);
  expect(ops.tries[0]!.type).toBe('key.expiring');
  expect(ops.tries[0]!.data).toEqual({
    count: 1,
    keys: [{ bouncer: 'old', version: 1, expires_at: new Date(endMs).toISOString() }],
  });
  await pass(8 * day, 2 * day);
  await ops.reaches(2);
  expect(types()).toEqual(['key.expiring', 'key.expired']);
});

test('a key with a short life is told of late enough for its host to renew it', async () => {
  await makeKey('short', '10h');
  await pass(7 * hour + hour / 2, hour / 4);
  expect(types()).toEqual([]);
  await pass(hour, hour / 4);
  expect(types()).toEqual(['key.expiring']);
});

test('a key that was replaced in time is not told of', async () => {
  await makeKey('renewed', '10h');
  await pass(6 * hour, hour);
  expect(
    (await operator('POST', '/bouncers/renewed/rotate', { grace: '0s', expires_in: '60d' })).status,
  ).toBe(200);
  await pass(10 * hour, hour);
  expect(types()).toEqual([]);
});

test('keys that expire while the feed is away are told of together when it is back', async () => {
  for (let at = 0; at < 5; at++) await makeKey(`key-${at}`, `${at + 1}h`);
  await round(day);
  await ops.reaches(1);
  await quiet(10);
  expect(types()).toEqual(['key.expired']);
  expect(namesIn(ops, 0, 'keys', 'bouncer')).toEqual(['key-0', 'key-1', 'key-2', 'key-3', 'key-4']);
});

test('a clock that was set back and goes on loses no key', async () => {
  await makeKey('key', '1h');
  await round(-5 * hour);
  await pass(8 * hour, hour / 2);
  expect(new Set(types())).toEqual(new Set(['key.expiring', 'key.expired']));
});

test('a host of which a copy may exist is told of once, and again after it was trusted', async () => {
  const host = await knownHost('web-1');
  await host.register();
  let wrong = 7;
  const suspect = async (): Promise<void> => {
    expect((await host.register({ generation: (wrong += 7) })).status).toBe(409);
  };
  await suspect();
  await quiet(3);
  await ops.reaches(1);
  expect(ops.tries[0]!.data).toEqual({
    count: 1,
    hosts: [{ name: 'web-1', suspected_at: expect.any(String) }],
  });
  await suspect();
  await quiet(10);
  expect(types()).toEqual(['host.clone-suspected']);
  await operator('POST', '/hosts/web-1/recoveries');
  await quiet(3);
  expect((await host.register({ generation: 1000 })).status).toBe(200);
  await suspect();
  await quiet(3);
  await ops.reaches(2);
  expect(types()).toEqual(['host.clone-suspected', 'host.clone-suspected']);
});

test('a host that comes with another SSH key is told of once a day, however often it tries', async () => {
  await knownHost('web-1');
  const other = await makeHost('web-1');
  for (let at = 0; at < 6; at++) {
    await other.register();
    await round(15 * 60_000);
  }
  await ops.reaches(1);
  await delivery();
  expect(types()).toEqual(['host.refused']);
  expect(ops.tries[0]!.data.hosts).toEqual([
    {
      name: 'web-1',
      refused_at: expect.any(String),
      why: expect.stringContaining('another SSH key, SHA256:'),
    },
  ]);
  await pass(26 * hour, hour);
  await other.register();
  await quiet(3);
  await ops.reaches(2);
});

test('what is wrong when the first webhook is made is told then; what was wrong before is not', async () => {
  await operator('DELETE', '/webhooks/ops');
  await round(10_000);
  await makeKey('gone', '1h');
  await pass(8 * hour, hour);
  const other = await makeHost('web-1');
  await knownHost('web-1');
  await other.register();
  await makeWebhook('ops');
  await quiet(12);
  await ops.reaches(1);
  expect(types()).toEqual(['host.refused']);
});
