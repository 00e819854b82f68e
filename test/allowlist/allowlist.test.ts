// The allow-list: what operators say, and what bouncers get of it.
import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { bouncer, everything, feed, limitsOf } from '../support/bouncer.ts';
import { createRow } from '../../src/mirror/decisions.sql.ts';
import { applyTouched, createPart } from '../../src/mirror/touched.ts';
import type { View } from '../../src/mirror/view.ts';
import type { FollowAsk, StreamAsk } from '../../src/feed/questions.ts';
import { letIsolatesFollow, throughIsolates } from '../support/following.ts';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { waitUntil } from '../support/patience.ts';

let engine: ModelEngine;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'] });
  engine = startModelEngine();
});

const hour = 3_600_000;
const allow = (value: string, more: object = {}) =>
  operator('POST', '/allowlist', { value, comment: 'office', ...more });
const ban = (value: string, more: object = {}) =>
  engine.add({ value, scope: value.includes('/') ? 'Range' : 'Ip', untilMs: Date.now() + hour, ...more });
const sync = () => feed().sync({ full: true, force: true });
const pass = (ms: number) => vi.setSystemTime(Date.now() + ms);

describe('an entry', () => {
  test('takes a ban back with the next poll, and its removal brings it again', async () => {
    ban('192.0.2.1');
    ban('192.0.2.2');
    await sync();
    const client = bouncer();
    await client.pull(true);
    const { status, body, headers } = await allow('192.0.2.1');
    expect([status, headers.get('etag')]).toEqual([201, '"1"']);
    expect(body.entry).toMatchObject({
      value: '192.0.2.1',
      comment: 'office',
      expires_at: null,
      revision: 1,
    });
    expect([body.decisions, body.ranges, body.warnings]).toEqual([1, [], []]);
    const { added, ended } = await client.pull(false);
    expect([added, ended.map(({ value }) => value)]).toEqual([[], ['192.0.2.1']]);
    // Once more, since an answer may be lost; then no more.
    expect((await client.pull(false)).ended).toHaveLength(1);
    expect((await client.pull(false)).ended).toHaveLength(0);
    await operator('DELETE', `/allowlist/${body.entry.id}`);
    expect((await client.pull(false)).added.map(({ value }) => value)).toEqual(['192.0.2.1']);
    expect(client.banned()).toEqual(['192.0.2.1', '192.0.2.2']);
  });

  test('keeps what comes later from bouncers, whoever bans: a list, an engine, in whatever spelling', async () => {
    await allow('192.0.2.0/28');
    await allow('2001:DB8:0::1');
    ban('192.0.2.1', { origin: 'CAPI' });
    ban('192.0.2.3/32');
    ban('::ffff:192.0.2.2');
    ban('2001:db8:0:0::1');
    ban('192.0.2.16');
    await sync();
    const client = bouncer();
    await client.pull(true);
    expect(client.banned()).toEqual(['192.0.2.16']);
  });

  test('ends by itself, also while the object slept, and not before the clock says so', async () => {
    ban('192.0.2.1', { untilMs: Date.now() + 30 * hour });
    await sync();
    const client = bouncer();
    await client.pull(true);
    await allow('192.0.2.1', { expires_in: '1h' });
    await client.pull(false);
    pass(hour - 1);
    await client.pull(false);
    expect(client.banned()).toEqual([]);
    await evictDurableObject(feed());
    await client.pull(false);
    expect(client.banned()).toEqual([]);
    pass(1);
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.1']);
    expect((await operator('GET', '/allowlist')).body.entries).toEqual([]);
    // The clock was wrong: the entry has not ended.
    pass(-hour / 2);
    await client.pull(false);
    expect(client.banned()).toEqual([]);
  });

  test('holds after a restart for who was away, and for what the engine takes back meanwhile', async () => {
    const { id } = ban('192.0.2.1');
    ban('192.0.2.2');
    await sync();
    const away = bouncer({ bouncerId: 2 });
    await away.pull(true);
    await allow('192.0.2.0/24');
    await evictDurableObject(feed());
    engine.expire(id);
    await feed().sync({ full: false, force: false });
    await away.pull(false);
    expect(away.banned()).toEqual([]);
    const [entry] = (await operator('GET', '/allowlist')).body.entries;
    await operator('DELETE', `/allowlist/${entry.id}`);
    await away.pull(false);
    expect(away.banned()).toEqual(['192.0.2.2']);
  });

  test('withholds a banned range that it is in, says how many it lets free, and needs force for many', async () => {
    const { id } = ban('198.51.100.0/24', { scenario: 'list' });
    ban('203.0.0.0/16');
    engine.add({ scope: 'Country', value: 'DE', untilMs: Date.now() + hour });
    await sync();
    const client = bouncer();
    await client.pull(true);
    const { body } = await allow('198.51.100.64/26');
    expect(body.ranges).toEqual([
      {
        id,
        value: '198.51.100.0/24',
        origin: 'cscli',
        scenario: 'list',
        addresses_freed: '192',
      },
    ]);
    expect(body.warnings).toEqual([
      expect.stringMatching(/^198\.51\.100\.64\/26 .*198\.51\.100\.0\/24 .*192 other addresses/),
      expect.stringMatching(/^1 active decisions are on countries/),
    ]);
    await client.pull(false);
    expect(client.banned()).toEqual(['203.0.0.0/16', 'DE']);
    const refused = await allow('203.0.113.7');
    expect([refused.status, refused.body.errors[0].field]).toEqual([409, 'force']);
    expect(refused.body.detail).toMatch(/203\.0\.113\.7 .*203\.0\.0\.0\/16 .*65535/);
    expect((await allow('203.0.113.7', { force: true })).status).toBe(201);
    await client.pull(false);
    expect(client.banned()).toEqual(['DE']);
  });

  test('keeps look-ups of its addresses empty; others of the same range are found', async () => {
    ban('198.51.100.0/24');
    await sync();
    const key = await addBouncer('web-1');
    const find = async (ip: string) => (await asBouncer(key, `/v1/decisions?ip=${ip}`)).json<any>();
    expect(await find('198.51.100.7')).toHaveLength(1);
    await allow('198.51.100.7');
    expect(await find('198.51.100.7')).toBeNull();
    expect(await find('198.51.100.8')).toMatchObject([{ value: '198.51.100.0/24' }]);
    const list = async (query: string) => (await asBouncer(key, `/v1/decisions${query}`)).json<any>();
    expect(await list('')).toBeNull();
    expect(await list('?range=198.51.100.0/28')).toBeNull();
    expect(await list('?range=198.51.100.16/28')).toHaveLength(1);
  });

  test('shows at the decisions that it withholds', async () => {
    ban('192.0.2.1');
    ban('192.0.2.2');
    await sync();
    const { entry } = (await allow('192.0.2.1')).body;
    const { decisions } = (await operator('GET', '/decisions')).body;
    expect(decisions.map(({ value, withheld_by }: any) => [value, withheld_by])).toEqual([
      ['192.0.2.1', { id: entry.id, value: '192.0.2.1', engine: null, list: null, bouncers: null }],
      ['192.0.2.2', null],
    ]);
    expect((await operator('GET', `/allowlist/${entry.id}`)).body).toMatchObject({ ...entry, decisions: 1 });
  });

  test('keeps operators from banning its addresses, and names itself', async () => {
    const { entry } = (await allow('192.0.2.0/28')).body;
    const refused = await operator('POST', '/decisions', { value: '192.0.2.1', duration: '1h' });
    expect(refused.status).toBe(409);
    expect(refused.body.detail).toContain(`192.0.2.0/28, which is on the allow-list (entry ${entry.id})`);
    expect((await operator('POST', '/decisions', { value: '192.0.2.0/24', duration: '1h' })).status).toBe(
      409,
    );
    expect((await operator('POST', '/decisions', { value: '192.0.2.16', duration: '1h' })).status).toBe(201);
    const actions = (await operator('GET', '/audit')).body.audit.map(({ action }: any) => action);
    expect(actions).toEqual(['decision.ban', 'allowlist.add']);
  });
});

