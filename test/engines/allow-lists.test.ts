// An engine's own allow-lists: what they have is withheld whoever bans it, and whatever goes wrong at the engine bans nobody.
import { beforeEach, expect, test, vi } from 'vitest';
import { entriesIn } from '../../src/engines/allow-lists.ts';
import { startModelEngines, type ModelEngine } from '../support/model-engine.ts';
import { waitUntil } from '../support/patience.ts';
import { awakeFeed, down, engineStatus, listed, reader, sync, until, wake } from '../support/several.ts';

const minute = 60_000;
const office = {
  name: 'office',
  url: 'http://b.example',
  key: 'k',
  allowlists: { machine: 'lapidary', password: 'pass' },
};
let banning: ModelEngine;
let engine: ModelEngine;
let third: ModelEngine;

beforeEach(() => {
  ({
    'a.example': banning,
    'b.example': engine,
    'c.example': third,
  } = startModelEngines('a.example', 'b.example', 'c.example'));
  vi.useFakeTimers({ toFake: ['Date'] });
  banning.add({ value: '192.0.2.1', origin: 'CAPI', untilMs: until() });
  banning.add({ value: '192.0.2.2', untilMs: until() });
  engine.allowLists = [{ name: 'monitoring', items: [{ value: '192.0.2.1', description: 'probe' }] }];
});

const alone = <T>(use: () => Promise<T>, entry: object = office) =>
  wake({ default: 'a.example' }, use, [entry]);
const status = () => engineStatus('office')?.allowLists;
const reads = () => engine.requests.filter((path) => path.startsWith('/v1/allowlists')).length;

/** A round a minute later, and what it read. */
async function round(): Promise<void> {
  vi.setSystemTime(Date.now() + minute);
  const asked = engine.requests.length;
  await awakeFeed().alarm();
  await waitUntil(() => engine.requests.slice(asked).some((path) => /allowlists|login/.test(path)));
  await waitUntil(() =>
    awakeFeed()
      .status()
      .engines.every((each) => !each.allowLists?.isReading),
  );
}

/** All decisions on both engines, as a new bouncer gets them. */
async function served(): Promise<string[]> {
  await sync('default', { full: true });
  const client = reader();
  await client.pull(true);
  return client.decisions().map(({ value }) => value);
}

test('withholds what another engine bans, says by which list, and gives it back when the engine does', () =>
  alone(async () => {
    const lists = engine.allowLists;
    engine.allowLists = [];
    await sync('default', { full: true });
    const client = reader();
    await client.pull(true);
    expect(client.decisions()).toHaveLength(2);
    engine.allowLists = lists;
    await round();
    expect(status()).toMatchObject({ state: 'ok', entries: 1, skipped: 0, error: null });
    expect((await client.pull(false)).ended.map(({ value }) => value)).toEqual(['192.0.2.1']);
    expect(listed().map(({ value, withheldBy }) => [value, withheldBy])).toEqual([
      ['192.0.2.1', { id: null, value: '192.0.2.1', engine: 'office', list: 'monitoring', bouncers: null }],
      ['192.0.2.2', null],
    ]);
    engine.allowLists = [{ name: 'monitoring', items: null }];
    await round();
    expect((await client.pull(false)).added.map(({ value }) => value)).toEqual(['192.0.2.1']);
  }));

test('is read once a minute, with one log-in for as long as the engine takes its token', () =>
  alone(async () => {
    await round();
    const before = reads();
    await awakeFeed().alarm();
    await awakeFeed().alarm();
    expect(reads()).toBe(before);
    await round();
    expect(engine.requests.filter((path) => path === '/v1/watchers/login')).toHaveLength(1);
    engine.tokens.clear();
    await round();
    expect(status()).toMatchObject({ state: 'ok', entries: 1 });
    expect(engine.requests.filter((path) => path === '/v1/watchers/login')).toHaveLength(2);
  }));

test.each<[string, () => void]>([
  ['is down', () => (engine.fault = down)],
  ['answers with an error', () => (engine.fault = () => new Response('{}', { status: 500 }))],
  ['has lost the route', () => (engine.allowLists = null)],
  [
    'answers with a page',
    () => (engine.fault = () => new Response('<p>', { headers: { 'content-type': 'text/html' } })),
  ],
  ['answers with something else', () => (engine.allowLists = { message: 'x' } as never)],
  ['refuses the password', () => (engine.tokens.clear(), (engine.machinePassword = 'other'))],
])('holds where the engine %s, and after a restart', async (_, fail) => {
  vi.spyOn(console, 'error').mockReturnValue();
  await alone(async () => {
    await round();
    fail();
    await round();
    expect(status()).toMatchObject({
      state: 'failing',
      entries: 1,
      error: expect.stringContaining('engine'),
    });
    expect(JSON.stringify(status())).not.toMatch(/pass|other|jwt/);
    expect(await served()).toEqual(['192.0.2.2']);
  });
  await alone(async () => expect(await served()).toEqual(['192.0.2.2']));
});

