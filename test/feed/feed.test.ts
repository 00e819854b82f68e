// The feed in workerd, with a real Durable Object: what a bouncer reads when an engine changes, fails or lies.
import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from 'cloudflare:test';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { bouncer, everything, feed } from '../support/bouncer.ts';
import { waitUntil } from '../support/patience.ts';

const hour = 3_600_000;
let engine: ModelEngine;

beforeEach(() => {
  engine = startModelEngine();
});

describe('a cold feed', () => {
  test('answers its first caller from its first sync', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    const { added } = await bouncer().pull(true);
    expect(added.map(({ value }) => value)).toEqual(['192.0.2.1']);
  });

  test('asks for one address first, so that the engine does not read every expired row it keeps', async () => {
    await bouncer().pull(true);
    expect(engine.requests[0]).toBe('/v1/decisions?ip=192.0.2.1');
    expect(engine.requests).toContain('/v1/decisions/stream?dedup=false&scopes=ip%2Crange%2Ccountry%2Cas');
  });
});

describe.each(['A', 'B', 'C'] as const)('an engine of dialect %s', (dialect) => {
  test('is mirrored: additions, ends, and nothing twice', async () => {
    engine.dialect = dialect;
    const first = engine.add({ value: '192.0.2.1', untilMs: Date.now() + 2 * hour });
    const client = bouncer();
    await client.pull(true);
    engine.add({ value: '2001:db8::/48', untilMs: Date.now() + hour });
    engine.expire(first.id);
    await feed().sync({ full: false, force: false });
    await client.pull(false);
    expect(client.banned()).toEqual(['2001:db8::/48']);
    const { sequence } = await feed().status();
    await feed().sync({ full: true, force: false });
    expect((await feed().status()).sequence).toBe(sequence);
  });
});

describe('every change goes out in two successive answers', () => {
  test('also the full state, for a bouncer that never asks for it', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    await feed().sync({ full: true, force: false });
    const client = bouncer();
    const counts = [];
    for (let poll = 0; poll < 4; poll++) counts.push((await client.pull(false)).added.length);
    expect(counts).toEqual([1, 1, 0, 0]);
  });

  test('so one lost answer loses nothing, and a third is quiet', async () => {
    const client = bouncer();
    await client.pull(true);
    engine.add({ value: '192.0.2.7', untilMs: Date.now() + hour });
    await feed().sync({ full: false, force: false });
    await client.pullAndLose();
    expect((await client.pull(false)).added).toHaveLength(1);
    expect(await client.pull(false)).toEqual({ added: [], ended: [] });
  });

  test('also over an eviction of the object between any two of them', async () => {
    const client = bouncer();
    await client.pull(true);
    engine.add({ value: '192.0.2.7', untilMs: Date.now() + hour });
    await feed().sync({ full: false, force: false });
    await evictDurableObject(feed());
    await client.pullAndLose();
    await evictDurableObject(feed());
    expect((await client.pull(false)).added.length).toBeGreaterThan(0);
    expect(client.banned()).toEqual(['192.0.2.7']);
  });

  test('a cursor that was written survives: no full state after a restart', async () => {
    const client = bouncer();
    engine.add({ value: '192.0.2.7', untilMs: Date.now() + hour });
    await client.pull(true);
    await runDurableObjectAlarm(feed());
    await evictDurableObject(feed());
    expect(await client.pull(false)).toEqual({ added: [], ended: [] });
  });

  test('two addresses that share a key each see everything', async () => {
    const [left, right] = [bouncer({ address: '192.0.2.10' }), bouncer({ address: '192.0.2.11' })];
    await left.pull(true);
    await right.pull(true);
    engine.add({ value: '198.51.100.1', untilMs: Date.now() + hour });
    await feed().sync({ full: false, force: false });
    for (const client of [left, right]) await client.pull(false);
    expect(left.banned()).toEqual(['198.51.100.1']);
    expect(right.banned()).toEqual(['198.51.100.1']);
  });

  test('two programs with other views behind one key and address do not steal from each other', async () => {
    const bans = bouncer({ view: { ...everything, type: 'ban' } });
    const captchas = bouncer({ view: { ...everything, type: 'captcha' } });
    await bans.pull(true);
    await captchas.pull(true);
    engine.add({ value: '198.51.100.1', type: 'captcha', untilMs: Date.now() + hour });
    engine.add({ value: '198.51.100.2', untilMs: Date.now() + hour });
    await feed().sync({ full: false, force: false });
    await bans.pull(false);
    await captchas.pull(false);
    expect([bans.banned(), captchas.banned()]).toEqual([['198.51.100.2'], ['198.51.100.1']]);
  });

  test('a client without a cursor, or with one older than the tombstones, gets the full state', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    const client = bouncer();
    const gone = engine.add({ value: '192.0.2.1', untilMs: Date.now() + 24 * hour });
    engine.add({ value: '192.0.2.2', untilMs: Date.now() + 1000 * hour });
    expect((await client.pull(false)).added).toHaveLength(2);
    engine.expire(gone.id);
    await feed().sync({ full: false, force: false });
    vi.setSystemTime(Date.now() + 8 * 24 * hour);
    await evictDurableObject(feed());
    await runDurableObjectAlarm(feed());
    const { added, ended } = await client.pull(false);
    expect([added.length, ended.length]).toEqual([1, 0]);
  });
});

