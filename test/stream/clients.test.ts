// Who polls, in large numbers: what of it is in memory, what in storage, and who is forgotten first.
import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from 'cloudflare:test';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import type { DecisionFeed } from '../../src/feed/object.ts';
import { requestKey, type View } from '../../src/mirror/view.ts';
import type { SeenClient } from '../../src/stream/clients.ts';
import type { SentAnswer } from '../../src/stream/sent.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { addBouncer, operator } from '../support/http.ts';
import { bouncer, everything, feed, limitsOf } from '../support/bouncer.ts';

const hour = 3_600_000;
let engine: ModelEngine;

beforeEach(() => {
  engine = startModelEngine();
});

const sync = () => feed().sync({ full: false, force: false });
const inFeed = <T>(work: (object: DecisionFeed, sql: SqlStorage) => T | Promise<T>): Promise<T> => {
  return runInDurableObject(feed(), (object: DecisionFeed, { storage }) => work(object, storage.sql));
};

function sightings(count: number, { bouncerId = 1, seenMs = Date.now(), userAgent = 'flood/1' } = {}) {
  return Array.from({ length: count }, (_, at) => {
    return { bouncerId, versionId: 1, address: `2001:db8::${at.toString(16)}`, seenMs, userAgent };
  });
}

/** How many clients of some bouncers are known, where 192.0.2.1 is banned. */
async function known(...bouncerIds: readonly number[]): Promise<number> {
  const asks = bouncerIds.map((bouncerId) => ({ bouncerId, name: 'web-1', limits: null, refused: null }));
  const { bouncers } = (await feed().sentTo(asks, { value: '192.0.2.1' })) as SentAnswer;
  return bouncers.reduce((sum, { clients }) => sum + clients, 0);
}

/** Ends the process of the object after all that waits is written, and answers what a poll then costs. */
async function afterRestart(client: ReturnType<typeof bouncer>) {
  await runDurableObjectAlarm(feed());
  await evictDurableObject(feed());
  return client.pull(false);
}

/** Has SQLite refuse rows of clients, as a full disk would. */
const refuse = (which: string) =>
  inFeed((_, sql) => {
    sql.exec(`CREATE TRIGGER full BEFORE INSERT ON client_rows WHEN ${which}
      BEGIN SELECT RAISE(ABORT, 'the disk is full'); END`);
  });
const accept = () => inFeed((_, sql) => void sql.exec('DROP TRIGGER full'));

const nothing = { added: [], ended: [] };

test('of a thousand and more clients operators read the newest, and when each version of the key was last used', async () => {
  const nowMs = Date.now();
  const all = sightings(1_500).map((each, at) => ({
    ...each,
    seenMs: nowMs + at,
    versionId: at < 3 ? 1 : 2,
  }));
  await inFeed((object) => object.note(all));
  const [clients] = (await feed().clientsOf([1])) as SeenClient[][];
  const addresses = clients?.map(({ address }) => address);
  expect(addresses).toEqual([...all.slice(500).reverse(), all[2]].map((each) => each?.address));
  expect(clients?.at(-1)?.versions).toEqual({ 1: nowMs + 2 });
});

describe('with more clients than there is room for', () => {
  test('a key that is used from everywhere costs its own bouncer clients, and nobody else', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    const other = bouncer({ bouncerId: 2 });
    await other.pull(true);
    await inFeed((object) => object.note(sightings(120_000)));
    expect(await known(1)).toBeGreaterThan(50_000);
    expect(await known(1)).toBeLessThan(100_000);
    expect(await other.pull(false)).toEqual(nothing);
  });

  test('those that poll are kept, and those that were not seen for long are forgotten', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    const other = bouncer({ bouncerId: 99 });
    await other.pull(true);
    await inFeed((object) => {
      for (let bouncerId = 1; bouncerId <= 8; bouncerId++) {
        object.note(sightings(50_000, { bouncerId, seenMs: Date.now() - hour }));
      }
    });
    const all = await known(1, 2, 3, 4, 5, 6, 7, 8);
    expect(all).toBeGreaterThan(200_000);
    expect(all).toBeLessThan(350_000);
    expect(await other.pull(false)).toEqual(nothing);
  });

  test('a client that asks for ever new views has a cursor for the newest, and no more memory than others', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    const viewed = (at: number) => {
      return bouncer({ view: { ...everything, scenariosNotContaining: [`x${at}`] } });
    };
    for (let at = 0; at < 20; at++) await viewed(at).pull(true);
    expect((await feed().status()).cursors).toBeLessThan(10);
    expect(await viewed(19).pull(false)).toEqual(nothing);
  });
});

