// An engine's own allow-lists: what they have is withheld whoever bans it, and whatever goes wrong at the engine bans nobody.
import { beforeEach, expect, test, vi } from 'vitest';
import { startModelEngines, type ModelEngine } from '../support/model-engine.ts';
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

beforeEach(() => {
  ({ 'a.example': banning, 'b.example': engine } = startModelEngines('a.example', 'b.example'));
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
  await vi.waitUntil(() => engine.requests.slice(asked).some((path) => /allowlists|login/.test(path)));
  await scheduler.wait(20);
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
      ['192.0.2.1', { id: null, value: '192.0.2.1', engine: 'office', list: 'monitoring' }],
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