test('tombstones that are not old yet outlive the alarm that forgets old ones', async () => {
  const client = bouncer();
  const gone = engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
  await client.pull(true);
  engine.expire(gone.id);
  await feed().sync({ full: false, force: false });
  await runDurableObjectAlarm(feed());
  await client.pull(false);
  expect(client.banned()).toEqual([]);
});

describe('what a LAPI delta loses is found by the full list', () => {
  test('a ban that was committed after a later poll, of an engine that knows no id_gt', async () => {
    engine.dialect = 'A';
    const client = bouncer();
    await client.pull(true);
    engine.addUnseen({ value: '192.0.2.1', untilMs: Date.now() + hour });
    await feed().sync({ full: true, force: false });
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.1']);
  });

  test('a hard delete', async () => {
    const rows = ['192.0.2.1', '192.0.2.2', '192.0.2.3', '192.0.2.4'].map((value) =>
      engine.add({ value, untilMs: Date.now() + hour }),
    );
    const client = bouncer();
    await client.pull(true);
    engine.drop(rows[0].id);
    await feed().sync({ full: true, force: false });
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.2', '192.0.2.3', '192.0.2.4']);
  });

  test('by the tail of the same round, where the engine knows id_gt: also the first ban of all', async () => {
    const client = bouncer();
    await client.pull(true);
    for (const value of ['192.0.2.10', '192.0.2.11']) {
      engine.addUnseen({ value, untilMs: Date.now() + hour });
      await feed().sync({ full: false, force: false });
      await client.pull(false);
      expect(client.banned()).toContain(value);
    }
    expect(engine.requests.filter((path) => path === '/v1/decisions')).toHaveLength(1);
  });

  test('an engine that ignores id_gt is asked once and never again', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    engine.dialect = 'A';
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    await bouncer().pull(true);
    for (let minute = 0; minute < 4; minute++) {
      vi.setSystemTime(Date.now() + 61_000);
      await feed().sync({ full: false, force: false });
    }
    expect(engine.requests.filter((path) => path.includes('id_gt='))).toHaveLength(1);
  });

  test('the shorter ban that is left when the longest goes', async () => {
    const longest = engine.add({ value: '192.0.2.1', untilMs: Date.now() + 2 * hour });
    const left = engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    const client = bouncer();
    await client.pull(true);
    engine.expire(longest.id);
    await feed().sync({ full: false, force: false });
    const { added, ended } = await client.pull(false);
    expect(added.map(({ id }) => id)).toEqual([left.id]);
    expect(ended).toEqual([]);
  });
});

describe('a community pull', () => {
  test('replaces rows of the same origin and value at once, without an end and in one write each', async () => {
    const rows = Array.from({ length: 300 }, (_, index) => ({
      value: `2001:db8::${(index + 1).toString(16)}`,
      origin: 'CAPI',
      untilMs: Date.now() + hour,
    }));
    const old = rows.map((row) => engine.add(row));
    const client = bouncer();
    await client.pull(true);
    for (const { id } of old) engine.drop(id);
    for (const row of rows) engine.add({ ...row, untilMs: Date.now() + 2 * hour });
    await feed().sync({ full: false, force: false });
    const { added, ended } = await client.pull(false);
    expect([added.length, ended.length]).toEqual([300, 0]);
    const { decisions, tombstones } = await feed().status();
    expect([decisions, tombstones]).toEqual([300, 0]);
  });

  test('an unban of the new row ends the value', async () => {
    const old = engine.add({ value: '192.0.2.1', origin: 'lists', untilMs: Date.now() + hour });
    engine.add({ value: '192.0.2.2', untilMs: Date.now() + hour });
    const client = bouncer();
    await client.pull(true);
    engine.drop(old.id);
    const fresh = engine.add({
      value: '192.0.2.1',
      origin: 'lists',
      scenario: 'other list',
      untilMs: Date.now() + hour,
    });
    await feed().sync({ full: false, force: false });
    engine.expire(fresh.id);
    await feed().sync({ full: false, force: false });
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.2']);
  });
});