describe('an entry for some bouncers', () => {
  const named = (name: string, bouncerId: number) =>
    bouncer({ view: { ...everything, bouncer: name }, bouncerId });
  const capped = (name: string, bouncerId: number, maxDecisions: number) =>
    bouncer({ view: { ...everything, bouncer: name, limits: limitsOf({ maxDecisions }) }, bouncerId });
  const values = (answer: { value: string }[] | null) => answer?.map(({ value }) => value) ?? null;

  test('takes a ban back from those alone, also after a restart, and its removal brings it again', async () => {
    ban('192.0.2.1');
    ban('192.0.2.2');
    await sync();
    const [web, vpn] = [named('web-1', 1), named('vpn-1', 2)];
    for (const client of [web, vpn]) await client.pull(true);
    const { body } = await allow('192.0.2.1', { bouncers: ['web-*', 'host-7'] });
    expect(body.entry.bouncers).toEqual(['host-7', 'web-*']);
    for (const client of [web, vpn]) await client.pull(false);
    expect([web.banned(), vpn.banned()]).toEqual([['192.0.2.2'], ['192.0.2.1', '192.0.2.2']]);
    await evictDurableObject(feed());
    const later = named('web-2', 3);
    await later.pull(true);
    for (const client of [web, vpn]) await client.pull(false);
    expect([web.banned(), vpn.banned(), later.banned()]).toEqual([
      ['192.0.2.2'],
      ['192.0.2.1', '192.0.2.2'],
      ['192.0.2.2'],
    ]);
    await operator('DELETE', `/allowlist/${body.entry.id}`);
    await web.pull(false);
    expect(web.banned()).toEqual(['192.0.2.1', '192.0.2.2']);
  });

  test('under a cap tells each bouncer of its own changes alone, twice, and then of nothing', async () => {
    const clients = [capped('web-1', 1, 4), capped('vpn-1', 2, 4), capped('office', 3, 4)];
    for (const value of ['192.0.2.1', '192.0.2.1/32', '192.0.2.2', '192.0.2.3']) ban(value);
    await sync();
    await allow('192.0.2.1', { bouncers: ['web-*'] });
    await allow('192.0.2.3', { bouncers: ['vpn-*'] });
    for (const client of clients) {
      await client.pull(true);
      await client.pullAll();
    }
    ban('198.51.100.1', { untilMs: Date.now() + 100 * hour });
    await sync();
    const answers = clients.map(async (client) => {
      const told: string[][] = [];
      for (let polls = 0; polls < 5; polls++) {
        const { added, ended } = await client.pull(false);
        told.push([...added.map(({ value }) => `+${value}`), ...ended.map(({ value }) => `-${value}`)]);
      }
      return told;
    });
    const own = ['+198.51.100.1'];
    const [web, vpn, office] = await Promise.all(answers);
    expect([web, vpn]).toEqual([
      [own, own, [], [], []],
      [own, own, [], [], []],
    ]);
    // The last of its four makes room.
    const inPlace = [expect.stringMatching(/^\+/), expect.stringMatching(/^-/)];
    expect(office).toEqual([inPlace, inPlace, [], [], []]);
  });

  test('under a cap brings others in its place, which go with it, also where a restart is between', async () => {
    for (const value of ['192.0.2.1', '192.0.2.2']) ban(value, { untilMs: Date.now() + 100 * hour });
    ban('192.0.2.3');
    await sync();
    const web = capped('web-1', 1, 2);
    await web.pull(true);
    // Its place is written behind the answer.
    await runDurableObjectAlarm(feed());
    const { body } = await allow('192.0.2.1', { bouncers: ['web-*'] });
    await web.pull(false);
    expect(web.banned()).toEqual(['192.0.2.2', '192.0.2.3']);
    await evictDurableObject(feed());
    await operator('DELETE', `/allowlist/${body.entry.id}`);
    await web.pull(false);
    expect(web.banned()).toEqual(['192.0.2.1', '192.0.2.2']);
  });

  test('and one for all on the same address hold each as long as it is there', async () => {
    ban('192.0.2.1');
    await sync();
    const [web, vpn] = [named('web-1', 1), named('vpn-1', 2)];
    const banned = async () => {
      for (const client of [web, vpn]) await client.pull(false);
      return [web.banned(), vpn.banned()];
    };
    for (const client of [web, vpn]) await client.pull(true);
    await allow('192.0.2.0/24', { bouncers: ['web-1'] });
    const { entry } = (await allow('192.0.2.1')).body;
    expect(await banned()).toEqual([[], []]);
    await operator('DELETE', `/allowlist/${entry.id}`);
    expect(await banned()).toEqual([[], ['192.0.2.1']]);
    await allow('192.0.2.1', { bouncers: ['vpn-1'] });
    expect(await banned()).toEqual([[], []]);
  });

  test('keeps look-ups of those empty, whoever asked the same a moment ago', async () => {
    ban('192.0.2.1');
    await sync();
    const keys = { web: await addBouncer('web-1'), vpn: await addBouncer('vpn-1') };
    const find = async (who: keyof typeof keys) =>
      values(await (await asBouncer(keys[who], '/v1/decisions?ip=192.0.2.1')).json<any>());
    expect([await find('web'), await find('vpn')]).toEqual([['192.0.2.1'], ['192.0.2.1']]);
    const { entry } = (await allow('192.0.2.1', { bouncers: ['web-*'] })).body;
    for (let round = 0; round < 2; round++) {
      expect([await find('web'), await find('vpn'), await find('web')]).toEqual([null, ['192.0.2.1'], null]);
    }
    await operator('DELETE', `/allowlist/${entry.id}`);
    expect([await find('vpn'), await find('web')]).toEqual([['192.0.2.1'], ['192.0.2.1']]);
  });

  test('splits the ranges of their lists, and of no others', async () => {
    ban('198.51.100.0/30');
    await sync();
    const keys = [await addBouncer('web-1'), await addBouncer('vpn-1')];
    const lists = async () => {
      const answers = keys.map((key) => call('/lists/cidr', { headers: { 'x-api-key': key } }));
      return (await Promise.all(answers.map(async (answer) => (await answer).text()))).map((text) =>
        text.trim().split('\n'),
      );
    };
    await allow('198.51.100.1', { bouncers: ['web-1'] });
    expect(await lists()).toEqual([['198.51.100.0/32', '198.51.100.2/31'], ['198.51.100.0/30']]);
    await allow('198.51.100.2');
    expect(await lists()).toEqual([
      ['198.51.100.0/32', '198.51.100.3/32'],
      ['198.51.100.0/31', '198.51.100.3/32'],
    ]);
  });

  test('lets an operator ban its addresses, and says which bouncers are not served that', async () => {
    const { entry } = (await allow('192.0.2.0/28', { bouncers: ['web-*'] })).body;
    const { status, body } = await operator('POST', '/decisions', { value: '192.0.2.1', duration: '1h' });
    expect(status).toBe(201);
    expect(body.warnings).toEqual([
      `192.0.2.1 shares addresses with 192.0.2.0/28, which is on the allow-list (entry ${entry.id}) for web-*: it is not served to them`,
    ]);
    const withheldBy = { id: entry.id, value: '192.0.2.0/28', engine: null, list: null, bouncers: ['web-*'] };
    expect(body.decision.withheld_by).toEqual(withheldBy);
    expect((await operator('GET', '/decisions')).body.decisions).toMatchObject([{ withheld_by: withheldBy }]);
    const [web, vpn] = [named('web-1', 1), named('vpn-1', 2)];
    for (const client of [web, vpn]) await client.pull(true);
    expect([web.banned(), vpn.banned()]).toEqual([[], ['192.0.2.1']]);
    // With another entry it says all of them.
    await allow('192.0.2.1', { bouncers: ['vpn-1'] });
    const { decisions } = (await operator('GET', '/decisions')).body;
    expect(decisions[0].withheld_by.bouncers).toEqual(['vpn-1', 'web-*']);
  });

  test('holds where an isolate answers by itself, also once it is gone', async () => {
    ban('192.0.2.1');
    await sync();
    const asked = vi.fn();
    const object = () => ({
      stream: (ask: StreamAsk) => (asked(), feed().stream(ask)),
      follow: (ask: FollowAsk) => feed().follow(ask),
    });
    const isolates = throughIsolates([0], object);
    const [web, vpn] = ['web-1', 'vpn-1'].map((name, bouncerId) =>
      bouncer({ view: { ...everything, bouncer: name }, bouncerId, asks: () => isolates }),
    );
    const banned = async () => {
      letIsolatesFollow();
      for (const client of [web!, vpn!]) await client.pull(false);
      return [web!.banned(), vpn!.banned()];
    };
    for (const client of [web!, vpn!]) await client.pull(true);
    await banned();
    asked.mockClear();
    const { entry } = (await allow('192.0.2.1', { bouncers: ['web-*'] })).body;
    expect(await banned()).toEqual([[], ['192.0.2.1']]);
    expect(await banned()).toEqual([[], ['192.0.2.1']]);
    await operator('DELETE', `/allowlist/${entry.id}`);
    expect(await banned()).toEqual([['192.0.2.1'], ['192.0.2.1']]);
    expect(asked).not.toHaveBeenCalled();
  });

  test('is known to a start-up that waits for the first list while it is made', async () => {
    ban('192.0.2.1');
    ban('192.0.2.2');
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    engine.fault = async (_, target) => {
      if (target === '/v1/decisions') await released;
      return engine.answer(target);
    };
    const web = named('web-1', 1);
    const started = web.pull(true);
    await waitUntil(() => engine.requests.includes('/v1/decisions'));
    expect((await allow('192.0.2.1', { bouncers: ['web-*'] })).status).toBe(201);
    release();
    await started;
    expect(web.banned()).toEqual(['192.0.2.2']);
  });

  test('is known to a start-up right after the clock was set back before its end', async () => {
    ban('192.0.2.1', { untilMs: Date.now() + 30 * hour });
    await sync();
    await allow('192.0.2.1', { expires_in: '1h', bouncers: ['web-*'] });
    pass(hour);
    await feed().status();
    pass(-hour / 2);
    const web = named('web-1', 1);
    await web.pull(true);
    expect(web.banned()).toEqual([]);
  });

  test('ends a ban at a bouncer that was served it all the same, by an isolate of the release before', async () => {
    const { id } = ban('192.0.2.1');
    await sync();
    await allow('192.0.2.1', { bouncers: ['web-*'] });
    let view: View = everything;
    const object = () => ({ ...feed(), stream: (ask: StreamAsk) => feed().stream({ ...ask, view }) });
    const web = bouncer({ asks: object });
    await web.pull(true);
    expect(web.banned()).toEqual(['192.0.2.1']);
    view = { ...everything, bouncer: 'web-1' };
    engine.expire(id);
    await feed().sync({ full: false, force: false });
    await web.pull(false);
    expect(web.banned()).toEqual([]);
  });

  test('with an id that D1 gives again after a restore holds for those that it names, also after a start', async () => {
    ban('192.0.2.1');
    await sync();
    const one = await allow('192.0.2.1');
    await env.DB.batch([
      env.DB.prepare('DELETE FROM allowed_networks'),
      env.DB.prepare(`UPDATE sqlite_sequence SET seq = seq - 1 WHERE name = 'allowed_networks'`),
    ]);
    const two = await allow('192.0.2.1', { bouncers: ['web-*'] });
    expect(two.body.entry.id).toBe(one.body.entry.id);
    const vpn = named('vpn-1', 2);
    await vpn.pull(true);
    await evictDurableObject(feed());
    await vpn.pull(false);
    expect(vpn.banned()).toEqual(['192.0.2.1']);
  });

  test('and many bans on it are followed by isolates, or begin them anew', async () => {
    await sync();
    for (let at = 0; at < 10; at++) {
      const bouncers = Array.from({ length: 30 }, (_, index) => `site-${30 * at + index}-`.padEnd(40, 'x'));
      expect((await allow('198.18.0.0/15', { bouncers })).status).toBe(201);
    }
    const ask = { sightings: [], isolate: 'a', since: -1, mark: null };
    const { sequence, mark } = await feed().follow(ask);
    for (let at = 0; at < 3_600; at++) ban(`198.18.${at >> 8}.${at & 255}`);
    await feed().sync({ full: false, force: false });
    const { touched } = await feed().follow({ ...ask, since: sequence, mark });
    expect(touched?.rows).toHaveLength(3_600);
    expect(new Set(touched?.rows.map(({ withheld }) => withheld)).size).toBe(1);
  });

  test('is one list of names in an isolate, however many answers brought it', () => {
    const part = createPart(0);
    const row = { rowId: 1, engine: 'default', engineId: 1 };
    for (let at = 1; at <= 50; at++) {
      const said = {
        id: at,
        origin: 'CAPI',
        scenario: 'x',
        scope: 'Ip',
        type: 'ban',
        value: `192.0.2.${at}`,
      };
      const added = createRow(
        { ...row, rowId: at, engineId: at },
        { ...said, untilMs: Date.now() + hour },
        at,
      );
      applyTouched(part, { sequence: at, rows: [{ ...added, withheld: ['vpn-1', 'web-*'] }], respelled: [] });
    }
    expect(part.byId.size).toBe(50);
    expect(new Set([...part.byId.values()].map(({ withheld }) => withheld)).size).toBe(1);
  });

  test('may have names as long as names are', async () => {
    await addBouncer('web-1');
    const { status, body } = await allow('192.0.2.1', { bouncers: ['w'.repeat(64)] });
    expect([status, body.warnings]).toEqual([201, [`no bouncer is named ${'w'.repeat(64)} now`]]);
  });

  test('is what a repeated ban says, unless one for all came since', async () => {
    const again = async () => {
      const answer = await call('/api/v1/decisions', {
        method: 'POST',
        headers: { authorization: `Bearer ${operatorToken}`, 'idempotency-key': 'ban-1' },
        body: JSON.stringify({ value: '192.0.2.1', duration: '1h' }),
      });
      const { decision } = await answer.json<any>();
      return [answer.status, decision.withheld_by.bouncers];
    };
    await allow('192.0.2.1', { bouncers: ['web-*'] });
    expect(await again()).toEqual([201, ['web-*']]);
    expect(await again()).toEqual([201, ['web-*']]);
    await allow('192.0.2.1');
    expect(await again()).toEqual([201, null]);
  });

  test('is why they are never sent a decision, and others are', async () => {
    ban('192.0.2.1');
    await sync();
    for (const name of ['web-1', 'vpn-1']) {
      await asBouncer(await addBouncer(name), '/v1/decisions/stream?startup=true');
    }
    await allow('192.0.2.1', { bouncers: ['web-*'] });
    const { bouncers } = (await operator('GET', '/decisions/sent?value=192.0.2.1')).body;
    expect(bouncers.map(({ name, decisions: [of] }: any) => [name, of.sent, of.why])).toEqual([
      ['web-1', 'never', ['allow-list']],
      ['vpn-1', 'not-yet', []],
    ]);
  });

  test('is another one than that for all, and says which names nobody has', async () => {
    await addBouncer('web-1');
    expect((await allow('192.0.2.1', { bouncers: ['web-*', 'wbe-1'] })).body.warnings).toEqual([
      'no bouncer is named wbe-1 now',
    ]);
    expect((await allow('192.0.2.1', { bouncers: ['wbe-1', 'web-*', 'web-*'] })).status).toBe(409);
    expect((await allow('192.0.2.1', { bouncers: ['web-*'] })).status).toBe(201);
    const { entry } = (await allow('192.0.2.1', { bouncers: ['*', 'web-1'] })).body;
    expect(entry.bouncers).toBeNull();
    expect((await allow('192.0.2.1')).status).toBe(409);
  });

  test('has few names: 1,000 in all entries together', async () => {
    const bouncersOf = (at: number) => Array.from({ length: 30 }, (_, index) => `host-${30 * at + index}`);
    for (let at = 0; at < 33; at++) {
      expect((await allow(`192.0.2.${at}`, { bouncers: bouncersOf(at) })).status).toBe(201);
    }
    const refused = await allow('192.0.2.100', { bouncers: bouncersOf(40) });
    expect([refused.status, refused.body.errors[0].field]).toEqual([409, 'bouncers']);
    expect((await allow('192.0.2.100', { bouncers: bouncersOf(3) })).status).toBe(201);
  });

  test('and all others may name 30,000 bouncers, each as often as it is named', async () => {
    const json = JSON.stringify(Array.from({ length: 30 }, (_, at) => `host-${at}`));
    await env.DB.prepare(
      `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 998) INSERT INTO allowed_networks (value, comment, created_ms, actor, bouncers_json) SELECT '198.18.' || (i / 256) || '.' || (i % 256), 'x', 1, 'x', ? FROM n`,
    )
      .bind(json)
      .run();
    const allowFor = (count: number) =>
      allow(`192.0.2.${count}`, { bouncers: Array.from({ length: count }, (_, at) => `host-${at}`) });
    expect((await allowFor(30)).status).toBe(201);
    expect((await allowFor(1)).body.detail).toContain('30000 bouncers');
  });

  test('has fewer with *: 100 in all entries together', async () => {
    const patternsOf = (at: number) => Array.from({ length: 25 }, (_, index) => `host-${25 * at + index}-*`);
    for (let at = 0; at < 4; at++) await allow(`192.0.2.${at}`, { bouncers: patternsOf(at) });
    const refused = await allow('192.0.2.100', { bouncers: ['web-*'] });
    expect([refused.status, refused.body.errors[0].field]).toEqual([409, 'bouncers']);
    expect((await allow('192.0.2.100', { bouncers: ['web-1', 'host-1-*'] })).status).toBe(201);
  });
});

