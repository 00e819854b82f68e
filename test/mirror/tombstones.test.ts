// How many ends are remembered, and which of them a start-up carries.
import { env } from 'cloudflare:workers';
import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from 'cloudflare:test';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { DecisionFeed } from '../../src/feed/object.ts';
import { digestOf } from '../../src/crypto/secret.ts';
import { letIsolatesFollow } from '../support/following.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { bouncer, everything, feed, limitsOf, type WireDecision } from '../support/bouncer.ts';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';

const hour = 3_600_000;
const minute = 60_000;
let engine: ModelEngine;

beforeEach(() => {
  engine = startModelEngine();
  vi.useFakeTimers({ toFake: ['Date'] });
});

const sync = () => feed().sync({ full: true, force: true });
const tombstones = async () => (await feed().status()).tombstones;
const alarmAfter = (ms: number) => {
  vi.setSystemTime(Date.now() + ms);
  return runDurableObjectAlarm(feed());
};

describe('the number of tombstones is bounded', () => {
  /** As if so many decisions had ended, each a moment after the one before it. */
  async function haveEnded(count: number): Promise<void> {
    await sync();
    await runInDurableObject(feed(), (_, { storage }) => {
      const { sequence } = storage.sql.exec<{ sequence: number }>('SELECT sequence FROM feed').one();
      storage.sql.exec(
        `WITH RECURSIVE ended (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM ended WHERE n < ?1)
         INSERT INTO decisions
         SELECT ?2 + 2 * n, n, NULL, 'CAPI', 'test', 'Ip', 'ban', '2001:db8::' || printf('%x', n), ?3, ?2 + 2 * n,
           ?2 + 2 * n + 1, ?3, 'default', 0 FROM ended`,
        count,
        sequence,
        Date.now(),
      );
      storage.sql.exec('UPDATE feed SET sequence = ?', sequence + 2 * count + 1);
    });
    await evictDurableObject(feed());
  }

  test('the oldest go, once every bouncer has had the time to hear of them', async () => {
    await haveEnded(150_000);
    await alarmAfter(0);
    expect(await tombstones()).toBe(150_000);
    await alarmAfter(11 * minute);
    await alarmAfter(11 * minute);
    expect(await tombstones()).toBeLessThanOrEqual(100_000);
    expect(await tombstones()).toBeGreaterThan(50_000);
    await evictDurableObject(feed());
    expect(await tombstones()).toBeLessThanOrEqual(100_000);
    const { ended } = await bouncer({
      view: { ...everything, value: `2001:db8::${(150_000).toString(16)}` },
    }).pull(true);
    expect(ended).toHaveLength(1);
    const first = await bouncer({ view: { ...everything, value: '2001:db8::1' } }).pull(true);
    expect(first.ended).toEqual([]);
  });

  test('more than an object can hold are gone before it reads them', async () => {
    await haveEnded(400_000);
    expect(await tombstones()).toBeLessThanOrEqual(300_000);
    expect(await tombstones()).toBeGreaterThan(200_000);
  });

  test('where there is a ceiling, a whole list that was replaced is all that is remembered', async () => {
    await haveEnded(250_000);
    await runInDurableObject(feed(), (_, state) => {
      const withCeiling = new DecisionFeed(state, { ...env, MAX_DECISIONS: '90000' } as Env);
      expect(withCeiling.status().tombstones).toBeLessThanOrEqual(100_000);
      expect(withCeiling.status().tombstones).toBeGreaterThanOrEqual(90_000);
    });
  });

  /** Bans of many addresses under two texts, the first of which has ended for who has both. */
  async function keepBack(count: number) {
    const add = (value: string) => engine.add({ value, untilMs: Date.now() + 1000 * hour, origin: 'lists' });
    const at = Array.from({ length: count }, (_, index) => (index + 1).toString(16));
    const [first, second] = [
      at.map((host) => add(`2001:DB8::${host}`)),
      at.map((host) => add(`2001:db8::${host}`)),
    ];
    const client = bouncer();
    await sync();
    await client.pull(true);
    expect(client.banned()).toHaveLength(2 * count);
    for (const { id } of first) engine.expire(id);
    await sync();
    await client.pullAll();
    expect(client.banned()).toHaveLength(2 * count);
    const endAll = () => {
      for (const { id } of second) engine.expire(id);
      return sync();
    };
    return { client, endAll };
  }

  test('however many ends are kept back, none is lost when tombstones go by age, and none stays in memory', async () => {
    const { client, endAll } = await keepBack(12_000);
    await alarmAfter(8 * 24 * hour);
    expect(await tombstones()).toBe(0);
    await evictDurableObject(feed());
    expect(await tombstones()).toBe(0);
    await client.pullAll();
    expect(client.banned()).toHaveLength(24_000);
    await endAll();
    await client.pullAll();
    expect(client.banned()).toEqual([]);
  });

  test('nor when there are more than an object can hold', async () => {
    const { client, endAll } = await keepBack(6_000);
    await haveEnded(400_000);
    expect(await tombstones()).toBeLessThanOrEqual(300_000);
    await endAll();
    await client.pullAll();
    expect(client.banned()).toEqual([]);
  });

  test('nor where who saw it does not see another decision of the same text', async () => {
    const client = bouncer({ view: { ...everything, origins: ['crowdsec'] } });
    const add = (value: string, origin: string) =>
      engine.add({ value, origin, untilMs: Date.now() + 1000 * hour });
    const { id } = add('192.0.2.9/32', 'crowdsec');
    add('192.0.2.9/32', 'lists');
    const last = add('192.0.2.9', 'crowdsec');
    await sync();
    await client.pull(true);
    engine.expire(id);
    await sync();
    await alarmAfter(8 * 24 * hour);
    engine.expire(last.id);
    await sync();
    await client.pullAll();
    expect(client.banned()).toEqual([]);
  });

  test.each([
    ['limits', limitsOf({ origins: ['crowdsec'] })],
    ['a cap', limitsOf({ maxDecisions: 1 })],
  ])('nor where the ban that kept it back falls out by %s', async (_, limits) => {
    const client = bouncer();
    const add = (value: string, origin: string, hours = 1000) =>
      engine.add({ value, origin, untilMs: Date.now() + hours * hour });
    const { id } = add('192.0.2.9/32', 'cscli');
    add('192.0.2.9', 'cscli');
    add('198.51.100.1', 'crowdsec', 2000);
    await sync();
    await client.pull(true);
    engine.expire(id);
    await sync();
    await client.pullAll();
    await alarmAfter(8 * 24 * hour);
    await client.pullAll();
    client.limit(limits);
    await client.pull(false);
    letIsolatesFollow();
    await client.pullAll();
    expect(client.banned()).toEqual(['198.51.100.1']);
  });

  test('a large list that is removed at once is delivered to everybody first', async () => {
    const client = bouncer();
    for (let at = 1; at <= 120_000; at++) {
      engine.add({ value: `2001:db8::${at.toString(16)}`, origin: 'CAPI', untilMs: Date.now() + hour });
    }
    await sync();
    await client.pull(true);
    expect(client.banned()).toHaveLength(120_000);
    engine.rows.clear();
    await alarmAfter(11 * minute);
    await alarmAfter(11 * minute);
    await sync();
    await alarmAfter(1000);
    await client.pull(false);
    expect(client.banned()).toEqual([]);
    // It is not delivered again for ever.
    for (let round = 0; round < 3; round++) await alarmAfter(11 * minute);
    expect(await tombstones()).toBeLessThanOrEqual(100_000);
    expect(await client.pull(false)).toMatchObject({ added: [] });
  });

  test('a bouncer that was away for longer than they reach gets the full state', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + 100 * hour });
    await sync();
    const client = bouncer();
    await client.pull(true);
    await alarmAfter(0);
    await haveEnded(150_000);
    await alarmAfter(11 * minute);
    await alarmAfter(11 * minute);
    expect((await client.pull(false)).added).toHaveLength(1);
  });
});

