// Each kind of appliance through each trouble that there is, at `npm start`. None of ours costs any of them its list; what an
// admin does costs it those that give up their list on it, and no other.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { kinds, startAppliance, type Appliance } from '../lab/appliances.ts';
import { startFront, type Front } from '../lab/front.ts';
import { startGated } from '../lab/gate.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { startListEngine, type ListEngine } from '../lab/list-engine.ts';
import { until } from '../lab/wait.ts';

const values = ['192.0.2.1', '198.51.100.0/24', '2001:db8::1'];
/** As each writes them. */
const banned: Readonly<Record<string, string[]>> = {
  ...Object.fromEntries(Object.keys(kinds).map((name) => [name, values])),
  sophos: ['192.0.2.1'],
  checkpoint: ['192.0.2.1', '198.51.100.0-198.51.100.255'],
};
const all = Object.keys(kinds);
/** Of which no page says what they do when they are blamed. */
const unknown = ['fortigate', 'cisco', 'pfsense', 'sophos', 'f5', 'checkpoint'];

type Devices = Readonly<Record<string, Appliance>>;

interface World {
  engine: ListEngine;
  lapidary: Lapidary;
  front: Front;
  keys: Readonly<Record<string, string>>;
  devices: Devices;
}

interface Trouble {
  readonly name: string;
  /** What each is told. */
  readonly status: number;
  /** Those that give up their list. */
  readonly costs: readonly string[];
  begin(world: World): unknown;
  end(world: World): unknown;
}

const ofAll = <T>(what: (name: string) => T): Record<string, T> =>
  Object.fromEntries(all.map((name) => [name, what(name)]));
const startAll = (url: string, keys: Readonly<Record<string, string>>): Devices =>
  ofAll((name) => startAppliance(url, kinds[name]!, keys[name]!));
const bansOf = (devices: Devices, nowMs?: number) => ofAll((name) => devices[name]!.bans(nowMs));
const toldOf = (devices: Devices) => ofAll((name) => devices[name]!.statuses.at(-1));
/** Who has an ETag is told that its list has not changed. */
const allTold = (status: number) => ofAll((name) => (status === 200 && name === 'fortigate' ? 304 : status));
const each = (count: (name: string) => unknown): Promise<unknown[]> => Promise.all(all.map(count));
const patch = ({ lapidary }: World, policy: object) =>
  each(async (name) => {
    const { status } = await lapidary.operator('PATCH', `/bouncers/${name}`, policy, { 'if-match': '*' });
    expect([name, status]).toEqual([name, 200]);
  });
const move = ({ devices }: World, base: string, path?: (name: string) => string) =>
  each((name) => devices[name]!.move(base, path?.(name)));
const home = (world: World) => move(world, world.lapidary.url, (name) => kinds[name]!.path);

const ours: readonly Trouble[] = [
  {
    name: 'an engine that is in trouble: the last good list',
    status: 200,
    costs: [],
    async begin({ engine, lapidary }) {
      engine.trouble = true;
      expect((await lapidary.sync({ full: true })).ok).toBe(false);
    },
    end: ({ engine }) => (engine.trouble = false),
  },
  {
    name: 'a server that is down: nobody takes the connection',
    status: 0,
    costs: [],
    begin: ({ lapidary }) => lapidary.stop(),
    end: ({ lapidary }) => lapidary.start(),
  },
  {
    name: 'a server that knows nothing yet, since its engine is in trouble, too',
    status: 503,
    costs: [],
    async begin({ engine, lapidary }) {
      engine.trouble = true;
      await lapidary.stop();
      await rm(join(lapidary.stateDir, 'feed'), { recursive: true });
      await lapidary.start();
    },
    async end({ engine, lapidary }) {
      engine.trouble = false;
      await until('the feed is whole', async () => (await lapidary.sync({ full: true })).ok);
    },
  },
  {
    name: 'an answer that is cut off',
    status: 0,
    costs: [],
    begin(world) {
      world.front.cut();
      return move(world, world.front.url);
    },
    end: home,
  },
  {
    name: 'a server that takes the question and says nothing',
    status: 0,
    costs: [],
    begin(world) {
      world.front.silence();
      return move(world, world.front.url);
    },
    end: home,
  },
];

