// Several engines in one feed: each one changes only its own decisions, and a value is free when none bans it.
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { firstLocalId } from '../../src/formats/decision.ts';
import { everything, limitsOf } from '../support/bouncer.ts';
import { startModelEngines, type ModelEngine } from '../support/model-engine.ts';
import { waitFor } from '../support/patience.ts';
import {
  awakeFeed,
  both,
  down,
  engineStatus,
  hour,
  listed,
  reader,
  shown,
  sync,
  until,
  wake,
} from '../support/several.ts';

let a: ModelEngine;
let b: ModelEngine;

beforeEach(() => {
  ({ 'a.example': a, 'b.example': b } = startModelEngines('a.example', 'b.example'));
});

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
    ['is away', down],
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

  test('can be forced alone', async () => {
    await wake(both, async () => {
      await sync();
      a.rows.clear();
      b.rows.clear();
      await sync('paris', { force: true });
      expect(Object.keys(shown())).toEqual(['192.0.2.1', '192.0.2.2']);
    });
  });

  test('that lost its database keeps what it banned, though a machine deletes an alert there', async () => {
    await wake(both, async () => {
      await sync();
      b.swap();
      const drop = async (id: number) => {
        b.drop(id);
        await awakeFeed().syncAfter('paris', { effect: 'dropped', certain: true, tookMs: 10 });
      };
      const first = b.add({ value: '203.0.113.1', untilMs: until() });
      await awakeFeed().syncAfter('paris', { effect: 'added', certain: true, tookMs: 10 });
      await sync();
      const kept = ['192.0.2.1', '192.0.2.2', '198.51.100.1', '198.51.100.2'];
      expect(Object.keys(shown())).toEqual(expect.arrayContaining(kept));
      await drop(first.id);
      expect(Object.keys(shown())).toEqual(expect.arrayContaining(kept));
      // Long settled: then what the alert had brought is gone at once, however much of the new list that is.
      const second = b.add({ value: '203.0.113.2', untilMs: until() });
      b.add({ value: '203.0.113.3', untilMs: until() });
      for (let round = 0; round < 3; round++) await sync();
      await drop(second.id);
      expect(Object.keys(shown()).sort()).toEqual([...kept, '203.0.113.3']);
    });
  });

  test('that lost its database keeps it also where that deletion is the first that is heard of it', async () => {
    // No id that the new one gives is one that was seen, or beyond all of them.
    for (let n = 0; n < 100; n++) b.drop(b.add({ value: '203.0.113.9', untilMs: until() }).id);
    for (const value of ['198.51.100.3', '198.51.100.4']) b.add({ value, untilMs: until() });
    await wake(both, async () => {
      await sync();
      b.swap();
      for (let n = 0; n < 5; n++) b.drop(b.add({ value: '203.0.113.9', untilMs: until() }).id);
      b.add({ value: '203.0.113.1', untilMs: until() });
      await awakeFeed().syncAfter('paris', { effect: 'dropped', certain: true, tookMs: 10 });
      const kept = ['198.51.100.1', '198.51.100.2', '198.51.100.3', '198.51.100.4'];
      expect(Object.keys(shown())).toEqual(expect.arrayContaining(kept));
    });
  });

  test('whose list needs confirmation frees nothing by what would have replaced it', async () => {
    const list = { value: '203.0.113.1', origin: 'lists', scenario: 'tor' };
    b.add({ ...list, untilMs: until() });
    const later = b.add({ value: '203.0.113.2', untilMs: until() });
    await wake(both, async () => {
      const client = reader();
      await sync();
      await client.pull(true);
      b.swap();
      // Under an id that is another's here.
      b.addUnseen({ ...list, id: later.id, scenario: 'firehol', untilMs: until() });
      for (let round = 0; round < 3; round++) {
        await sync('paris');
        await client.pull(false);
        expect(client.banned()).toContain('203.0.113.1');
      }
    });
  });

  test('is in the log when something is wrong with it, when that changes, and when it is well again', async () => {
    const logged = vi.spyOn(console, 'error').mockReturnValue();
    const lines = () => logged.mock.calls.splice(0).map(([line]) => String(line));
    await wake(both, async () => {
      await sync();
      b.fault = down;
      for (let round = 0; round < 3; round++) await sync();
      expect(lines()).toEqual([expect.stringMatching(/^engine paris: .*out of reach/)]);
      b.fault = undefined;
      b.keys = [];
      for (let round = 0; round < 3; round++) await sync();
      expect(lines()).toEqual([
        expect.stringMatching(/^engine paris: .*the key of engine paris in UPSTREAMS/),
      ]);
      b.keys = null;
      for (let round = 0; round < 3; round++) await sync();
      expect(lines()).toEqual(['engine paris: it answers again']);
    });
  });

  test('that is silent keeps no alarm from the other', async () => {
    await wake(both, async () => {
      await sync();
      b.fault = () => new Promise<Response>(() => undefined);
      a.add({ value: '192.0.2.3', untilMs: until() });
      // Not waited for: it ends when the silent one is given up.
      void awakeFeed().alarm();
      await waitFor(() => expect(Object.keys(shown())).toContain('192.0.2.3'));
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
    await waitFor(() => expect([a.metrics.length, b.metrics.length]).toEqual([1, 1]));
  });
  await wake(both, async () => {
    awakeFeed().takeReport({ bouncer: 'parisian', metrics: '{}' }, ['paris']);
    await awakeFeed().alarm();
    await waitFor(() => expect(b.metrics.length).toBe(2));
    expect(a.metrics.length).toBe(1);
    expect(b.metrics.map(({ headers }) => headers.get('x-api-key'))).toEqual(['paris', 'paris']);
  });
});