describe('what an operator says', () => {
  test.each([
    [{ value: 'nowhere' }, 400, 'value'],
    [{ value: '192.0.2.1', comment: '' }, 400, 'comment'],
    [{ value: '0.0.0.0/0' }, 400, 'value'],
    [{ value: '2001::/16' }, 400, 'value'],
    [{ value: '192.0.2.1', expires_in: '-1h' }, 400, 'expires_in'],
    [{ value: '192.0.2.1', until: 'now' }, 400, 'until'],
    [{ value: '192.0.2.1', bouncers: [] }, 400, 'bouncers'],
    [{ value: '192.0.2.1', bouncers: 'web-1' }, 400, 'bouncers'],
    [{ value: '192.0.2.1', bouncers: ['web-1', 'a b'] }, 400, 'bouncers.1'],
    [{ value: '192.0.2.1', bouncers: Array.from({ length: 31 }, () => 'web-1') }, 400, 'bouncers'],
  ])('%j is refused, and the field is named', async (input, status, field) => {
    const answer = await allow('192.0.2.1', input);
    expect([answer.status, answer.body.errors[0].field]).toEqual([status, field]);
  });

  test('can be everything, with force', async () => {
    ban('192.0.2.1');
    await sync();
    expect((await allow('0.0.0.0/0', { force: true })).status).toBe(201);
    const client = bouncer();
    await client.pull(true);
    expect(client.banned()).toEqual([]);
  });

  test('is there once, changes with its ETag, and is audited', async () => {
    const { body } = await allow('192.0.2.1', { expires_in: '1h' });
    const path = `/api/v1/allowlist/${body.entry.id}`;
    expect((await allow('::ffff:192.0.2.1')).body.detail).toContain(
      `entry ${body.entry.id} allows it already`,
    );
    const patch = (etag: string | null, change: object) =>
      call(path, {
        method: 'PATCH',
        headers: { authorization: `Bearer ${operatorToken}`, ...(etag === null ? {} : { 'if-match': etag }) },
        body: JSON.stringify(change),
      });
    expect((await patch(null, { comment: 'home' })).status).toBe(428);
    expect((await patch('"7"', { comment: 'home' })).status).toBe(412);
    const changed = await patch('"1"', { comment: 'home', expires_in: null });
    expect(changed.headers.get('etag')).toBe('"2"');
    expect(await changed.json<any>()).toMatchObject({
      entry: { comment: 'home', expires_at: null, revision: 2 },
    });
    expect((await operator('DELETE', `/allowlist/${body.entry.id}`)).status).toBe(204);
    expect((await operator('DELETE', `/allowlist/${body.entry.id}`)).status).toBe(404);
    const { audit } = (await operator('GET', '/audit')).body;
    expect(audit.map(({ action, target }: any) => [action, target])).toEqual([
      ['allowlist.remove', '192.0.2.1'],
      ['allowlist.change', '192.0.2.1'],
      ['allowlist.add', '192.0.2.1'],
    ]);
  });

  test('is done once, however often it is sent', async () => {
    const send = async () =>
      call('/api/v1/allowlist', {
        method: 'POST',
        headers: { authorization: `Bearer ${operatorToken}`, 'idempotency-key': 'allow-1' },
        body: JSON.stringify({ value: '192.0.2.1', comment: 'office' }),
      });
    const first = await (await send()).json<any>();
    const second = await send();
    expect(second.headers.get('idempotent-replayed')).toBe('true');
    expect(await second.json()).toEqual(first);
  });

  test('needs the role of an operator; a viewer reads', async () => {
    const made = await operator('POST', '/operator-tokens', {
      name: 'eye',
      role: 'viewer',
      expires_in: '1d',
    });
    const headers = { authorization: `Bearer ${made.body.token}` };
    const body = JSON.stringify({ value: '192.0.2.1', comment: 'office' });
    expect((await call('/api/v1/allowlist', { method: 'POST', headers, body })).status).toBe(403);
    expect((await call('/api/v1/allowlist', { headers })).status).toBe(200);
  });

  test('has room for 10,000 entries, and is read in pages', async () => {
    await env.DB.exec(
      `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 9998) INSERT INTO allowed_networks (value, comment, created_ms, actor) SELECT '198.18.' || (i / 256) || '.' || (i % 256), 'x', 1, 'x' FROM n`,
    );
    ban('192.0.2.1');
    await sync();
    expect((await allow('192.0.2.1')).status).toBe(201);
    const refused = await allow('192.0.2.2');
    expect([refused.status, refused.body.detail]).toEqual([409, expect.stringContaining('10000 entries')]);
    const client = bouncer();
    await client.pull(true);
    expect(client.banned()).toEqual([]);
    const { entries, next } = (await operator('GET', '/allowlist?limit=2&after=9998')).body;
    expect([entries.map(({ id }: any) => id), next]).toEqual([[9999, 10000], 10000]);
  });
});

