// Settings that change what engines there are, what they are called and where: nobody is unbanned by it, and whoever is
// known again goes on where it was.
import { runInDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { seal } from '../../src/crypto/seal.ts';
import { everything, limitsOf } from '../support/bouncer.ts';
import { startModelEngines, type ModelEngine } from '../support/model-engine.ts';
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
/** Where nobody is at first. */
let c: ModelEngine;

beforeEach(() => {
  const engines = startModelEngines('a.example', 'b.example', 'c.example');
  ({ 'a.example': a, 'b.example': b, 'c.example': c } = engines);
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
      expect(awakeFeed().removeLocal({ value: '198.51.100.1' })).toMatchObject({ removed: 1, leftAt: [] });
      await client.pull(false);
      expect(client.banned()).toEqual(['192.0.2.1', '198.51.100.2']);
    });
  });

  test('take an engine away and bring it back: its decisions are its own again, and end as it said meanwhile', async () => {
    const before = await wake(both, async () => {
      await sync();
      return shown();
    });
    await wake({ default: 'a.example' }, async () => void (await sync()));
    b.expire(1);
    await wake(both, async () => {
      expect(shown()).toEqual(before);
      for (let round = 0; round < 2; round++) await sync();
      expect(Object.keys(shown())).toEqual(['192.0.2.1', '198.51.100.2']);
    });
  });

  test('take the first engine away: the key that its host sent goes to no other', async () => {
    const secrets = { current: 'bootstrap-secret-of-the-tests-0123', previous: null };
    a.keys = ['key-of-the-host'];
    b.keys = ['paris'];
    await wake(both, async () => {
      await awakeFeed().offerEngineKey('web-1', await seal(secrets, 'web-1', 'key-of-the-host'));
      await sync();
      expect(engineStatus('default')).toMatchObject({ link: 'ok', key: 'host' });
    });
    await wake({ paris: 'b.example' }, async () => {
      vi.mocked(fetch).mockClear();
      for (let round = 0; round < 2; round++) await sync();
      const sent = vi.mocked(fetch).mock.calls.map(([, init]) => new Headers(init?.headers).get('x-api-key'));
      expect(new Set(sent)).toEqual(new Set(['paris']));
      expect(engineStatus('paris')).toMatchObject({ link: 'ok', key: 'setting', keyPending: false });
    });
  });

  test('give an engine another name: whoever chooses it by either name loses nothing, not while it is down either', async () => {
    const byRequest = (name: string) => reader({ view: { ...everything, engines: [name] } });
    const byPolicy = reader({
      bouncerId: 2,
      view: { ...everything, limits: limitsOf({ engines: ['paris'] }) },
    });
    await wake(both, async () => {
      await sync();
      await byPolicy.pull(true);
      await awakeFeed().alarm();
    });
    b.fault = down;
    await wake({ default: 'a.example', lyon: 'b.example' }, async () => {
      await sync();
      for (const name of ['lyon', 'paris']) {
        const client = byRequest(name);
        await client.pull(true);
        expect(client.banned()).toEqual(['198.51.100.1', '198.51.100.2']);
      }
      b.fault = undefined;
      b.expire(1);
      await sync();
      byPolicy.limit(limitsOf({ engines: ['lyon'] }));
      await byPolicy.pull(false);
      expect(byPolicy.banned()).toEqual(['198.51.100.2']);
    });
    // Back to a name that it had.
    await wake(both, async () => {
      const client = byRequest('paris');
      await client.pull(true);
      expect(client.banned()).toEqual(['198.51.100.2']);
    });
  });

  test('give one engine the name of another: each keeps its own decisions', async () => {
    await wake(both, async () => void (await sync()));
    a.fault = down;
    await wake({ default: 'b.example', old: 'a.example' }, async () => {
      b.expire(1);
      for (let round = 0; round < 4; round++) await sync();
      const engines = Object.entries(shown()).map(([value, { engine }]) => `${value} ${engine}`);
      expect(engines).toEqual(['192.0.2.1 old', '198.51.100.2 default']);
    });
  });

  test('give an engine another name, and its name to a new one: each has its own decisions under both names', async () => {
    await wake(both, async () => void (await sync()));
    c.add({ value: '203.0.113.1', untilMs: until() });
    await wake({ default: 'a.example', lyon: 'b.example', paris: 'c.example' }, async () => {
      await sync();
      for (const [name, banned] of [
        ['lyon', ['198.51.100.1', '198.51.100.2']],
        ['paris', ['203.0.113.1']],
      ] as const) {
        const client = reader({ view: { ...everything, engines: [name] } });
        await client.pull(true);
        expect(client.banned()).toEqual(banned);
      }
      expect(engineStatus('paris')?.decisions).toBe(1);
    });
  });

  test('give two engines each other’s names for a while: who reads by name misses nothing when they are back', async () => {
    const client = reader({ view: { ...everything, engines: ['paris'] } });
    const meanwhile = async (start: boolean) => {
      await sync();
      await client.pull(start);
      await awakeFeed().alarm();
    };
    await wake(both, () => meanwhile(true));
    await wake({ default: 'b.example', paris: 'a.example' }, () => meanwhile(true));
    expect(client.banned()).toEqual(['192.0.2.1']);
    await wake(both, () => meanwhile(false));
    expect(client.banned()).toEqual(expect.arrayContaining(['198.51.100.1', '198.51.100.2']));
  });

  test('give an engine the last name of one that is away: the list still tells them apart', async () => {
    await wake(both, async () => void (await sync()));
    c.add({ value: '203.0.113.1', untilMs: until() });
    await wake({ default: 'a.example', paris: 'c.example' }, async () => void (await sync()));
    await wake({ default: 'a.example', paris: 'b.example' }, async () => void (await sync()));
    await wake({ default: 'a.example', lyon: 'b.example' }, async () => void (await sync()));
    await wake({ default: 'a.example', lyon: 'b.example', paris: 'c.example' }, async () => {
      await sync();
      expect(shown()['203.0.113.1']?.engine).toBe('paris');
      expect(shown()['198.51.100.1']?.engine).toBe('lyon');
    });
  });

  test('give an engine the name that was the first of one which is away: the list still tells them apart', async () => {
    c.add({ value: '203.0.113.1', untilMs: until() });
    await wake(both, async () => void (await sync()));
    await wake({ default: 'b.example', paris: 'a.example' }, async () => void (await sync()));
    // The one at b.example has no name left that is not another's.
    await wake({ default: 'a.example', paris: 'c.example' }, async () => {
      await sync();
      expect(shown()['203.0.113.1']?.engine).toBe('paris');
      expect(shown()['198.51.100.1']?.engine).toBe('paris~1');
      expect(awakeFeed().leftBehind()).toMatchObject([{ engine: 'paris~1', decisions: 2 }]);
    });
  });

  test('remove an engine: forcing another one keeps its decisions, forcing all removes them', async () => {
    await wake(both, async () => void (await sync()));
    await wake({ default: 'a.example' }, async () => {
      await sync('default', { force: true });
      expect(listed()).toHaveLength(3);
      a.fault = down;
      await sync(undefined, { force: true });
      expect(listed()).toHaveLength(3);
      a.fault = undefined;
      expect(await sync(undefined, { force: true })).toMatchObject({ ok: true, removed: 2 });
      expect(Object.keys(shown())).toEqual(['192.0.2.1']);
    });
  });

  test('remove an engine: what it left behind proves nothing for another’s lost database', async () => {
    const pulled = { value: '203.0.113.1', origin: 'CAPI', scenario: 'crowdsecurity/ssh-bf' };
    for (const value of ['192.0.2.2', '192.0.2.3', '192.0.2.4']) a.add({ value, untilMs: until() });
    b.add({ ...pulled, untilMs: until() });
    await wake(both, async () => void (await sync()));
    await wake({ default: 'a.example' }, async () => {
      await sync();
      a.swap();
      a.add({ ...pulled, untilMs: until() + hour });
      for (let round = 0; round < 4; round++) await sync();
      expect(Object.keys(shown())).toEqual(
        expect.arrayContaining(['192.0.2.1', '192.0.2.2', '192.0.2.3', '192.0.2.4']),
      );
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
      expect(awakeFeed().removeLocal({ value: '198.51.100.1' })).toMatchObject({
        removed: 0,
        leftAt: ['paris'],
      });
    });
    await wake(both, async () => {
      b.expire(1);
      await sync();
      expect(Object.keys(shown())).toEqual(['192.0.2.1', '198.51.100.2']);
    });
  });
});

test('storage of a version that was never released is refused with one line', async () => {
  const setVersion = (version: number) =>
    runInDurableObject(env.DECISION_FEED.getByName('several'), (_, { storage }) => {
      storage.sql.exec('UPDATE feed SET version = ?', version);
    });
  await setVersion(2);
  await expect(wake(both, async () => {})).rejects.toThrow(/^the feed's storage has version 2: [^\n]+$/);
  await setVersion(4);
});
