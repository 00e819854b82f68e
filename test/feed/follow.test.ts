// Isolates that follow the real feed: how often they ask it, and what ends a cursor of theirs.
import { beforeEach, describe, expect, test, vi } from 'vitest';
import type { StreamAsk } from '../../src/feed/questions.ts';
import type { StreamAnswer } from '../../src/stream/poll.ts';
import { bouncer, everything, feed, limitsOf } from '../support/bouncer.ts';
import { letIsolatesFollow, throughIsolates } from '../support/following.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';

const hour = 3_600_000;
let engine: ModelEngine;
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'] });
  engine = startModelEngine();
});

const sync = () => feed().sync({ full: false, force: false });
const ban = async (value: string, origin = 'crowdsec') => {
  engine.add({ value, origin, untilMs: Date.now() + hour });
  await sync();
};

/** The feed, and how often each of its methods is called. */
function counted() {
  const calls: Record<string, number> = {};
  const get = (stub: Record<string, (...given: unknown[]) => unknown>, method: string) => {
    return (...given: unknown[]) => {
      calls[method] = (calls[method] ?? 0) + 1;
      return stub[method](...given);
    };
  };
  return { calls, feed: () => new Proxy(feed(), { get: get as never }) };
}

describe('an isolate', () => {
  test('asks the feed once for the polls of all its clients after a change', async () => {
    await ban('192.0.2.1');
    const { calls, feed: asked } = counted();
    const isolates = throughIsolates([0], asked);
    const limits = [null, limitsOf({ origins: ['crowdsec'] }), limitsOf({ scopes: ['Ip'] })];
    const clients = Array.from({ length: 30 }, (_, at) => {
      const view = { limits: limits[at % limits.length] };
      const client = bouncer({ bouncerId: at + 1, asks: () => isolates });
      client.limit(view.limits);
      return client;
    });
    for (const client of clients) await client.pull(true);
    expect(calls).toEqual({ stream: 30 });
    for (let change = 2; change < 6; change++) {
      await ban(`192.0.2.${change}`);
      vi.setSystemTime(Date.now() + 10_000);
      await Promise.all(clients.map((client) => client.pull(false)));
      for (const client of clients) expect(client.banned()).toHaveLength(change);
    }
    expect(calls).toEqual({ stream: 30, follow: 4 });
  });

  test('reports where its clients stand, so that another one goes on from there', async () => {
    await ban('192.0.2.1');
    // Client a is answered by one isolate, which then asks for client b; then a comes to another isolate.
    const isolates = throughIsolates([0, 0, 0, 0, 0, 1, 1]);
    const [a, b] = [1, 2].map((bouncerId) => bouncer({ bouncerId, asks: () => isolates }));
    for (const client of [a, b]) await client.pull(true);
    await ban('192.0.2.2');
    letIsolatesFollow();
    await a.pull(false);
    await a.pull(false);
    letIsolatesFollow();
    await b.pull(false);
    expect(await a.pull(false)).toEqual({ added: [], ended: [] });
    expect(await a.pull(false)).toEqual({ added: [], ended: [] });
  });

  test('asks once for many polls, too, where the object takes more than a second to answer', async () => {
    await ban('192.0.2.1');
    const { calls, feed: asked } = counted();
    const slow = (): object => {
      const get = (stub: Record<string, (...given: unknown[]) => unknown>, method: string) => {
        return async (...given: unknown[]) => {
          if (method !== 'follow') return stub[method](...given);
          const answer = await stub['follow'](...given);
          vi.setSystemTime(Date.now() + 1_300);
          return answer;
        };
      };
      return new Proxy(asked(), { get: get as never });
    };
    const isolates = throughIsolates([0], slow);
    const clients = Array.from({ length: 30 }, (_, at) =>
      bouncer({ bouncerId: at + 1, asks: () => isolates }),
    );
    for (const client of clients) await client.pull(true);
    await ban('192.0.2.2');
    letIsolatesFollow();
    await Promise.all(clients.map((client) => client.pull(false)));
    for (const client of clients) expect(client.banned()).toHaveLength(2);
    expect(calls['stream']).toBe(30);
    expect(calls['follow']).toBeLessThanOrEqual(2);
  });

  test('asks an object of the release before for each poll', async () => {
    await ban('192.0.2.1');
    vi.spyOn(console, 'error').mockReturnValue();
    const older = (): object => {
      const stream = async (asked: StreamAsk) => {
        const { kind, sequence, body, gzip } = (await feed().stream(asked)) as StreamAnswer;
        return { kind, sequence, body, gzip };
      };
      const follow = () => Promise.reject(new TypeError('no such method'));
      const get = (_: object, method: 'stream' | 'follow') => ({ stream, follow })[method];
      return new Proxy(feed(), { get: get as never });
    };
    const isolates = throughIsolates([0], older);
    const client = bouncer({ asks: () => isolates });
    await client.pull(true);
    await ban('192.0.2.2');
    expect((await client.pull(false)).added.map(({ value }) => value)).toEqual(['192.0.2.2']);
  });
});