describe('a start-up carries the ends that its bouncer may have missed', () => {
  let gone = 0;

  /** A ban that came and went. */
  async function banAndUnban(): Promise<string> {
    const value = `192.0.2.${++gone}`;
    await operator('POST', '/decisions', { value, duration: '1h' });
    expect((await operator('DELETE', `/decisions?value=${value}`)).status).toBe(200);
    return value;
  }
  async function ends(key: string, query = '?startup=true', headers: Record<string, string> = {}) {
    const response = await asBouncer(key, `/v1/decisions/stream${query}`, { headers });
    const { deleted } = (await response.json()) as { deleted: WireDecision[] };
    return deleted.map(({ value }) => value);
  }

  test('none of before its key was made here', async () => {
    await banAndUnban();
    const key = await addBouncer('fw');
    expect(await ends(key)).toEqual([]);
    const lost = await addBouncer('lost');
    expect(await ends(lost, '')).toEqual([]);
  });

  test('all since then, whatever its address, and over a restart', async () => {
    await banAndUnban();
    const key = await addBouncer('fw');
    const missed = [await banAndUnban()];
    const from = (address: string) => ({ 'cf-connecting-ip': address });
    expect(await ends(key)).toEqual(missed);
    missed.push(await banAndUnban());
    expect(await ends(key, '?startup=true', from('198.51.100.2'))).toEqual(missed);
    await evictDurableObject(feed());
    expect(await ends(key, '?startup=true', from('198.51.100.3'))).toEqual(missed);
    expect(await ends(key, '', from('198.51.100.4'))).toEqual(missed);
  });

  test('with gzip, to each what it may have missed', async () => {
    for (let at = 0; at < 250; at++) {
      engine.add({ value: `2001:db8::${at.toString(16)}`, untilMs: Date.now() + hour });
    }
    await sync();
    const before = await banAndUnban();
    const key = await addBouncer('fw');
    const old = await addDigest('old');
    const asGzip = (which: string) => ends(which, '?startup=true', { 'accept-encoding': 'gzip' });
    expect([await asGzip(old), await asGzip(key), await asGzip(old)]).toEqual([[before], [], [before]]);
  });

  async function addDigest(name: string): Promise<string> {
    const key = `a-key-of-before-${name}`;
    const body = { name, key_sha512: await digestOf(key) };
    expect((await operator('POST', '/bouncers', body)).status).toBe(201);
    return key;
  }

  test('all that are kept, where the key may have been used elsewhere', async () => {
    const before = await banAndUnban();
    expect(await ends(await addDigest('registered'))).toEqual([before]);
    const rows = [{ name: 'imported', api_key: await digestOf('imported'), revoked: 0 }];
    expect((await operator('POST', '/bouncers/import', { bouncers: rows })).body.imported).toBe(1);
    expect(await ends('imported')).toEqual([before]);
  });

  test('all that are kept, after a rotation: the new key may be another program’s', async () => {
    const before = await banAndUnban();
    const key = await addBouncer('fw');
    expect(await ends(key)).toEqual([]);
    const { body } = await operator('POST', '/bouncers/fw/rotate', {});
    expect(await ends(body.key)).toEqual([before]);
  });

  test('all that are kept, for a bouncer of a name that was deleted', async () => {
    const first = await addBouncer('fw');
    await operator('POST', '/decisions', { value: '203.0.113.1', duration: '1h' });
    await ends(first);
    expect((await operator('DELETE', '/bouncers/fw')).status).toBe(204);
    await operator('DELETE', '/decisions?value=203.0.113.1');
    expect(await ends(await addBouncer('fw'))).toEqual(['203.0.113.1']);
  });

  test('an answer that is repeated makes no bouncer new', async () => {
    const before = await banAndUnban();
    const create = () =>
      call('/api/v1/bouncers', {
        method: 'POST',
        headers: { authorization: `Bearer ${operatorToken}`, 'idempotency-key': 'once' },
        body: JSON.stringify({ name: 'fw' }),
      });
    const { key } = (await (await create()).json()) as { key: string };
    expect(await ends(key)).toEqual([]);
    const missed = await banAndUnban();
    expect((await create()).status).toBe(201);
    expect(await ends(key)).toEqual([missed]);
    expect(before).not.toBe(missed);
  });

  test('all that are kept, once a backup was restored: nobody knows which keys were there before', async () => {
    const before = await banAndUnban();
    await addBouncer('fw');
    const endsOf = async () => (await bouncer().pull(true)).ended.map(({ value }) => value);
    expect(await endsOf()).toEqual([]);
    vi.spyOn(console, 'warn').mockReturnValue();
    await env.DB.exec('DELETE FROM audit; DELETE FROM bouncers');
    expect((await operator('GET', '/feed')).status).toBe(200);
    expect(await endsOf()).toEqual([before]);
    expect(await ends(await addBouncer('again'))).toEqual([before]);
  });
});