describe('in storage', () => {
  test('10,000 clients on a feed that moves every 10 s cost less than 20 million billed rows a month', async () => {
    const roundsAMonth = (30 * 86_400) / 10;
    const changes = (sql: SqlStorage) => sql.exec('SELECT total_changes() AS n').one()['n'] as number;
    const pollAll = (object: DecisionFeed, startup: boolean) => {
      return Promise.all(
        sightings(10_000).map((poll) => {
          const ask = { poll, view: everything, startup, gzip: false, sightings: [] };
          return object.stream(ask);
        }),
      );
    };
    await sync();
    await inFeed((object) => pollAll(object, true));
    await runDurableObjectAlarm(feed());
    for (let round = 0; round < 2; round++) {
      engine.add({ value: `192.0.2.${round}`, untilMs: Date.now() + hour });
      await sync();
      const before = await inFeed((object, sql) => pollAll(object, false).then(() => changes(sql)));
      await runDurableObjectAlarm(feed());
      const written = (await inFeed((_, sql) => changes(sql))) - before;
      expect(written).toBeGreaterThan(0);
      expect(written * roundsAMonth).toBeLessThan(20_000_000);
    }
    await evictDurableObject(feed());
    expect((await feed().status()).cursors).toBe(10_000);
  });

  test('rows stay far below what SQLite takes, whatever clients send', async () => {
    const odd = '"\\\u00ff'.repeat(100);
    const viewOf = (client: string, at: number): View => {
      return { ...everything, value: `${client} ${at} ${odd.slice(0, 120)}` };
    };
    await sync();
    await inFeed(async (object) => {
      for (const poll of sightings(600, { userAgent: odd })) {
        for (let at = 0; at < 6; at++) {
          const ask = { poll, view: viewOf(poll.address, at), startup: true, gzip: false, sightings: [] };
          await object.stream(ask);
        }
      }
    });
    await runDurableObjectAlarm(feed());
    const sizes = await inFeed((_, sql) => {
      return sql.exec('SELECT LENGTH(CAST(body AS BLOB)) AS bytes FROM client_rows').toArray();
    });
    expect(sizes.length).toBeGreaterThan(1);
    for (const { bytes } of sizes) expect(bytes).toBeLessThan(1_000_000);
    await evictDurableObject(feed());
    expect((await feed().status()).cursors).toBe(3600);
  });

  test('a view with a longer key than is kept costs a full state each time, and nothing else', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    const long = bouncer({ view: { ...everything, scenariosNotContaining: ['x'.repeat(5000)] } });
    const plain = bouncer();
    await long.pull(true);
    await plain.pull(true);
    expect((await afterRestart(long)).added).toHaveLength(1);
    expect(await plain.pull(false)).toEqual(nothing);
  });

  test('clients that go leave no rows behind', async () => {
    await sync();
    await addBouncer('fw');
    const rows = () => inFeed((_, sql) => sql.exec('SELECT COUNT(*) AS n FROM client_rows').one()['n']);
    await inFeed((object) => object.note(sightings(5000)));
    await runDurableObjectAlarm(feed());
    expect(await rows()).toBeGreaterThan(1);
    expect((await operator('DELETE', '/bouncers/fw')).status).toBe(204);
    await runDurableObjectAlarm(feed());
    expect(await rows()).toBe(0);
  });
});