test('goes with the setting', async () => {
  await alone(round);
  await alone(async () => expect(await served()).toEqual(['192.0.2.1', '192.0.2.2']), {
    ...office,
    allowlists: null,
  });
});

test('of the engine of UPSTREAM_URL are read with the account of a setting of its own', () => {
  banning.allowLists = engine.allowLists;
  return wake(
    { default: 'a.example' },
    async () => {
      await awakeFeed().alarm();
      await waitUntil(() => engineStatus('default')?.allowLists?.state === 'ok');
      expect(await served()).toEqual(['192.0.2.2']);
    },
    [],
    { UPSTREAM_ALLOWLISTS: JSON.stringify(office.allowlists) },
  );
});

test('of an engine that has none is none', () =>
  alone(async () => {
    engine.allowLists = null;
    await round();
    expect(status()).toMatchObject({ state: 'none', entries: 0, error: null });
  }));

test('has entries that end by themselves; one that is unreadable or too wide costs itself alone', () =>
  alone(async () => {
    const inAnHour = new Date(Date.now() + 60 * minute).toISOString();
    engine.allowLists = [
      {
        name: 'a',
        items: [
          { value: '192.0.2.1', expiration: '0001-01-01T00:00:00.000Z' },
          { value: '192.0.2.2', expiration: inAnHour },
          { value: 'nowhere' },
          { value: '0.0.0.0/0' },
          { value: '192.0.2.9', expiration: 'soon' },
        ],
      },
    ];
    banning.add({ value: '192.0.2.2', scenario: 'long', untilMs: until() + 60 * minute });
    await round();
    expect(status()).toMatchObject({ state: 'ok', entries: 2, skipped: 3 });
    expect(await served()).toEqual([]);
    engine.fault = down;
    vi.spyOn(console, 'error').mockReturnValue();
    vi.setSystemTime(Date.now() + 60 * minute);
    expect(await served()).toEqual(['192.0.2.2']);
  }));

test('of two entries of one value the one that lasts longer holds, in either order', () => {
  const soon = { value: '192.0.2.1', expiration: new Date(Date.now() + minute).toISOString() };
  const later = { value: '192.0.2.1/32', expiration: new Date(Date.now() + 60 * minute).toISOString() };
  const endless = { value: '192.0.2.1' };
  const endOf = (...items: object[]) =>
    entriesIn(JSON.stringify([{ name: 'a', items }])).entries.map(({ expiresMs }) => expiresMs);
  expect(endOf(soon, later)).toEqual([Date.parse(later.expiration)]);
  expect(endOf(later, soon)).toEqual([Date.parse(later.expiration)]);
  expect(endOf(endless, later)).toEqual([null]);
  expect(endOf(later, endless)).toEqual([null]);
});

test('many wide entries can not let everybody in: the last ones hold', () =>
  alone(async () => {
    await round();
    vi.spyOn(console, 'error').mockReturnValue();
    const eights = Array.from({ length: 256 }, (_, at) => ({ value: `${at}.0.0.0/8` }));
    engine.allowLists = [{ name: 'a', items: eights }];
    await round();
    expect(status()).toMatchObject({ state: 'failing', entries: 1 });
    expect(status()?.error).toMatch(/more than a \/8 together/);
    expect(await served()).toEqual(['192.0.2.2']);
  }));

test('what is wide is counted by its addresses: private networks, and entries in others, are free', () => {
  const read = (...values: string[]) =>
    entriesIn(JSON.stringify([{ name: 'a', items: values.map((value) => ({ value })) }])).entries.length;
  expect(read('10.0.0.0/8', '10.1.0.0/16', '172.16.0.0/12', '192.168.0.0/16', '45.0.0.0/8', '45.1.2.3')).toBe(
    6,
  );
  expect(() => read('45.0.0.0/8', '46.0.0.1')).toThrow('a /8 together');
  expect(read('2600::/32', '2600::1')).toBe(2);
  expect(() => read('2600::/32', '2601::1')).toThrow('a /32 together');
});

test('engines have 10,000 entries together', () =>
  wake(
    { default: 'a.example' },
    async () => {
      vi.spyOn(console, 'error').mockReturnValue();
      const some = (count: number, start: number) => [
        {
          name: 'a',
          items: Array.from({ length: count }, (_, at) => ({
            value: `198.${start + (at >> 16)}.${(at >> 8) & 255}.${at & 255}`,
          })),
        },
      ];
      engine.allowLists = some(6_000, 18);
      third.allowLists = some(6_000, 19);
      await round();
      const both = () => [status(), engineStatus('second')?.allowLists];
      await waitUntil(() => both().every((each) => each?.readMs || each?.error));
      expect(
        both()
          .map((each) => each?.entries)
          .sort(),
      ).toEqual([0, 6_000]);
      expect(both().find((each) => each?.state === 'failing')?.error).toMatch(/10000/);
    },
    [office, { ...office, name: 'second', url: 'http://c.example' }],
  ));
