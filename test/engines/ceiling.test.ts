// A feed that is full, in workerd: what ends soonest of community lists stays out, and is said to; nobody's own ban does.
import { runInDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { DecisionFeed } from '../../src/feed/object.ts';
import { bouncer } from '../support/bouncer.ts';
import { startModelEngine, startModelEngines, type ModelEngine } from '../support/model-engine.ts';
import { communityList, startModelHosted } from '../support/model-hosted.ts';
import { addresses, startModelList } from '../support/model-list.ts';

const hour = 3_600_000;
let engine: ModelEngine;

beforeEach(() => {
  engine = startModelEngine();
});

afterEach(() => {
  vi.useRealTimers();
});

/** A feed that holds four decisions. */
function withRoomForFour(use: (feed: DecisionFeed) => Promise<void>): Promise<void> {
  return runInDurableObject(env.DECISION_FEED.getByName('full'), (_, state) =>
    use(new DecisionFeed(state, { ...env, MAX_DECISIONS: '4' } as Env)),
  );
}

const listed = (value: string, hours: number) =>
  engine.add({ value, origin: 'CAPI', untilMs: Date.now() + hours * hour });
const own = (value: string) => engine.add({ value, untilMs: Date.now() + hour });

test('holds those of a list that last longest, and says how many it left out', () =>
  withRoomForFour(async (feed) => {
    for (const host of [1, 2, 3, 4, 5, 6]) listed(`192.0.2.${host}`, host + 1);
    const client = bouncer({ asks: () => feed });
    await client.pull(true);
    expect(client.banned()).toEqual(['192.0.2.3', '192.0.2.4', '192.0.2.5', '192.0.2.6']);
    expect(feed.status().engines).toMatchObject([{ leftOut: 2, decisions: 4 }]);
    // The same list again changes nothing.
    const { sequence } = feed.status();
    await feed.sync({ full: true, force: false });
    expect(feed.status()).toMatchObject({ sequence, engines: [{ leftOut: 2 }] });
  }));

test('of a list that is many times as long too, also when each pull gives all of it new ids', () =>
  withRoomForFour(async (feed) => {
    const client = bouncer({ asks: () => feed });
    const longest = [97, 98, 99, 100].map((host) => `192.0.2.${host}`);
    for (let pull = 0; pull < 3; pull++) {
      engine.rows.clear();
      // Each is later than the one before it, and in the order of none.
      for (let at = 1; at <= 100; at++) {
        const host = 1 + ((at * 37) % 100);
        listed(`192.0.2.${host}`, host + 1 + pull);
      }
      await feed.sync({ full: true, force: false });
      await client.pull(pull === 0);
      expect(client.banned()).toEqual(longest.toSorted());
      expect(feed.status().engines).toMatchObject([{ leftOut: 96, decisions: 4, lastError: null }]);
    }
    own('198.51.100.1');
    await feed.sync({ full: true, force: false });
    await client.pull(false);
    expect(client.banned()).toEqual([...longest.slice(1), '198.51.100.1'].toSorted());
  }));

test('what is left out is not asked for again with each sync', () =>
  withRoomForFour(async (feed) => {
    for (const host of [1, 2, 3, 4, 5, 6]) listed(`192.0.2.${host}`, 10 - host);
    await feed.sync({ full: true, force: false });
    engine.requests.length = 0;
    await feed.sync({ full: false, force: false });
    expect(engine.requests.filter((target) => target.includes('id_gt'))).toEqual(['/v1/decisions?id_gt=6']);
  }));

test('an engine’s own bans come in all the same, in the place of listed ones that are unbanned', () =>
  withRoomForFour(async (feed) => {
    for (const host of [1, 2, 3, 4]) listed(`192.0.2.${host}`, host + 1);
    const client = bouncer({ asks: () => feed });
    await client.pull(true);
    own('198.51.100.1');
    own('198.51.100.2');
    await feed.sync({ full: false, force: false });
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.3', '192.0.2.4', '198.51.100.1', '198.51.100.2']);
    for (const host of [3, 4, 5]) own(`198.51.100.${host}`);
    await feed.sync({ full: false, force: false });
    await client.pull(false);
    expect(client.banned()).toHaveLength(5);
    expect(client.banned().every((value) => value.startsWith('198.51.100.'))).toBe(true);
  }));

test('what was left out comes in when there is room again', () =>
  withRoomForFour(async (feed) => {
    const rows = [1, 2, 3, 4, 5].map((host) => listed(`192.0.2.${host}`, host + 1));
    const client = bouncer({ asks: () => feed });
    await client.pull(true);
    engine.drop(rows[4]!.id);
    await feed.sync({ full: true, force: false });
    await feed.sync({ full: true, force: false });
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.1', '192.0.2.2', '192.0.2.3', '192.0.2.4']);
    expect(feed.status().engines).toMatchObject([{ leftOut: 0 }]);
  }));

test('leaves out public lists before what an engine has of community lists, whichever comes first', () => {
  const { 'a.example': paris } = startModelEngines('a.example');
  startModelList('lists.example', addresses(3).join('\n'));
  const drop = { kind: 'list', name: 'drop', url: 'https://lists.example/drop', allow_reserved: true };
  const settings = {
    MAX_DECISIONS: '4',
    UPSTREAM_URL: 'http://a.example',
    UPSTREAMS: JSON.stringify([drop]),
  };
  return runInDurableObject(env.DECISION_FEED.getByName('full'), async (_, state) => {
    const feed = new DecisionFeed(state, { ...env, ...settings } as Env);
    const client = bouncer({ asks: () => feed });
    const add = (host: number) =>
      paris.add({ value: `192.0.2.${host}`, origin: 'CAPI', untilMs: Date.now() + hour });
    await feed.sync({ engine: 'drop', full: true, force: false });
    for (const host of [1, 2]) add(host);
    await feed.sync({ engine: 'default', full: true, force: false });
    await client.pull(true);
    expect(client.banned().filter((value) => value.startsWith('192.'))).toEqual(['192.0.2.1', '192.0.2.2']);
    expect(client.banned()).toHaveLength(4);
    for (const host of [3, 4, 5]) add(host);
    await feed.sync({ engine: 'default', full: true, force: false });
    await client.pull(false);
    expect(client.banned().filter((value) => !value.startsWith('192.'))).toEqual([]);
    expect(client.banned()).toHaveLength(4);
    paris.add({ value: '192.0.2.9', untilMs: Date.now() + hour });
    await feed.sync({ engine: 'default', full: true, force: false });
    await client.pull(false);
    expect(client.banned()).toContain('192.0.2.9');
    expect(client.banned()).toHaveLength(4);
  });
});

test('public lists for which there is no room change nothing with each pull, and push no other list out', () => {
  const { 'a.example': paris } = startModelEngines('a.example');
  startModelList('drop.example', addresses(6).slice(0, 3).join('\n'));
  startModelList('edge.example', addresses(6).slice(3).join('\n'));
  const entry = (name: string) => ({
    kind: 'list',
    name,
    url: `https://${name}.example/list`,
    allow_reserved: true,
  });
  const settings = {
    MAX_DECISIONS: '4',
    UPSTREAM_URL: 'http://a.example',
    UPSTREAMS: JSON.stringify([entry('drop'), entry('edge')]),
  };
  vi.useFakeTimers({ toFake: ['Date'] });
  return runInDurableObject(env.DECISION_FEED.getByName('full'), async (_, state) => {
    const feed = new DecisionFeed(state, { ...env, ...settings } as Env);
    const client = bouncer({ asks: () => feed });
    const pull = async () => {
      vi.setSystemTime(Date.now() + 2 * hour);
      for (const name of ['drop', 'edge']) await feed.sync({ engine: name, full: true, force: false });
    };
    await feed.sync({ engine: 'default', full: true, force: false });
    await pull();
    await client.pull(true);
    const banned = client.banned();
    expect(banned).toEqual(addresses(4));
    const { sequence } = feed.status();
    for (let pulls = 0; pulls < 3; pulls++) await pull();
    expect(feed.status()).toMatchObject({ sequence, engines: [{}, { leftOut: 0 }, { leftOut: 2 }] });
    // For two days and more, in which all of them are renewed.
    for (let pulls = 0; pulls < 30; pulls++) await pull();
    await client.pull(false);
    expect(client.banned()).toEqual(banned);
    paris.add({ value: '192.0.2.9', untilMs: Date.now() + hour });
    await feed.sync({ engine: 'default', full: true, force: false });
    await client.pull(false);
    expect(client.banned()).toContain('192.0.2.9');
    expect(client.banned()).toHaveLength(4);
  });
});

test('a hosted integration that gives more than twice what there is room for is read no further', () => {
  startModelEngines('a.example');
  const hosted = startModelHosted('hosted.example', 'hidden-key');
  hosted.planMs = 0;
  const cloud = { kind: 'hosted', name: 'cloud', url: 'https://hosted.example/v1/i/1', key: 'hidden-key' };
  const settings = { MAX_DECISIONS: '4', UPSTREAM_URL: '', UPSTREAMS: JSON.stringify([cloud]) };
  vi.useFakeTimers({ toFake: ['Date'] });
  return runInDurableObject(env.DECISION_FEED.getByName('full'), async (_, state) => {
    const feed = new DecisionFeed(state, { ...env, ...settings } as Env);
    const client = bouncer({ asks: () => feed });
    const pull = () => {
      vi.setSystemTime(Date.now() + 25 * hour);
      return feed.sync({ full: false, force: false });
    };
    // What it gives twice counts once.
    hosted.decisions = [...communityList(8), ...communityList(8)];
    expect(await pull()).toMatchObject({ ok: true });
    await client.pull(true);
    const banned = client.banned();
    expect(banned).toHaveLength(4);
    let cancelled = false;
    let sent = 0;
    for (const duration of ['72h0m0s', '-900000h']) {
      sent = 0;
      cancelled = false;
      hosted.fault = () => {
        // It never ends by itself; the test does, if nobody stops it.
        const body = new ReadableStream({
          type: 'bytes',
          pull(controller) {
            const [each] = communityList(1, { value: `203.0.113.${sent}`, duration });
            const text = `${sent === 0 ? '{"new":[' : ','}${JSON.stringify(each)}`;
            controller.enqueue(new TextEncoder().encode(text));
            if (++sent === 250) controller.error(new Error('too much was read'));
          },
          cancel() {
            cancelled = true;
          },
        });
        return new Response(body);
      };
      const { ok, error } = await pull();
      expect([ok, error]).toEqual([false, expect.stringContaining('more than 8 decisions')]);
      expect(cancelled).toBe(true);
    }
    await client.pull(false);
    expect(client.banned()).toEqual(banned);
  });
});