describe('false emptiness', () => {
  const values = ['192.0.2.1', '192.0.2.2', '192.0.2.3', '192.0.2.4', '192.0.2.5', '192.0.2.6'];
  let rows: { id: number }[];
  beforeEach(async () => {
    rows = values.map((value) => engine.add({ value, untilMs: Date.now() + hour }));
    await feed().sync({ full: true, force: false });
  });
  const sync = (force = false) => feed().sync({ full: true, force });
  const held = async (): Promise<string[]> => {
    const client = bouncer();
    await client.pull(true);
    return client.banned();
  };

  test.each([
    ['an empty list', () => Response.json([])],
    ['null', () => new Response('null')],
    ['status 500', () => Response.json({ message: 'unable' }, { status: 500 })],
    ['a login page', () => new Response('<html>log in</html>')],
    ['an empty body', () => new Response('')],
    ['an object', () => Response.json({})],
    ['a cut list', () => new Response('[{"duration":"1h0m0s","id":1,')],
    ['a list that ends in a comma and nothing', () => new Response('[')],
    ['a decision without an id', () => Response.json([{ duration: '1h', origin: 'x' }])],
    ['a redirect', () => new Response(null, { status: 302, headers: { location: 'http://login.example/' } })],
    ['a network error', () => Promise.reject(new Error('connection lost'))],
  ])('%s leaves the last good state, however often it comes', async (_, fault) => {
    engine.fault = fault as () => Response;
    for (let round = 0; round < 4; round++) await sync();
    expect(await held()).toEqual(values);
    engine.fault = undefined;
    engine.expire(rows[0].id);
    await sync();
    expect(await held()).toEqual(values.slice(1));
  });

  test('a list that misses more than a third is accepted when a second one agrees', async () => {
    for (const { id } of rows.slice(0, 3)) engine.drop(id);
    expect(await sync()).toMatchObject({ ok: true, removed: 0, warning: expect.stringContaining('3 of 6') });
    expect(await held()).toEqual(values);
    expect(await sync()).toMatchObject({ removed: 3, warning: null });
    expect(await held()).toEqual(values.slice(3));
  });

  test('two lists that miss different halves drop nothing that only one of them missed', async () => {
    const hide = (hidden: { id: number }[]) => {
      const ids = new Set(hidden.map(({ id }) => id));
      engine.fault = (path) => {
        const visible = engine.active().filter(({ id }) => !ids.has(id));
        const json = visible.map(({ untilMs, ...row }) => ({
          ...row,
          duration: `${untilMs - Date.now()}ms`,
        }));
        return path.endsWith('/stream') ? Response.json({ new: [], deleted: [] }) : Response.json(json);
      };
    };
    hide(rows.slice(0, 3));
    await sync();
    hide(rows.slice(3));
    await sync();
    expect(await held()).toEqual(values);
  });

  test('another database takes nothing away; its own decisions come in, even under ids we know', async () => {
    engine.rows.clear();
    engine.add({ id: 1, value: '203.0.113.1', untilMs: Date.now() + hour });
    await sync();
    await sync();
    expect(await held()).toEqual([...values, '203.0.113.1']);
    await sync();
    await sync();
    expect(await held()).toEqual([...values, '203.0.113.1']);
    engine.expire(1);
    await sync();
    expect(await held()).toEqual(values);
  });

  test('another database that has outgrown the old one before it is seen takes nothing away', async () => {
    engine.rows.clear();
    const fresh = Array.from({ length: 50 }, (_, index) => `203.0.113.${index + 1}`);
    fresh.forEach((value, index) => engine.add({ id: index + 1, value, untilMs: Date.now() + hour }));
    for (let round = 0; round < 3; round++) await sync();
    expect(await held()).toEqual([...values, ...fresh].sort());
  });

  test('an engine whose clock was set moves when its decisions expire, and nothing else', async () => {
    for (const row of engine.rows.values()) row.untilMs += hour;
    expect(await sync()).toMatchObject({ removed: 0, warning: null });
    const client = bouncer();
    const { added } = await client.pull(true);
    expect(added.map(({ duration }) => duration.slice(0, 2))).toEqual(values.map(() => '1h'));
    expect(added.map(({ id }) => id)).toEqual(rows.map(({ id }) => id));
  });

  test('a database that comes back is taken up where it was', async () => {
    const before = new Map(engine.rows);
    engine.rows.clear();
    engine.add({ id: 1, value: '203.0.113.1', untilMs: Date.now() + hour });
    await sync();
    await sync();
    engine.rows.clear();
    for (const [id, row] of before) engine.rows.set(id, row);
    await sync();
    await sync();
    engine.expire(rows[0].id);
    await sync();
    expect(await held()).toEqual(values.slice(1));
  });

  test('an operator can force the list of an engine that is really empty', async () => {
    engine.rows.clear();
    await sync();
    expect(await held()).toEqual(values);
    await sync(true);
    expect(await held()).toEqual([]);
  });

  test('an engine that goes on past its highest id after a hard delete of all is accepted', async () => {
    engine.rows.clear();
    await sync();
    engine.add({ value: '203.0.113.1', untilMs: Date.now() + hour });
    await sync();
    await sync();
    expect(await held()).toEqual(['203.0.113.1']);
  });
});

