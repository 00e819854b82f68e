// Look-ups of addresses that nothing bans: an isolate answers them by itself, and never one of an address that is banned.
import { evictDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import fc from 'fast-check';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { createFeedClient } from '../../src/feed/client.ts';
import { createFollower } from '../../src/feed/follower.ts';
import { createUnbanned } from '../../src/feed/unbanned.ts';
import type { FollowAsk, ListAnswer } from '../../src/feed/questions.ts';
import { parseNetwork, type Network } from '../../src/formats/ip.ts';
import { createLookupFilter, extend, isWorn } from '../../src/mirror/lookup-filter.ts';
import { touchedSince } from '../../src/mirror/touched.ts';
import type { View } from '../../src/mirror/view.ts';
import { activeRows } from '../../src/stream/selection.ts';
import { everything, feed, limitsOf } from '../support/bouncer.ts';
import { startModelEngine, startModelEngines, type ModelEngine } from '../support/model-engine.ts';
import { decision, mirrorOf, network, step, take, type Spelled, type Step } from '../support/networks.ts';
import { waitUntil } from '../support/patience.ts';
import { awakeFeed, both, down, sync, wake } from '../support/several.ts';

const hour = 3_600_000;
const covering = (of: Network): View => ({ ...everything, within: { network: of, covering: true } });

/** The feed's object, as plain as a test needs it. `mostTouched`: changes in one answer. */
function startObject(decisions: readonly Spelled[], instance: string, mostTouched = 5) {
  const mirror = mirrorOf(decisions);
  let filter = createLookupFilter(0);
  return {
    instance,
    mirror,
    filtered() {
      if (isWorn(filter, mirror)) filter = createLookupFilter(0);
      while (!extend(filter, mirror, 3));
      return structuredClone({ instance, filter, isForAll: true });
    },
    follow({ since, mark }: Pick<FollowAsk, 'since' | 'mark'>) {
      const touched = mark?.instance === instance ? touchedSince(mirror, since, mostTouched) : null;
      const rest = {
        mark: { instance, count: 0 },
        forget: [],
        holds: new Map(),
        names: new Map(),
        settled: 0,
      };
      return structuredClone({ ...rest, sequence: mirror.sequence, touched });
    },
  };
}

type Moment = Step | 'follow' | 'fetch' | 'wake';

test('never for a banned address, however an isolate follows and fetches, and the object wakes', () => {
  const moment: fc.Arbitrary<Moment> = fc.oneof(
    { weight: 5, arbitrary: step },
    { weight: 2, arbitrary: fc.constant('follow' as const) },
    { weight: 1, arbitrary: fc.constant('fetch' as const) },
    { weight: 1, arbitrary: fc.constant('wake' as const) },
  );
  let answered = 0;
  fc.assert(
    fc.property(
      fc.array(decision, { maxLength: 5 }),
      fc.array(moment, { minLength: 10, maxLength: 50 }),
      fc.array(network, { minLength: 1, maxLength: 10 }),
      (before, moments, asked) => {
        let object = startObject(before, '0');
        const follower = createFollower();
        const unbanned = createUnbanned();
        for (const now of moments) {
          if (now === 'wake') object = startObject(before, `${object.instance}+`);
          else if (now === 'fetch') unbanned.take(object.filtered());
          else if (now !== 'follow') take(object.mirror, now);
          else {
            const asking = follower.ask(0);
            follower.take(asking, object.follow(asking.ask), true);
          }
          for (const of of asked) {
            const result = unbanned.look(of, follower.known(), now === 'follow', false);
            if (now !== 'follow') expect(result).not.toBe('unbanned');
            if (result !== 'unbanned') continue;
            answered++;
            expect(activeRows(object.mirror, covering(of))).toEqual([]);
          }
        }
      },
    ),
    { numRuns: 2_000 },
  );
  expect(answered).toBeGreaterThan(1_000);
});

test('not before it has put in all that it followed', () => {
  const object = startObject([], '0', 5_000);
  const follower = createFollower();
  const unbanned = createUnbanned();
  const follow = (): void => {
    const asking = follower.ask(0);
    follower.take(asking, object.follow(asking.ask), true);
  };
  follow();
  unbanned.take(object.filtered());
  const values = Array.from({ length: 2_500 }, (_, at) => `2001:db8::${(at + 1).toString(16)}`);
  for (const value of values) take(object.mirror, { add: { value, scope: 'Ip' } });
  follow();
  const last = parseNetwork(values.at(-1) as string) as Network;
  const other = parseNetwork('192.0.2.1') as Network;
  const looks = [last, last, other, last, other];
  expect(looks.map((of) => unbanned.look(of, follower.known(), true, false))).toEqual([
    'ask',
    'ask',
    'unbanned',
    'ask',
    'unbanned',
  ]);
});

test('not for a view of some upstreams, of which one may not be known', () => {
  const object = startObject([], '0');
  const follower = createFollower();
  const asking = follower.ask(0);
  follower.take(asking, object.follow(asking.ask), true);
  const network = parseNetwork('192.0.2.1') as Network;
  for (const isForAll of [false, true]) {
    const unbanned = createUnbanned();
    unbanned.take({ ...object.filtered(), isForAll });
    const look = (isOfSome: boolean) => unbanned.look(network, follower.known(), true, isOfSome);
    expect([look(false), look(true)]).toEqual(['unbanned', isForAll ? 'unbanned' : 'ask']);
  }
});

describe('an isolate before the feed', () => {
  let engine: ModelEngine;
  beforeEach(async () => {
    engine = startModelEngine();
    vi.useFakeTimers({ toFake: ['Date'] });
    engine.addUnseen({ value: '192.0.2.77/25', untilMs: Date.now() + hour });
    await feed().sync({ full: true, force: false });
  });

  type Isolate = ReturnType<typeof createFeedClient>;
  /** Where each question to the object fails. */
  const alone = {
    ...env,
    DECISION_FEED: {
      getByName() {
        throw new Error('the object was asked');
      },
    },
  } as unknown as Env;

  function lookUp(isolate: Isolate, view: View, at: Env = env): ListAnswer | Promise<ListAnswer> {
    const poll = {
      bouncerId: 1,
      versionId: 1,
      address: '192.0.2.200',
      seenMs: Date.now(),
      userAgent: 'test/1',
    };
    const page = { limit: null, offset: 0, idGreaterThan: 0 };
    return isolate.list(at, poll, { view, ...page }, () => undefined);
  }
  const of = (text: string): View => covering(parseNetwork(text) as Network);
  const found = async (isolate: Isolate, text: string): Promise<string[]> => {
    const answer = await lookUp(isolate, of(text));
    if (answer.kind !== 'short') throw new Error(answer.kind);
    return answer.decisions.map(({ value }) => value);
  };
  /** One that has the filter. */
  const started = async (): Promise<Isolate> => {
    const isolate = createFeedClient();
    await waitUntil(async () => {
      await lookUp(isolate, of('198.51.100.1'));
      return !(lookUp(isolate, of('198.51.100.2')) instanceof Promise);
    });
    return isolate;
  };

  test('answers for what nothing bans, under each view, and asks about all else', async () => {
    const isolate = await started();
    const none = { kind: 'short', decisions: [] };
    const views = [
      of('198.51.100.1'),
      of('::ffff:198.51.100.1'),
      of('192.0.2.0/24'),
      of('2001:db8::1'),
      { ...of('192.0.2.128'), type: 'ban', limits: limitsOf({ origins: ['cscli'] }) },
    ];
    for (const view of views) expect(lookUp(isolate, view, alone)).toMatchObject(none);
    const others = [
      of('192.0.2.1'),
      of('192.0.2.0/26'),
      of('::ffff:c000:201'),
      {
        ...of('198.51.100.1'),
        within: { network: parseNetwork('198.51.100.1') as Network, covering: false },
      },
      { ...everything, value: '198.51.100.1' },
      everything,
    ];
    for (const view of others) await expect(lookUp(isolate, view, alone)).rejects.toThrow('was asked');
    expect(await found(isolate, '192.0.2.1')).toEqual(['192.0.2.77/25']);
  });

  test('finds a ban of another isolate after a second, and its own at once', async () => {
    const isolate = await started();
    const ban = (value: string) =>
      feed().addLocal({ scenario: 'test', scope: 'Ip', type: 'ban', value, untilMs: Date.now() + hour });
    await ban('2001:DB8::1');
    vi.setSystemTime(Date.now() + 1_001);
    expect(await found(isolate, '2001:db8::1')).toEqual(['2001:DB8::1']);
    await ban('198.51.100.9');
    isolate.forgetLatest(Date.now());
    expect(await found(isolate, '198.51.100.9')).toEqual(['198.51.100.9']);
    expect(await found(isolate, '198.51.100.8')).toEqual([]);
  });

  test('finds what was banned while the object slept and this isolate did not follow', async () => {
    const isolate = await started();
    await evictDurableObject(feed());
    engine.addUnseen({ value: '198.51.100.0/24', untilMs: Date.now() + hour });
    await feed().sync({ full: true, force: false });
    vi.setSystemTime(Date.now() + 1_001);
    expect(await found(isolate, '198.51.100.1')).toEqual(['198.51.100.0/24']);
  });

  test('reports the look-ups that it answered', async () => {
    const isolate = await started();
    vi.setSystemTime(Date.now() + 500);
    expect(lookUp(isolate, of('198.51.100.1'))).not.toBeInstanceOf(Promise);
    await found(isolate, '192.0.2.1');
    const [[seen]] = await feed().clientsOf([1]);
    expect(seen).toMatchObject({ seenMs: Date.now() });
  });
});

test('there is no filter before the list of every engine is known', async () => {
  const { 'a.example': a, 'b.example': b } = startModelEngines('a.example', 'b.example');
  a.addUnseen({ value: '192.0.2.1', untilMs: Date.now() + hour });
  b.fault = down;
  await wake(both, async () => {
    expect(await awakeFeed().lookupFilter()).toBeNull();
    await sync();
    expect(await awakeFeed().lookupFilter()).toBeNull();
    b.fault = undefined;
    await sync();
    expect(await awakeFeed().lookupFilter()).toMatchObject({ filter: { rows: 1 } });
  });
});
