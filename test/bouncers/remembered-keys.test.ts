// D1 is out of reach of an isolate that knows nothing yet: the feed's object says what other isolates had seen in D1.
import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { mintedIn } from '../../src/crypto/mint.ts';
import { backUp, putBack } from '../support/backup.ts';
import { feed } from '../support/bouncer.ts';
import { addBouncer, call, operator, operatorToken } from '../support/http.ts';
import { type Isolate, makeIsolates } from '../support/isolate.ts';
import { startModelEngine } from '../support/model-engine.ts';

const minute = 60_000;
/** Two that D1 answers, one that it never answers, and some that nobody has asked anything yet. */
let first: Isolate;
let second: Isolate;
let dark: Isolate;
let fresh: Isolate[];
let logged: { readonly mock: { readonly calls: readonly unknown[][] } };
let startMs = Date.now();

beforeAll(async () => {
  [first, second, dark, ...fresh] = (await makeIsolates(5)) as [Isolate, Isolate, Isolate];
}, 60_000);
beforeEach(() => {
  startModelEngine();
  // Each test later than the one before: what an isolate saw in the future of the next one would count there.
  vi.useFakeTimers({ toFake: ['Date'], now: (startMs += 60 * minute) });
  logged = vi.spyOn(console, 'error').mockReturnValue();
});

const prepare = (query: string) => env.DB.prepare(query);
const failing = { DB: { prepare, batch: () => Promise.reject(new Error('D1 is down')) } };
const silent = { DB: { prepare, batch: () => new Promise(() => undefined) } };

async function poll(isolate: Isolate, key: string, bindings = {}, path = '/stream'): Promise<number> {
  const headers = { 'x-api-key': key };
  return (await isolate(`/v1/decisions${path}`, { headers }, bindings)).status;
}

/** What an isolate answers that never had anything from D1. */
const inTheDark = (key: string): Promise<number> => poll(dark, key, failing);
const pass = (ms: number): void => void vi.setSystemTime(Date.now() + ms);

function setPaused(name: string, paused: boolean): Promise<Response> {
  const headers = { authorization: `Bearer ${operatorToken}`, 'if-match': '*' };
  return call(`/api/v1/bouncers/${name}`, { method: 'PATCH', headers, body: JSON.stringify({ paused }) });
}

describe('an isolate that knows nothing, without D1', () => {
  test.each([
    ['failing', failing],
    ['silent', silent],
  ])('(%s), serves keys that another had seen in D1, and tells others to wait', async (_, bindings) => {
    const [streams, lists, never] = [await addBouncer('a'), await addBouncer('b'), await addBouncer('c')];
    expect([await poll(first, lists, {}, ''), await poll(first, streams)]).toEqual([200, 200]);
    const isolate = fresh.pop()!;
    expect(await poll(isolate, streams, bindings)).toBe(200);
    expect(await poll(isolate, lists, bindings, '')).toBe(200);
    // It knows by now that D1 fails, and asks it beside its answers only.
    expect(await poll(isolate, streams, bindings)).toBe(200);
    expect(await poll(isolate, never, bindings)).toBe(503);
    expect(await poll(isolate, 'of-nobody', bindings)).toBe(503);
    expect(await poll(isolate, never)).toBe(200);
    expect(await poll(isolate, 'of-nobody')).toBe(403);
  });

  test('does so for 15 minutes after D1 was last heard of, by whomever', async () => {
    const [key, other] = [await addBouncer('a'), await addBouncer('b')];
    await poll(first, key);
    pass(10 * minute);
    await poll(second, other);
    pass(15 * minute - 1);
    expect(await inTheDark(key)).toBe(200);
    pass(1);
    expect(await inTheDark(key)).toBe(503);
  });

  test('does so after the object was restarted', async () => {
    const key = await addBouncer('a');
    await poll(first, key);
    await runDurableObjectAlarm(feed());
    await evictDurableObject(feed());
    expect(await inTheDark(key)).toBe(200);
  });

  test('serves no key that has expired', async () => {
    const { body } = await operator('POST', '/bouncers', { name: 'a', expires_in: '1m' });
    await poll(first, body.key);
    pass(minute);
    expect(await inTheDark(body.key)).toBe(403);
  });

  test.each([
    ['revoked', () => operator('POST', '/bouncers/a/versions/1/revoke')],
    ['deleted', () => operator('DELETE', '/bouncers/a')],
    ['rotated', () => operator('POST', '/bouncers/a/rotate', { grace: '0s' })],
    [
      'told what it may read',
      () => {
        const headers = { authorization: `Bearer ${operatorToken}`, 'if-match': '*' };
        const body = JSON.stringify({ allowed_addresses: ['192.0.2.1'] });
        return call('/api/v1/bouncers/a', { method: 'PATCH', headers, body });
      },
    ],
    ['paused', () => setPaused('a', true)],
  ])('serves none that was %s since', async (_, change) => {
    const [key, kept] = [await addBouncer('a'), await addBouncer('b')];
    expect([await poll(first, key), await poll(first, kept)]).toEqual([200, 200]);
    expect((await change()).status).toBeLessThan(300);
    expect(await inTheDark(key)).toBe(503);
    expect(await inTheDark(kept)).toBe(200);
  });
});