describe('time', () => {
  test('a decision ends here at its own end, also with the engine away', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + 60_000 });
    const client = bouncer();
    await client.pull(true);
    engine.fault = () => new Response('', { status: 502 });
    vi.setSystemTime(Date.now() + 61_000);
    const { ended } = await client.pull(false);
    expect(ended.map(({ value }) => value)).toEqual(['192.0.2.1']);
    expect(ended[0].duration).toMatch(/^-?\d+s$/);
  });

  test('no duration is ever longer than the truth, compressed or not', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    for (let index = 1; index <= 400; index++) {
      engine.add({ value: `2001:db8::${index.toString(16)}`, untilMs: Date.now() + 100_500 });
    }
    await bouncer().pull(true, { gzip: true });
    vi.setSystemTime(Date.now() + 4_000);
    const { added } = await bouncer().pull(true, { gzip: true });
    expect(added).toHaveLength(400);
    for (const { duration } of added)
      expect(Number(/^1m(\d+)s$/.exec(duration)?.[1] ?? 99)).toBeLessThanOrEqual(36);
  });

  test('the alarm sets the next one before anything can fail', async () => {
    engine.fault = () => Promise.reject(new Error('down'));
    await feed().status();
    for (let round = 0; round < 9; round++) expect(await runDurableObjectAlarm(feed())).toBe(true);
  });
});

test('what a lost delta carried while a full list came is found by another one', async () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  const gone = engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
  for (const host of [2, 3, 4]) engine.add({ value: `192.0.2.${host}`, untilMs: Date.now() + hour });
  const client = bouncer();
  await client.pull(true);
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  engine.fault = async (path, target) => {
    const answer = engine.answer(target);
    if (target === '/v1/decisions') await released;
    // Delivered, as the engine sees it.
    else if (path.endsWith('/stream') && engine.requests.includes('lose'))
      return new Response('', { status: 500 });
    return answer;
  };
  const listed = feed().sync({ full: true, force: false });
  await waitUntil(() => engine.requests.at(-1) === '/v1/decisions');
  engine.expire(gone.id);
  engine.requests.push('lose');
  await feed().sync({ full: false, force: false });
  release();
  await listed;
  engine.fault = undefined;
  // LAPI announces an end for 2 s.
  vi.setSystemTime(Date.now() + 5_000);
  await feed().sync({ full: false, force: false });
  await client.pull(false);
  expect(client.banned()).toEqual(['192.0.2.2', '192.0.2.3', '192.0.2.4']);
});

test('only one round runs at a time, and many askers share the next', async () => {
  await feed().sync({ full: false, force: false });
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  engine.fault = async (_, target) => {
    await released;
    return engine.answer(target);
  };
  const before = engine.requests.length;
  const askers = Array.from({ length: 20 }, () => feed().sync({ full: false, force: false }));
  await feed().status();
  release();
  await Promise.all(askers);
  const asked = engine.requests.slice(before).filter((path) => path.includes('/stream'));
  expect(asked).toHaveLength(2);
});

test('a replaced community list costs one row write a decision: 50,000 every 2 h are 18 million a month', async () => {
  const changes = () =>
    runInDurableObject(feed(), (_, { storage }) => {
      return storage.sql.exec('SELECT total_changes() AS n').one()['n'] as number;
    });
  const rows = Array.from({ length: 2000 }, (_, index) => ({
    value: `2001:db8::${(index + 1).toString(16)}`,
    origin: 'CAPI',
    untilMs: Date.now() + hour,
  }));
  for (const row of rows) engine.add(row);
  await feed().sync({ full: false, force: false });
  const before = await changes();
  for (const { id } of engine.active()) engine.drop(id);
  for (const row of rows) engine.add({ ...row, untilMs: Date.now() + 2 * hour });
  await feed().sync({ full: false, force: false });
  expect((await changes()) - before).toBeLessThanOrEqual(rows.length + 4);
});