describe('a row that can not be written', () => {
  test('keeps no other from being written, and is written later', async () => {
    vi.spyOn(console, 'error').mockImplementation(() => undefined);
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    const [first, last] = [bouncer({ bouncerId: 1 }), bouncer({ bouncerId: 3 })];
    await first.pull(true);
    await inFeed((object) => object.note(sightings(3000, { bouncerId: 2 })));
    await last.pull(true);
    await refuse('NEW.id = 1');
    await runDurableObjectAlarm(feed());
    expect(await inFeed((_, sql) => sql.exec('SELECT COUNT(*) AS n FROM client_rows').one()['n'])).toBe(6);
    await accept();
    expect(await afterRestart(first)).toEqual(nothing);
    expect(await last.pull(false)).toEqual(nothing);
  });

  test('does not end the alarm, nor cost a limited bouncer its answer', async () => {
    const errors = vi.spyOn(console, 'error').mockImplementation(() => undefined);
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    const limited = bouncer();
    await limited.pull(true);
    await refuse('true');
    expect(await runDurableObjectAlarm(feed())).toBe(true);
    expect(await runDurableObjectAlarm(feed())).toBe(true);
    expect(errors).toHaveBeenCalledTimes(1);
    limited.limit(limitsOf({ origins: ['CAPI'] }));
    await limited.pull(false);
    expect(limited.banned()).toEqual([]);
    await accept();
    expect(await afterRestart(limited)).toMatchObject({ added: [] });
  });
});

test('what a cursor in storage stands on is kept until the cursor is written anew', async () => {
  vi.spyOn(console, 'error').mockImplementation(() => undefined);
  const capped = bouncer({ view: { ...everything, limits: limitsOf({ maxDecisions: 3 }) } });
  for (let at = 1; at <= 3; at++) engine.add({ value: `192.0.2.${at}`, untilMs: Date.now() + hour });
  await capped.pull(true);
  await runDurableObjectAlarm(feed());
  await refuse('true');
  for (let at = 1; at <= 3; at++) {
    engine.add({ value: '198.51.100.1', untilMs: Date.now() + (1 + at) * hour });
    await sync();
    await capped.pull(false);
  }
  await runDurableObjectAlarm(feed());
  await evictDurableObject(feed());
  expect((await capped.pull(false)).added.map(({ value }) => value)).toEqual(['198.51.100.1']);
});

test('what a bouncer under a cap has from an answer after its stored cursor ends at it, also when rounds ran', async () => {
  const capped = bouncer({ view: { ...everything, limits: limitsOf({ maxDecisions: 1 }) } });
  engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
  await sync();
  await capped.pull(true);
  await runDurableObjectAlarm(feed());
  const { id } = engine.add({ value: '192.0.2.2', untilMs: Date.now() + 2 * hour });
  await sync();
  await capped.pull(false);
  expect(capped.banned()).toEqual(['192.0.2.2']);
  await evictDurableObject(feed());
  await runDurableObjectAlarm(feed());
  await evictDurableObject(feed());
  await runDurableObjectAlarm(feed());
  engine.expire(id);
  await sync();
  await capped.pull(false);
  expect(capped.banned()).toEqual(['192.0.2.1']);
});

test('clients of before, in shards, are taken over', async () => {
  engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
  await sync();
  const { sequence } = await feed().status();
  const view = requestKey(everything);
  const nowMs = Date.now();
  const stored = [view, sequence, sequence];
  await inFeed((_, sql) => {
    sql.exec('CREATE TABLE clients (shard INTEGER PRIMARY KEY, body TEXT NOT NULL)');
    const shards = [
      // Versions and baselines came later.
      [['1 192.0.2.200', nowMs, 'test/1', [stored]]],
      [
        ['2 192.0.2.200', nowMs, 'test/1', [[...stored, 0, 0]], { 4: nowMs - 5, 7: nowMs }],
        ['3 192.0.2.200', nowMs, 'test/1', []],
      ],
    ];
    for (const [at, entries] of shards.entries()) {
      sql.exec('INSERT INTO clients VALUES (?, ?)', at, JSON.stringify(entries));
    }
  });
  await evictDurableObject(feed());
  expect(await bouncer({ bouncerId: 1 }).pull(false)).toEqual(nothing);
  expect(await bouncer({ bouncerId: 2 }).pull(false)).toEqual(nothing);
  expect((await bouncer({ bouncerId: 3 }).pull(false)).added).toHaveLength(1);
  const [[client]] = await feed().clientsOf([2]);
  expect(client.versions).toMatchObject({ 4: nowMs - 5, 7: nowMs });
  const tables = await inFeed((_, sql) => {
    return sql.exec(`SELECT name FROM sqlite_master WHERE name = 'clients'`).toArray();
  });
  expect(tables).toEqual([]);
});