test('a key that changed is served again once it was used, whoever asks the object then', async () => {
  const keys = [await addBouncer('a'), await addBouncer('b')];
  for (let polls = 0; polls < 3; polls++) for (const key of keys) await poll(first, key);
  for (const name of ['a', 'b']) {
    const headers = { authorization: `Bearer ${operatorToken}`, 'if-match': '*' };
    const body = JSON.stringify({ view: { origins: ['crowdsec'] } });
    await call(`/api/v1/bouncers/${name}`, { method: 'PATCH', headers, body });
  }
  // The first of them makes the isolate follow the feed, the other one is answered from that.
  for (let polls = 0; polls < 3; polls++) {
    pass(10_000);
    for (const key of keys) expect(await poll(first, key)).toBe(200);
  }
  for (const key of keys) expect(await inTheDark(key)).toBe(200);
});

test('a paused bouncer stays paused while D1 is silent, wherever it asks, and after a restart of the object', async () => {
  const [key, other] = [await addBouncer('a'), await addBouncer('b')];
  await setPaused('a', true);
  expect([await poll(first, key), await poll(first, other)]).toEqual([403, 200]);
  pass(minute);
  for (const restart of [() => undefined, () => evictDurableObject(feed())]) {
    await restart();
    expect([await poll(first, key, silent), await poll(first, other, silent)]).toEqual([403, 200]);
    expect([await inTheDark(key), await inTheDark(other)]).toEqual([403, 200]);
    await runDurableObjectAlarm(feed());
  }
  await setPaused('a', false);
  expect(await inTheDark(key)).toBe(503);
  pass(5_000);
  expect(await poll(first, key)).toBe(200);
  expect(await inTheDark(key)).toBe(200);
});

test('a look-up that crosses a revocation does not bring the key back', async () => {
  const key = await addBouncer('a');
  const late = {
    DECISION_FEED: {
      getByName: (name: string) =>
        new Proxy(env.DECISION_FEED.getByName(name), {
          get: (stub: any, method: string) =>
            method === 'stream'
              ? async (ask: unknown) => {
                  await operator('POST', '/bouncers/a/versions/1/revoke');
                  return stub.stream(ask);
                }
              : stub[method],
        }),
    },
  };
  expect(await poll(first, key, late)).toBe(200);
  expect(await inTheDark(key)).toBe(503);
});

test('a change that the object missed because it was stopped meanwhile counts when it next reads D1', async () => {
  const [key, kept] = [await addBouncer('a'), await addBouncer('b')];
  expect([await poll(first, key), await poll(first, kept)]).toEqual([200, 200]);
  await runDurableObjectAlarm(feed());
  const tables = ['audit_anchor', 'unsealed_rows', 'ended_keys', 'store_heard', 'remembered_keys'];
  const inObject = (run: (sql: SqlStorage) => void): Promise<void> =>
    runInDurableObject(feed(), (_, { storage }) => run(storage.sql));
  await feed().sealAudit();
  await inObject((sql) =>
    tables.forEach((table) => sql.exec(`CREATE TABLE old_${table} AS SELECT * FROM ${table}`)),
  );
  await operator('POST', '/bouncers/a/versions/1/revoke');
  await feed().sealAudit();
  await inObject((sql) =>
    tables.forEach((table) => {
      sql.exec(`DELETE FROM ${table}`);
      sql.exec(`INSERT INTO ${table} SELECT * FROM old_${table}`);
    }),
  );
  await evictDurableObject(feed());
  expect(await inTheDark(key)).toBe(200);
  expect(await poll(second, kept)).toBe(200);
  expect([await inTheDark(key), await inTheDark(kept)]).toEqual([503, 200]);
});

test('a D1 that was restored takes what was remembered of the one before with it', async () => {
  const [known, other] = [await addBouncer('a'), await addBouncer('b')];
  const backup = await backUp();
  await addBouncer('c');
  await poll(first, known);
  await putBack(backup);
  expect(await poll(second, other)).toBe(200);
  expect(await inTheDark(known)).toBe(503);
  pass(5_000);
  expect(await poll(first, known)).toBe(200);
  expect(await inTheDark(known)).toBe(200);
});

test('keys are reported once, as digests, and written once', async () => {
  const key = await addBouncer('a');
  const told: unknown[] = [];
  const listening = {
    DECISION_FEED: {
      getByName: (name: string) =>
        new Proxy(env.DECISION_FEED.getByName(name), {
          get: (stub: any, method: string) => (ask: { store?: { key: unknown } }) => {
            if (method === 'stream' || method === 'follow') told.push(ask.store?.key);
            return stub[method](ask);
          },
        }),
    },
  };
  for (let polls = 0; polls < 3; polls++) {
    await poll(first, key, listening);
    pass(6_000);
  }
  expect(told.length).toBeGreaterThan(2);
  expect(told.filter((known) => known !== null)).toEqual([expect.objectContaining({ name: 'a' })]);
  expect(mintedIn(JSON.stringify(told))).toEqual([]);
});

test('storage that takes no row changes nothing, and says so once', async () => {
  const key = await addBouncer('a');
  await runInDurableObject(feed(), (_, { storage }) => {
    storage.sql.exec(
      `CREATE TRIGGER full BEFORE INSERT ON remembered_keys BEGIN SELECT RAISE(ABORT, 'full'); END`,
    );
  });
  const lines = (): string[] => logged.mock.calls.map(([line]) => String(line));
  expect([await poll(first, key), await poll(second, key)]).toEqual([200, 200]);
  for (let round = 0; round < 2; round++) await runDurableObjectAlarm(feed());
  expect(lines().filter((line) => line.includes('full'))).toHaveLength(1);
  expect(await inTheDark(key)).toBe(200);
  expect((await operator('POST', '/bouncers/a/versions/1/revoke')).status).toBe(200);
  expect(await inTheDark(key)).toBe(503);
});