const admins: readonly Trouble[] = [
  {
    name: 'a wrong password',
    status: 401,
    costs: ['paloalto', ...unknown],
    begin: ({ devices, keys }) => each((name) => devices[name]!.password(`${keys[name]}x`)),
    end: ({ devices, keys }) => each((name) => devices[name]!.password(keys[name]!)),
  },
  {
    name: 'a bouncer that is paused',
    status: 403,
    costs: ['paloalto', ...unknown],
    begin: (world) => patch(world, { paused: true }),
    end: (world) => patch(world, { paused: false }),
  },
  {
    name: 'an address that is not allowed',
    status: 403,
    costs: ['paloalto', ...unknown],
    begin: (world) => patch(world, { allowed_addresses: ['203.0.113.9'] }),
    end: (world) => patch(world, { allowed_addresses: null }),
  },
  {
    name: 'a list that there is not',
    status: 404,
    costs: unknown,
    begin: (world) => move(world, world.lapidary.url, () => '/lists/nothing'),
    end: home,
  },
  {
    name: 'a parameter that there is not',
    status: 400,
    costs: unknown,
    begin: (world) => move(world, world.lapidary.url, (name) => `${kinds[name]!.path}?colour=blue`),
    end: home,
  },
  {
    name: 'more requests than its rate',
    status: 429,
    costs: unknown,
    async begin(world) {
      await patch(world, { rate_limit: { per_minute: 10 } });
      const { lapidary, keys } = world;
      await each(async (name) => {
        await until(`${name} is over its rate`, async () => {
          const headers = { 'x-api-key': keys[name]! };
          return (await fetch(lapidary.url + kinds[name]!.path, { method: 'HEAD', headers })).status === 429;
        });
      });
    },
    end: (world) => patch(world, { rate_limit: null }),
  },
];

describe('each kind of appliance', () => {
  let world: World;
  beforeAll(async () => {
    const engine = await startListEngine(values.length, (at) => values[at]!);
    const upstream = { url: engine.url, key: 'key-of-the-feed' };
    const lapidary = await startLapidary({ upstream });
    const keys: Record<string, string> = {};
    for (const name of all) keys[name] = await lapidary.addBouncer(name);
    const front = await startFront(lapidary.url);
    world = { engine, lapidary, front, keys, devices: {} };
    await until('the feed is whole', async () => (await lapidary.feed()).decisions === values.length);
  });
  afterAll(async () => {
    await world?.front.close();
    await world?.lapidary.close();
    await world?.engine.close();
  });

  const bans = () => bansOf(world.devices);
  const refresh = () => each((name) => world.devices[name]!.refresh());

  test.each([...ours, ...admins])('$name', async ({ status, costs, begin, end }) => {
    world.devices = startAll(world.lapidary.url, world.keys);
    await refresh();
    expect(bans()).toEqual(banned);

    await begin(world);
    await refresh();
    expect(toldOf(world.devices)).toEqual(allTold(status));
    expect(bans()).toEqual({ ...banned, ...Object.fromEntries(costs.map((name) => [name, []])) });

    await end(world);
    await refresh();
    expect(bans()).toEqual(banned);
  });

  test('a day and more without an answer: Juniper’s hold-interval and the timeouts of RouterOS, and no other', async () => {
    const { lapidary, keys } = world;
    const devices = startAll(lapidary.url, keys);
    const startMs = Date.now();
    const bansAt = (nowMs: number) => bansOf(devices, nowMs);
    await each((name) => devices[name]!.refresh(startMs));
    const day = 86_400_000;
    const nobody = 'http://127.0.0.1:1';
    await each((name) => devices[name]!.move(nobody));
    await each((name) => devices[name]!.refresh(startMs + day - 1));
    expect(bansAt(startMs + day - 1)).toEqual(banned);
    expect(bansAt(startMs + day)).toEqual({ ...banned, juniper: [] });
    expect(bansAt(startMs + 5 * day)).toEqual({ ...banned, juniper: [], mikrotik: [] });
    await each((name) => devices[name]!.move(lapidary.url));
    await each((name) => devices[name]!.refresh(startMs + 5 * day));
    expect(bansAt(startMs + 5 * day)).toEqual(banned);
  });
});

test('while D1 is silent a key that nobody has seen yet costs no list, nor does one that is known', async () => {
  const lapidary = await startGated();
  try {
    for (const value of values) {
      const scope = value.includes('/') ? 'Range' : 'Ip';
      const { status } = await lapidary.operator('POST', '/decisions', { value, scope, duration: '4h' });
      expect(status).toBe(201);
    }
    const keys: Record<string, string> = {};
    for (const name of all) keys[name] = await lapidary.addBouncer(name);
    const devices = startAll(lapidary.url, keys);
    await each((name) => devices[name]!.refresh());
    for (const name of all) {
      keys[name] = (await lapidary.operator('POST', `/bouncers/${name}/rotate`, { grace: '1h' })).body.key;
    }
    // What was known was asked for anew after a change.
    await each((name) => devices[name]!.refresh());
    const now = () => [toldOf(devices), bansOf(devices)];
    await lapidary.silence();
    await each((name) => devices[name]!.refresh());
    expect(now()).toEqual([allTold(200), banned]);
    // Their admins type the new keys in just now.
    await each((name) => devices[name]!.password(keys[name]!));
    await each((name) => devices[name]!.refresh());
    expect(now()).toEqual([allTold(503), banned]);
    await lapidary.open();
    await each((name) => devices[name]!.refresh());
    expect(now()).toEqual([allTold(200), banned]);
  } finally {
    await lapidary.close();
  }
});