describe('the copy in the feed', () => {
  test('that could not be written is made from D1 again, and nobody was told that it had worked', async () => {
    ban('192.0.2.1');
    await sync();
    const client = bouncer();
    await client.pull(true);
    vi.spyOn(console, 'error').mockReturnValue();
    const inObject = (sql: string) =>
      runInDurableObject(feed(), (_, state) => void state.storage.sql.exec(sql));
    await inObject('DROP TABLE allowed; CREATE TABLE allowed (id TEXT)');
    expect((await allow('192.0.2.1')).status).toBe(503);
    await inObject('DROP TABLE allowed');
    await runDurableObjectAlarm(feed());
    await client.pull(false);
    expect(client.banned()).toEqual([]);
  });

  test('is read again where the object had gone before it learnt', async () => {
    ban('192.0.2.1');
    await sync();
    await env.DB.exec(
      `INSERT INTO allowed_networks (value, comment, created_ms, actor) VALUES ('192.0.2.1', 'x', 1, 'x')`,
    );
    await evictDurableObject(feed());
    await runDurableObjectAlarm(feed());
    const client = bouncer();
    await client.pull(true);
    expect(client.banned()).toEqual([]);
  });

  test('that is lost with all else is read before anybody is answered; who polls meanwhile gets an error', async () => {
    ban('192.0.2.1');
    ban('192.0.2.2');
    const key = await addBouncer('web-1');
    await sync();
    await allow('192.0.2.1');
    const rename = (from: string, to: string) => env.DB.exec(`ALTER TABLE ${from} RENAME TO ${to}`);
    await rename('allowed_networks', 'unreadable');
    await runInDurableObject(feed(), (_, { storage }) => storage.deleteAll());
    await evictDurableObject(feed());
    vi.spyOn(console, 'error').mockReturnValue();
    const polls = ['/stream?startup=true', '/stream', '?ip=192.0.2.1', ''];
    for (const query of polls) expect((await asBouncer(key, `/v1/decisions${query}`)).status).toBe(503);
    await rename('unreadable', 'allowed_networks');
    const { new: added } = await (await asBouncer(key, '/v1/decisions/stream?startup=true')).json<any>();
    expect(added.map(({ value }: any) => value)).toEqual(['192.0.2.2']);
    expect(await (await asBouncer(key, '/v1/decisions?ip=192.0.2.1')).json()).toBeNull();
  });

  test('goes on where D1 does not answer, with what was known', async () => {
    ban('192.0.2.1');
    await sync();
    await allow('192.0.2.1');
    await env.DB.exec('ALTER TABLE allowed_networks RENAME TO unreadable');
    await evictDurableObject(feed());
    vi.spyOn(console, 'error').mockReturnValue();
    await runDurableObjectAlarm(feed());
    const client = bouncer();
    await client.pull(true);
    expect(client.banned()).toEqual([]);
  });
});
