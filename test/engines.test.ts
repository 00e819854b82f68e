// Several engines in one feed: each is believed for its own decisions only, a value is free when none bans it, and a
// change of the settings unbans nobody.
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { runInDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { firstLocalId } from '../src/feed/decision.ts';
import { everything, limitsOf } from './support/bouncer.ts';
import { startModelEngines, type ModelEngine } from './support/model-engine.ts';
import { awakeFeed, engineStatus, listed, reader, sync, wake } from './support/several.ts';

const hour = 3_600_000;
const both = { default: 'a.example', paris: 'b.example' };
let a: ModelEngine;
let b: ModelEngine;

beforeEach(() => {
  ({ 'a.example': a, 'b.example': b } = startModelEngines('a.example', 'b.example'));
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const until = () => Date.now() + hour;
/** Value → id and engine, as operators see it. */
const shown = () => Object.fromEntries(listed().map(({ value, id, engine }) => [value, { id, engine }]));

describe('decisions', () => {
  test('of the first engine keep their ids; those of others get ids of their own, which stay', async () => {
    a.add({ value: '192.0.2.1', untilMs: until() });
    const there = b.add({ value: '192.0.2.2', origin: 'CAPI', untilMs: until() });
    const before = await wake(both, async () => {
      await sync();
      return shown();
    });
    expect(before).toEqual({
      '192.0.2.1': { id: 1, engine: 'default' },
      '192.0.2.2': { id: firstLocalId, engine: 'paris' },
    });
    await wake(both, async () => {
      // A community pull: the same decision under a new id.
      b.drop(there.id);
      b.add({ value: '192.0.2.2', origin: 'CAPI', untilMs: until() + hour });
      b.add({ value: '192.0.2.3', untilMs: until() });
      await sync();
      expect(shown()).toEqual({ ...before, '192.0.2.3': { id: firstLocalId + 1, engine: 'paris' } });
    });
  });

  test('of one value end when the last engine lets go, and the one that is left is announced', async () => {
    const longer = a.add({ value: '192.0.2.1', untilMs: until() + hour });
    const shorter = b.add({ value: '192.0.2.1', untilMs: until() });
    await wake(both, async () => {
      const client = reader();
      await sync();
      await client.pull(true);
      a.expire(longer.id);
      await sync('default', { full: false });
      const { added, ended } = await client.pull(false);
      expect([added.map(({ duration }) => duration), ended]).toEqual([[expect.stringMatching(/^59m/)], []]);
      b.expire(shorter.id);
      await sync('paris', { full: false });
      await client.pull(false);
      expect(client.banned()).toEqual([]);
    });
  });

  test('are an engine’s own: what another says of the same ids, or does not say, changes nothing', async () => {
    const mine = a.add({ value: '192.0.2.1', untilMs: until() });
    for (const value of ['198.51.100.1', '198.51.100.2']) b.add({ value, untilMs: until() });
    await wake(both, async () => {
      await sync();
      // The same id ends there.
      b.expire(mine.id);
      await sync('paris');
      expect(Object.keys(shown())).toEqual(['192.0.2.1', '198.51.100.2']);
      // A community pull of one takes nothing of another's.
      const pulled = { value: '203.0.113.1', origin: 'CAPI', untilMs: until() };
      a.add(pulled);
      await sync();
      b.add(pulled);
      await sync();
      expect(listed().filter(({ value }) => value === '203.0.113.1')).toHaveLength(2);
    });
  });
});

describe('an engine', () => {
  beforeEach(() => {
    for (const value of ['192.0.2.1', '192.0.2.2']) a.add({ value, untilMs: until() });
    for (const value of ['198.51.100.1', '198.51.100.2']) b.add({ value, untilMs: until() });
  });

  test.each([
    ['is away', () => Promise.reject(new Error('down')) as unknown as Response],
    ['lies that it is empty', () => Response.json([])],
    ['lost its database', null],
  ])('that %s costs nothing of its own, and keeps nothing of the other’s back', async (_, fault) => {
    await wake(both, async () => {
      const client = reader();
      await sync();
      await client.pull(true);
      if (fault) b.fault = fault;
      else b.swap();
      a.expire(1);
      a.add({ value: '192.0.2.3', untilMs: until() });
      for (let round = 0; round < 3; round++) await sync();
      await client.pull(false);
      expect(client.banned()).toEqual(['192.0.2.2', '192.0.2.3', '198.51.100.1', '198.51.100.2']);
      expect(engineStatus('default')).toMatchObject({ link: 'ok', lastError: null });
      expect(engineStatus('paris')?.lastError).toEqual(expect.any(String));
    });
  });

  test('can be vouched for alone', async () => {
    await wake(both, async () => {
      await sync();
      a.rows.clear();
      b.rows.clear();
      await sync('paris', { believe: true });
      expect(Object.keys(shown())).toEqual(['192.0.2.1', '192.0.2.2']);
    });
  });

  test('that is silent keeps no alarm from the other', async () => {
    await wake(both, async () => {
      await sync();
      b.fault = () => new Promise<Response>(() => undefined);
      a.add({ value: '192.0.2.3', untilMs: until() });
      // Not waited for: it ends when the silent one is given up.
      void awakeFeed().alarm();
      await vi.waitFor(() => expect(Object.keys(shown())).toContain('192.0.2.3'));
    });
  });

  test('of a database that was restored under it is taken up again, under the ids that bouncers know', async () => {
    await wake(both, async () => {
      await sync();
      const before = shown();
      const kept = b.swap();
      b.add({ value: '203.0.113.1', untilMs: until() });
      for (let round = 0; round < 3; round++) await sync();
      expect(Object.keys(shown())).toHaveLength(5);
      b.swap(kept);
      for (let round = 0; round < 3; round++) await sync();
      expect(shown()).toMatchObject(before);
      b.expire(1);
      await sync();
      expect(Object.keys(shown())).not.toContain('198.51.100.1');
    });
  });
});

describe('settings that change', () => {
  beforeEach(() => {
    a.add({ value: '192.0.2.1', untilMs: until() });
    for (const value of ['198.51.100.1', '198.51.100.2']) b.add({ value, untilMs: until() });
  });

  test('give an engine another name: its decisions go on under their ids, and end as it says', async () => {
    const client = reader();
    const before = await wake(both, async () => {
      await sync();
      await client.pull(true);
      return shown();
    });
    await wake({ default: 'a.example', lyon: 'b.example' }, async () => {
      await sync();
      const { ended } = await client.pull(false);
      expect([ended, client.banned()]).toEqual([[], ['192.0.2.1', '198.51.100.1', '198.51.100.2']]);
      const ids = (all: ReturnType<typeof shown>) => Object.values(all).map(({ id }) => id);
      expect(ids(shown())).toEqual(ids(before));
      expect(shown()['198.51.100.1']?.engine).toBe('lyon');
      b.expire(1);
      await sync();
      await client.pull(false);
      expect(client.banned()).toEqual(['192.0.2.1', '198.51.100.2']);
    });
  });

  test('give the first engine another name: likewise', async () => {
    await wake(both, async () => void (await sync()));
    await wake({ berlin: 'a.example', paris: 'b.example' }, async () => {
      await sync();
      expect(listed()).toHaveLength(3);
      expect(shown()['192.0.2.1']?.engine).toBe('berlin');
      a.expire(1);
      await sync();
      expect(Object.keys(shown())).toEqual(['198.51.100.1', '198.51.100.2']);
    });
  });

  test('take an engine away: what it banned stands to its own end, or until an operator takes it back', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    b.add({ value: '198.51.100.3', untilMs: Date.now() + 60_000 });
    const client = reader();
    await wake(both, async () => {
      await sync();
      await client.pull(true);
    });
    await wake({ default: 'a.example' }, async () => {
      for (let round = 0; round < 3; round++) await sync();
      await client.pull(false);
      expect(client.banned()).toEqual(['192.0.2.1', '198.51.100.1', '198.51.100.2', '198.51.100.3']);
      vi.setSystemTime(Date.now() + 61_000);
      await client.pull(false);
      expect(client.banned()).not.toContain('198.51.100.3');
      expect(awakeFeed().removeLocal({ value: '198.51.100.1' })).toEqual({ kind: 'removed', count: 1 });
      await client.pull(false);
      expect(client.banned()).toEqual(['192.0.2.1', '198.51.100.2']);
    });
  });

  test('take an engine away and bring it back: its decisions are its own again', async () => {
    const before = await wake(both, async () => {
      await sync();
      return shown();
    });
    await wake({ default: 'a.example' }, async () => void (await sync()));
    await wake(both, async () => {
      await sync();
      expect(shown()).toEqual(before);
      b.drop(2);
      await sync();
      await sync();
      expect(Object.keys(shown())).toEqual(['192.0.2.1', '198.51.100.1']);
    });
  });

  test('give an engine another name: it takes over what it says again, and nothing that says more', async () => {
    // What a pull of both has in common is one value and one origin.
    const pulled = { value: '203.0.113.1', origin: 'lists', scenario: 'tor' };
    b.add({ ...pulled, untilMs: until() });
    b.add({ ...pulled, value: '203.0.113.2', untilMs: until() + hour });
    b.add({ ...pulled, value: '203.0.113.3', type: 'captcha', untilMs: until() });
    await wake(both, async () => void (await sync()));
    b.fault = () => Promise.reject(new Error('down'));
    for (const value of ['203.0.113.1', '203.0.113.2', '203.0.113.3']) {
      a.add({ ...pulled, value, untilMs: until() + 1_000 });
    }
    await wake({ berlin: 'a.example', lyon: 'b.example' }, async () => {
      await sync();
      const rows = listed().filter(({ origin }) => origin === 'lists');
      expect(rows.map(({ value, type, engine }) => `${engine} ${type} ${value}`).sort()).toEqual([
        'berlin ban 203.0.113.1',
        'berlin ban 203.0.113.2',
        'berlin ban 203.0.113.3',
        'paris ban 203.0.113.2',
        'paris captcha 203.0.113.3',
      ]);
    });
  });

  test('take an engine away: who vouches for another vouches not for its end, who does for all does', async () => {
    await wake(both, async () => void (await sync()));
    await wake({ default: 'a.example' }, async () => {
      await sync('default', { believe: true });
      expect(listed()).toHaveLength(3);
      a.fault = () => Promise.reject(new Error('down'));
      await sync(undefined, { believe: true });
      expect(listed()).toHaveLength(3);
      a.fault = undefined;
      expect(await sync(undefined, { believe: true })).toMatchObject({ ok: true, removed: 2 });
      expect(Object.keys(shown())).toEqual(['192.0.2.1']);
    });
  });

  test('lose all engines: nothing is let go of', async () => {
    const before = await wake(both, async () => {
      await sync();
      return shown();
    });
    await wake({}, async () => {
      await sync();
      expect(shown()).toEqual(before);
      // Only an engine can take these back.
      expect(awakeFeed().removeLocal({ value: '198.51.100.1' })).toEqual({ kind: 'engine', count: 1 });
    });
    await wake(both, async () => {
      b.expire(1);
      await sync();
      expect(Object.keys(shown())).toEqual(['192.0.2.1', '198.51.100.2']);
    });
  });
});

describe('a view', () => {
  test('chooses engines, and has what was decided here whichever it chooses', async () => {
    a.add({ value: '192.0.2.1', untilMs: until() });
    b.add({ value: '198.51.100.1', untilMs: until() });
    await wake(both, async () => {
      await sync();
      const local = { value: '203.0.113.1', scope: 'Ip', type: 'ban', scenario: 'test', untilMs: until() };
      awakeFeed().addLocal(local);
      const parisian = reader({ view: { ...everything, engines: ['paris'] } });
      const limited = reader({
        bouncerId: 2,
        view: { ...everything, limits: limitsOf({ engines: ['default'] }) },
      });
      for (const client of [parisian, limited]) await client.pull(true);
      expect(parisian.banned()).toEqual(['198.51.100.1', '203.0.113.1']);
      expect(limited.banned()).toEqual(['192.0.2.1', '203.0.113.1']);
      limited.limit(limitsOf({ engines: ['paris'] }));
      await limited.pull(false);
      expect(limited.banned()).toEqual(['198.51.100.1', '203.0.113.1']);
    });
  });

  test('of one engine ends what that engine ends, though another goes on', async () => {
    const here = a.add({ value: '192.0.2.1', untilMs: until() });
    b.add({ value: '192.0.2.1', untilMs: until() });
    await wake(both, async () => {
      await sync();
      const client = reader({ view: { ...everything, engines: ['default'] } });
      await client.pull(true);
      a.expire(here.id);
      await sync();
      await client.pull(false);
      expect(client.banned()).toEqual([]);
    });
  });
});

test('a bouncer’s report goes to the engines that it reads', async () => {
  await wake(both, async () => {
    await sync();
    const metrics = '{"meta":{"window_size_seconds":60,"utc_now_timestamp":1},"items":[]}';
    awakeFeed().takeReport({ bouncer: 'all', metrics }, null);
    await awakeFeed().alarm();
    await vi.waitFor(() => expect([a.metrics.length, b.metrics.length]).toEqual([1, 1]));
  });
  await wake(both, async () => {
    awakeFeed().takeReport({ bouncer: 'parisian', metrics: '{}' }, ['paris']);
    await awakeFeed().alarm();
    await vi.waitFor(() => expect(b.metrics.length).toBe(2));
    expect(a.metrics.length).toBe(1);
    expect(b.metrics.map(({ headers }) => headers.get('x-api-key'))).toEqual(['paris', 'paris']);
  });
});

test('storage of before there were several engines is read as that of `default`', async () => {
  const untilMs = until();
  const stub = env.DECISION_FEED.getByName('several');
  await runInDurableObject(stub, (_, { storage }) => {
    for (const table of ['feed', 'engines', 'decisions']) storage.sql.exec(`DROP TABLE ${table}`);
    storage.sql.exec(
      `CREATE TABLE feed (id INTEGER PRIMARY KEY CHECK (id = 0), version INTEGER NOT NULL, sequence INTEGER NOT NULL,
         purged_sequence INTEGER NOT NULL, highest_id INTEGER NOT NULL, next_local_id INTEGER NOT NULL,
         trusted_sequence INTEGER NOT NULL, trusted_highest_id INTEGER NOT NULL, last_sync_ms INTEGER NOT NULL,
         last_resync_ms INTEGER NOT NULL)`,
    );
    storage.sql.exec(`INSERT INTO feed VALUES (0, 1, 3, 0, 1, ?, 3, 1, 1, 1)`, firstLocalId + 2);
    storage.sql.exec(
      `CREATE TABLE decisions (row_id INTEGER PRIMARY KEY, id INTEGER NOT NULL, uuid TEXT, origin TEXT NOT NULL,
         scenario TEXT NOT NULL, scope TEXT NOT NULL, type TEXT NOT NULL, value TEXT NOT NULL,
         until_ms INTEGER NOT NULL, added_seq INTEGER NOT NULL, removed_seq INTEGER NOT NULL,
         removed_ms INTEGER NOT NULL)`,
    );
    // The engine's, one that was decided here, and one that a lost database left behind.
    for (const [rowId, id, origin, value] of [
      [1, 1, 'cscli', '192.0.2.1'],
      [2, firstLocalId, 'lapidary', '192.0.2.2'],
      [3, firstLocalId + 1, 'cscli', '192.0.2.3'],
    ] as const) {
      storage.sql.exec(
        `INSERT INTO decisions VALUES (?, ?, NULL, ?, 'test', 'Ip', 'ban', ?, ?, ?, 0, 0)`,
        ...[rowId, id, origin, value, untilMs, rowId],
      );
    }
  });
  a.add({ value: '192.0.2.1', untilMs });
  await wake(both, async () => {
    const expected = {
      '192.0.2.1': { id: 1, engine: 'default' },
      '192.0.2.2': { id: firstLocalId, engine: null },
      '192.0.2.3': { id: firstLocalId + 1, engine: 'default' },
    };
    expect(shown()).toEqual(expected);
    await sync();
    expect(shown()).toEqual(expected);
    a.expire(1);
    await sync();
    expect(Object.keys(shown())).toEqual(['192.0.2.2', '192.0.2.3']);
  });
});