describe('an isolate that is behind another one', () => {
  /** Client, and two isolates: the first one follows the feed just before the value is banned, the second just after. */
  async function between(route: readonly number[]) {
    await ban('192.0.2.1');
    await ban('192.0.2.9');
    const isolates = throughIsolates(route);
    return bouncer({ asks: () => isolates });
  }
  const unban = async () => {
    engine.expire(engine.active().find(({ value }) => value === '192.0.2.1')?.id ?? 0);
    await sync();
  };

  test('takes back for a moment only what the other one gave: the change is repeated until both have it', async () => {
    // P is isolate 0, Q isolate 1.
    const client = await between([0, 0, 1, 0, 1, 1, 0, 1, 1]);
    await client.pull(true);
    await client.pull(false);
    await client.pull(false);
    letIsolatesFollow();
    await unban();
    await client.pull(false);
    await ban('192.0.2.1');
    // Q sees the ban twice; P, which is still fresh, only the unban.
    await client.pull(false);
    await client.pull(false);
    await client.pull(false);
    letIsolatesFollow();
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.1', '192.0.2.9']);
  });
});

describe('a cursor of an isolate ends', () => {
  const only = limitsOf({ origins: ['cscli'] });

  test('when the limits of its client change: a way back begins anew', async () => {
    await ban('192.0.2.1');
    const isolates = throughIsolates([0]);
    const client = bouncer({ asks: () => isolates });
    await client.pull(true);
    client.limit(only);
    letIsolatesFollow();
    await client.pull(false);
    expect(client.banned()).toEqual([]);
    client.limit(null);
    letIsolatesFollow();
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.1']);
  });

  test('and what another isolate gave by the limits of before is taken back', async () => {
    await ban('192.0.2.1');
    const isolates = throughIsolates([0, 0, 1, 1, 0, 1, 1]);
    const client = bouncer({ asks: () => isolates });
    await client.pull(true);
    await ban('192.0.2.2');
    letIsolatesFollow();
    await client.pull(false);
    client.limit(only);
    await client.pull(false);
    await client.pull(false);
    expect(client.banned()).toEqual([]);
    // This isolate does not know yet, and has the change that it asked for a moment ago.
    client.limit(null);
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.2']);
    client.limit(only);
    await client.pull(false);
    letIsolatesFollow();
    await client.pull(false);
    expect(client.banned()).toEqual([]);
  });

  test('when a start-up is cut off: the next answer is the full state, whichever isolate gives it', async () => {
    const many = Array.from({ length: 3_000 }, (_, at) => `2001:db8::${(at + 1).toString(16)}`);
    for (const value of many) engine.add({ value, untilMs: Date.now() + hour });
    await sync();
    const before = throughIsolates([0, 0, 1, 0]);
    const client = bouncer({ asks: () => before });
    await client.pull(true);
    await client.pull(false);
    const started = await before.stream({
      poll: { bouncerId: 1, versionId: 1, address: '192.0.2.200', seenMs: Date.now(), userAgent: 'test/1' },
      view: everything,
      startup: true,
      gzip: false,
      sightings: [],
    });
    await (started?.body as ReadableStream).cancel();
    letIsolatesFollow();
    expect((await client.pull(false)).added).toHaveLength(many.length);
  });

  describe('when two programs with one key and address are cut off', () => {
    const add = async (from: number, count: number) => {
      for (let at = from; at < from + count; at++) {
        engine.add({ value: `2001:db8::${at.toString(16)}`, untilMs: Date.now() + hour });
      }
      await sync();
    };
    const ask = async (startup: boolean) => {
      const seenMs = Date.now();
      const poll = { bouncerId: 1, versionId: 1, address: '192.0.2.200', seenMs, userAgent: 'test/1' };
      const answer = await feed().stream({ poll, view: everything, startup, gzip: false, sightings: [] });
      return (answer as StreamAnswer).body as ReadableStream;
    };
    const read = async (body: ReadableStream) => {
      return ((await new Response(body).json()) as { new: unknown[] }).new.length;
    };
    beforeEach(async () => {
      await add(1, 3_000);
      expect(await read(await ask(true))).toBe(3_000);
      await add(3_001, 300);
    });

    test('the start-up first, then changes: the next answer is the full state', async () => {
      const changes = await ask(false);
      const started = await ask(true);
      await started.cancel();
      await changes.cancel();
      expect(await read(await ask(false))).toBe(3_300);
    });

    test('changes first, then the start-up: the next answer is the full state', async () => {
      expect(await read(await ask(false))).toBe(300);
      const again = await ask(false);
      const started = await ask(true);
      await again.cancel();
      await started.cancel();
      expect(await read(await ask(false))).toBe(3_300);
    });
  });
});
