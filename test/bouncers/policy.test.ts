// What a key may do: which decisions it reads, from where, how often; and that a change of it reaches the bouncer
// in its next answers, additions and ends.
import { evictDurableObject, runDurableObjectAlarm } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { isAllowed } from '../../src/bouncers/policy.ts';
import { parseNetwork, type Network } from '../../src/formats/ip.ts';
import { consumeBootstrapLimit, consumeRateLimit } from '../../src/http/rate-limit.ts';
import { bouncer, everything, feed, limitsOf, type WireDecision } from '../support/bouncer.ts';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';
import { wholeMinute } from '../support/minute.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';

const hour = 3_600_000;
let engine: ModelEngine;

beforeEach(() => {
  engine = startModelEngine();
});

async function patch(
  name: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<{ status: number; body: any; etag: string | null }> {
  const response = await call(`/api/v1/bouncers/${name}`, {
    method: 'PATCH',
    headers: { authorization: `Bearer ${operatorToken}`, 'if-match': '*', ...headers },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: await response.json(), etag: response.headers.get('etag') };
}

const values = (decisions: readonly WireDecision[] | null) =>
  (decisions ?? []).map(({ value }) => value).sort();

async function poll(key: string, query = ''): Promise<{ new: string[]; deleted: string[] }> {
  const json = await (await asBouncer(key, `/v1/decisions/stream${query}`)).json<any>();
  return { new: values(json.new), deleted: values(json.deleted) };
}

const sync = () => operator('POST', '/feed/sync?full=true');
const quiet = { new: [], deleted: [] };

describe('changing a policy', () => {
  beforeEach(() => addBouncer('fw'));

  test('is shown, audited, and moves the ETag', async () => {
    const policy = {
      view: { scopes: ['Ip'], scenarios_not_containing: ['http'], max_decisions: 5 },
      allowed_addresses: ['192.0.2.0/24', '2001:db8::1'],
      rate_limit: { per_minute: 60 },
    };
    const sent = {
      ...policy,
      view: { ...policy.view, scopes: ['ip'] },
      allowed_addresses: ['192.0.2.7/24', '2001:DB8:0::1'],
    };
    const { status, body, etag } = await patch('fw', sent, { 'if-match': '"1"' });
    expect([status, etag, body.bouncer]).toEqual([200, '"2"', expect.objectContaining(policy)]);
    expect((await operator('GET', '/bouncers/fw')).body).toMatchObject(policy);
    const [row] = (await operator('GET', '/audit?limit=1')).body.audit;
    expect(row).toMatchObject({ action: 'bouncer.policy', target: 'fw', detail: policy });
  });

  test('what is not named stays, null removes a limit', async () => {
    await patch('fw', { view: { origins: ['cscli'] }, rate_limit: { per_minute: 10 } });
    const { body } = await patch('fw', { view: null });
    expect(body.bouncer).toMatchObject({
      view: null,
      rate_limit: { per_minute: 10 },
      allowed_addresses: null,
    });
  });

  test('needs If-Match, and the revision that is there', async () => {
    const init = {
      method: 'PATCH',
      headers: { authorization: `Bearer ${operatorToken}` },
      body: '{"view":null}',
    };
    expect((await call('/api/v1/bouncers/fw', init)).status).toBe(428);
    expect((await patch('fw', { view: null }, { 'if-match': '"9"' })).status).toBe(412);
    expect((await patch('nobody', { view: null })).status).toBe(404);
    expect((await operator('GET', '/bouncers/fw')).body.revision).toBe(1);
  });

  test('the same request twice with an Idempotency-Key changes once', async () => {
    const headers = { 'idempotency-key': 'k', 'if-match': '"1"' };
    const first = await patch('fw', { rate_limit: { per_minute: 10 } }, headers);
    const second = await patch('fw', { rate_limit: { per_minute: 10 } }, headers);
    expect([first.status, second.status, second.body]).toEqual([200, 200, first.body]);
    expect((await operator('GET', '/bouncers/fw')).body.revision).toBe(2);
  });

  test.each([
    ['body', {}],
    ['views', { views: null }],
    ['view', { view: [] }],
    ['view.scope', { view: { scope: ['ip'] } }],
    ['view.scopes', { view: { scopes: [] } }],
    ['view.origins.0', { view: { origins: [''] } }],
    ['view.scenarios_containing', { view: { scenarios_containing: 'ssh' } }],
    ['view.max_decisions', { view: { max_decisions: 20_001 } }],
    ['view.max_decisions', { view: { max_decisions: 0 } }],
    ['allowed_addresses', { allowed_addresses: [] }],
    ['allowed_addresses.1', { allowed_addresses: ['192.0.2.1', '192.0.2.0/33'] }],
    ['rate_limit', { rate_limit: 10 }],
    ['rate_limit.per_minute', { rate_limit: { per_minute: 11 } }],
    ['rate_limit.per_second', { rate_limit: { per_second: 1 } }],
    ['paused', { paused: null }],
    ['paused', { paused: 'true' }],
  ])('bad input names %s and changes nothing', async (field, body) => {
    const good = 'view' in body ? { rate_limit: { per_minute: 10 } } : { view: { origins: ['x'] } };
    const answer = await patch('fw', {
      ...good,
      ...(Object.keys(body).length > 0 ? body : undefined),
      ...(field === 'body' ? { view: undefined } : {}),
    });
    expect([answer.status, answer.body.errors[0].field]).toEqual([400, field]);
    expect((await operator('GET', '/bouncers/fw')).body).toMatchObject({
      view: null,
      rate_limit: null,
      silent_after: null,
      revision: 1,
    });
  });
});

describe('the view', () => {
  let key: string;
  beforeEach(async () => {
    key = await addBouncer('fw');
    const untilMs = Date.now() + hour;
    engine.add({ value: '192.0.2.1', origin: 'crowdsec', scenario: 'Ssh-bf', untilMs });
    engine.add({ value: '192.0.2.2', origin: 'CAPI', scenario: 'http-probing', untilMs });
    engine.add({ value: '198.51.100.0/24', origin: 'cscli', scenario: 'manual', untilMs });
    engine.add({ value: 'FR', scope: 'Country', origin: 'cscli', scenario: 'manual', untilMs });
    await sync();
  });

  const all = ['192.0.2.1', '192.0.2.2', '198.51.100.0/24'];
  test.each([
    ['scopes', { scopes: ['IP'] }, '', ['192.0.2.1', '192.0.2.2']],
    ['a scope that was not asked for', { scopes: ['country'] }, '', []],
    ['a scope that was', { scopes: ['country'] }, '&scopes=ip,country', ['FR']],
    ['origins', { origins: ['CAPI', 'cscli'] }, '', ['192.0.2.2', '198.51.100.0/24']],
    [
      'origins that were asked for too',
      { origins: ['CAPI', 'cscli'] },
      '&origins=cscli,crowdsec',
      ['198.51.100.0/24'],
    ],
    ['scenarios', { scenarios_containing: ['SSH', 'manual'] }, '', ['192.0.2.1', '198.51.100.0/24']],
    ['scenarios, both', { scenarios_containing: ['ssh', 'http'] }, '&scenarios_containing=p', ['192.0.2.2']],
    [
      'scenarios left out, both',
      { scenarios_not_containing: ['ssh'] },
      '&scenarios_not_containing=http',
      ['198.51.100.0/24'],
    ],
    ['nothing', null, '', all],
  ])('%s limit what is asked for, in the stream and in the list', async (_, view, query, expected) => {
    await patch('fw', { view });
    expect((await poll(key, `?startup=true${query}`)).new).toEqual(expected);
    const list = await (
      await asBouncer(key, `/v1/decisions?scopes=ip,range${query}`)
    ).json<WireDecision[] | null>();
    if (!query.includes('scopes')) expect(values(list)).toEqual(expected);
  });

  test('a live lookup is limited', async () => {
    await patch('fw', { view: { origins: ['CAPI'] } });
    expect(await (await asBouncer(key, '/v1/decisions?ip=192.0.2.1')).text()).toBe('null');
    expect(await (await asBouncer(key, '/v1/decisions?ip=192.0.2.2')).json()).toHaveLength(1);
  });

  test('a change is in the next two answers: what fell out, what came in, and nothing else', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    await patch('fw', { view: { origins: ['crowdsec', 'CAPI'] } });
    await poll(key, '?startup=true');
    expect(await poll(key)).toEqual(quiet);
    await patch('fw', { view: { origins: ['crowdsec', 'cscli'] } });
    const change = { new: ['198.51.100.0/24'], deleted: ['192.0.2.2'] };
    expect([await poll(key), await poll(key), await poll(key)]).toEqual([change, change, change]);
    // From the first answer on in whose time no isolate answers by the limits of before.
    vi.setSystemTime(Date.now() + 5_001);
    expect([await poll(key), await poll(key), await poll(key)]).toEqual([change, change, quiet]);
  });

  test('taking it away brings the rest', async () => {
    await patch('fw', { view: { origins: ['crowdsec'] } });
    await poll(key, '?startup=true');
    await patch('fw', { view: null });
    expect(await poll(key)).toEqual({ new: ['192.0.2.2', '198.51.100.0/24'], deleted: [] });
  });

  test('what fell out is deleted now, in whole seconds', async () => {
    await poll(key, '?startup=true');
    await patch('fw', { view: { scopes: ['Range'] } });
    const { deleted } = await (await asBouncer(key, '/v1/decisions/stream')).json<any>();
    expect(deleted.map(({ duration }: WireDecision) => duration)).toEqual(['0s', '0s']);
  });

  test('a value that stays for another reason is not deleted, but sent again when it stays shorter', async () => {
    engine.add({ value: '192.0.2.1', origin: 'cscli', untilMs: Date.now() + hour / 2 });
    await sync();
    await poll(key, '?startup=true');
    await patch('fw', { view: { origins: ['cscli'] } });
    expect(await poll(key)).toEqual({ new: ['192.0.2.1'], deleted: ['192.0.2.2'] });
  });

  test('a change that another isolate made holds after 5 s', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    await poll(key, '?startup=true');
    await poll(key);
    const view = JSON.stringify(limitsOf({ scopes: ['Range'] }));
    await env.DB.prepare('UPDATE bouncers SET view_json = ?').bind(view).run();
    await env.DB.exec('UPDATE key_epoch SET epoch = epoch + 1');
    vi.setSystemTime(Date.now() + 5_001);
    expect((await poll(key)).deleted).toEqual(['192.0.2.1', '192.0.2.2']);
  });
});

describe('a cap', () => {
  const cap = (maxDecisions: number) => ({ ...everything, limits: limitsOf({ maxDecisions }) });
  const ban = (value: string, origin: string, minutes: number) =>
    engine.add({ value, origin, untilMs: Date.now() + minutes * 60_000 });

  test('leaves the longest of local origin first, then the longest of the lists', async () => {
    ban('192.0.2.1', 'CAPI', 600);
    ban('192.0.2.2', 'lists', 500);
    ban('192.0.2.3', 'cscli', 10);
    ban('192.0.2.4', 'crowdsec', 20);
    await feed().addLocal({
      value: '192.0.2.5',
      scope: 'Ip',
      type: 'ban',
      scenario: 't',
      untilMs: Date.now() + 1e6,
    });
    await feed().sync({ full: true, force: false });
    for (const [most, expected] of [
      [1, ['4']],
      [2, ['4', '5']],
      [4, ['1', '3', '4', '5']],
      [9, ['1', '2', '3', '4', '5']],
    ] as const) {
      const client = bouncer({ view: cap(most), bouncerId: most });
      await client.pull(true);
      expect(client.banned()).toEqual(expected.map((last) => `192.0.2.${last}`));
    }
  });

  test('a better one pushes the last one out, and it comes back when there is room', async () => {
    ban('192.0.2.1', 'cscli', 30);
    ban('192.0.2.2', 'cscli', 20);
    const client = bouncer({ view: cap(2) });
    await client.pull(true);
    const better = ban('192.0.2.3', 'cscli', 60);
    await feed().sync({ full: true, force: false });
    const { added, ended } = await client.pull(false);
    expect([values(added), values(ended)]).toEqual([['192.0.2.3'], ['192.0.2.2']]);
    engine.expire(better.id);
    await feed().sync({ full: true, force: false });
    await client.pullAndLose();
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.1', '192.0.2.2']);
  });

  test('survives an eviction between any two answers, written down or not', async () => {
    for (let minutes = 1; minutes <= 4; minutes++) ban(`192.0.2.${minutes}`, 'cscli', 10 * minutes);
    const client = bouncer({ view: cap(2) });
    await client.pull(true);
    await runDurableObjectAlarm(feed());
    for (let round = 5; round <= 8; round++) {
      ban(`192.0.2.${round}`, 'cscli', 10 * round);
      await feed().sync({ full: true, force: false });
      await client.pull(false);
      if (round % 2 === 0) await evictDurableObject(feed());
    }
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.7', '192.0.2.8']);
  });

  test('counts values, also for who asks for everything twice', async () => {
    ban('192.0.2.1', 'cscli', 30);
    ban('192.0.2.1', 'cscli', 40);
    ban('192.0.2.2', 'cscli', 20);
    const client = bouncer({ view: { ...cap(2), dedup: false } });
    expect((await client.pull(true)).added).toHaveLength(2);
    expect(client.banned()).toEqual(['192.0.2.1', '192.0.2.2']);
  });

  test('on a bouncer that had everything delete the rest; without them it comes back', async () => {
    for (let index = 1; index <= 9; index++) ban(`192.0.2.${index}`, 'CAPI', index);
    const client = bouncer();
    await client.pull(true);
    client.limit(limitsOf({ maxDecisions: 3 }));
    expect((await client.pull(false)).ended).toHaveLength(6);
    expect(client.banned()).toHaveLength(3);
    // Limits that changed are not written behind.
    await evictDurableObject(feed());
    client.limit(null);
    await client.pull(false);
    expect(client.banned()).toHaveLength(9);
  });

  test('limits that come after a crash delete what the bouncer was given since its cursor was written', async () => {
    const client = bouncer();
    await client.pull(true);
    await runDurableObjectAlarm(feed());
    const late = ban('192.0.2.1', 'crowdsec', 10);
    await feed().sync({ full: true, force: false });
    await client.pull(false);
    await evictDurableObject(feed());
    engine.expire(late.id);
    await feed().sync({ full: true, force: false });
    client.limit(limitsOf({ origins: ['crowdsec'] }));
    await client.pull(false);
    expect(client.banned()).toEqual([]);
  });

  test('one whose cursor is lost is sent the removal of all that it may have beyond its limits', async () => {
    for (let index = 1; index <= 5; index++) ban(`192.0.2.${index}`, 'cscli', index);
    await feed().sync({ full: true, force: false });
    const { added, ended } = await bouncer({ view: cap(2), bouncerId: 77 }).pull(false);
    expect([added.length, ended.length]).toEqual([2, 3]);
  });

  test('holds for the list', async () => {
    for (let index = 1; index <= 5; index++) ban(`192.0.2.${index}`, 'cscli', index);
    await sync();
    const key = await addBouncer('small');
    await patch('small', { view: { max_decisions: 2 } });
    expect(values(await (await asBouncer(key, '/v1/decisions')).json())).toEqual(['192.0.2.4', '192.0.2.5']);
  });

  test('baselines that no client has any more are forgotten', async () => {
    const client = bouncer({ view: cap(1) });
    for (let round = 1; round <= 5; round++) {
      ban(`192.0.2.${round}`, 'cscli', round);
      await feed().sync({ full: true, force: false });
      await client.pull(round === 1);
    }
    await runDurableObjectAlarm(feed());
    await evictDurableObject(feed());
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.5']);
  });
});

describe('the addresses', () => {
  test.each([
    ['192.0.2.7', ['192.0.2.7'], true],
    ['192.0.2.8', ['192.0.2.7'], false],
    ['192.0.2.255', ['192.0.2.0/24'], true],
    ['192.0.3.0', ['192.0.2.0/24'], false],
    ['192.0.2.127', ['192.0.2.0/25'], true],
    ['192.0.2.128', ['192.0.2.0/25'], false],
    ['203.0.113.9', ['0.0.0.0/0'], true],
    ['2001:db8::1', ['0.0.0.0/0'], false],
    ['2001:db8::1', ['2001:db8::/32'], true],
    ['2001:db9::1', ['2001:db8::/32'], false],
    ['2001:0DB8:0:0:0:0:0:1', ['2001:db8::1'], true],
    ['2001:db8:0:8000::', ['2001:db8::/49'], false],
    ['2001:db8:0:7fff::', ['2001:db8::/49'], true],
    ['::1', ['::/0'], true],
    ['192.0.2.1', ['::/0'], false],
    ['::ffff:192.0.2.7', ['192.0.2.0/24'], true],
    ['::ffff:c000:207', ['192.0.2.7'], true],
    ['::ffff:192.0.2.7', ['::/0'], false],
    ['192.0.2.7', ['::ffff:192.0.2.0/120'], true],
    ['192.0.2.7', ['198.51.100.0/24', '192.0.2.7/32'], true],
    ['unknown', ['0.0.0.0/0', '::/0'], false],
    ['', ['0.0.0.0/0', '::/0'], false],
    ['192.0.2.7', null, true],
    ['unknown', null, true],
  ])('%s in %j: %s', (address, allowed, expected) => {
    const allow = allowed && allowed.map((text) => parseNetwork(text) as Network);
    expect(isAllowed({ limits: null, list: null, allow, perMinute: null, paused: false }, address)).toBe(
      expected,
    );
  });

  test('any other is refused like a bad key, on every route, and is not a first use', async () => {
    const key = await addBouncer('fw');
    await patch('fw', { allowed_addresses: ['192.0.2.0/24', '2001:db8::/32'] });
    const from = (address: string, path: string, init: RequestInit = {}) =>
      asBouncer(key, path, { ...init, headers: { 'cf-connecting-ip': address } });
    for (const address of ['192.0.2.9:40001', '[2001:DB8::9]:443', '::ffff:192.0.2.9']) {
      expect((await from(address, '/v1/decisions/stream?startup=true')).status).toBe(200);
    }
    for (const [method, path] of [
      ['GET', '/v1/decisions'],
      ['HEAD', '/v1/decisions'],
      ['GET', '/v1/decisions/stream'],
      ['POST', '/v1/usage-metrics'],
    ]) {
      const response = await from('198.51.100.9', path, { method });
      expect(response.status).toBe(403);
      if (method !== 'HEAD') expect(await response.text()).toBe('{"message":"access forbidden"}');
    }
    const { body } = await operator('POST', '/bouncers/fw/rotate', {});
    await asBouncer(body.key, '/v1/decisions', { headers: { 'cf-connecting-ip': '198.51.100.9' } });
    const { key_versions: versions } = (await operator('GET', '/bouncers/fw')).body;
    expect(versions.map(({ state }: { state: string }) => state)).toEqual(['current', 'next']);
  });
});

describe('the rate', () => {
  beforeEach(() => wholeMinute());

  test('beyond it: 429 with LAPI’s body and Retry-After, on the fast path too, for this bouncer only', async () => {
    const [key, other] = [await addBouncer('fw'), await addBouncer('other')];
    await patch('fw', { rate_limit: { per_minute: 10 } });
    const statuses: number[] = [];
    for (let request = 0; request < 11; request++) {
      const response = await asBouncer(key, '/v1/decisions/stream');
      statuses.push(response.status);
      if (response.status !== 429) continue;
      expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
      expect(await response.json()).toEqual({ message: expect.stringContaining('too many requests') });
    }
    expect(statuses).toEqual([...Array(10).fill(200), 429]);
    expect((await asBouncer(other, '/v1/decisions/stream')).status).toBe(200);
    await patch('fw', { rate_limit: null });
    expect((await asBouncer(key, '/v1/decisions/stream')).status).toBe(200);
  });

  test('what is refused for it is not the first use of a new key', async () => {
    const key = await addBouncer('fw');
    await patch('fw', { rate_limit: { per_minute: 10 } });
    for (let request = 0; request < 10; request++) await asBouncer(key, '/v1/decisions/stream');
    const { body } = await operator('POST', '/bouncers/fw/rotate', {});
    expect((await asBouncer(body.key, '/v1/decisions/stream')).status).toBe(429);
    const { key_versions: versions } = (await operator('GET', '/bouncers/fw')).body;
    expect(versions.map(({ state }: { state: string }) => state)).toEqual(['current', 'next']);
  });

  test('without bindings, as on plain workerd, this isolate counts whole minutes', async () => {
    const take = (nowMs: number) => consumeRateLimit({} as Env, 4711, 10, nowMs);
    for (let turn = 0; turn < 10; turn++) expect(await take(1_000_000 + turn)).toBeNull();
    expect(await take(1_020_000)).toBe(40);
    expect(await take(1_060_000)).toBeNull();
  });

  test('there, tens of thousands of made-up addresses set back nobody’s count but their own', async () => {
    const nowMs = 2_000_000;
    const bouncer = () => consumeRateLimit({}, 4712, 10, nowMs);
    const from = (address: string) => consumeBootstrapLimit({}, address, nowMs);
    for (let turn = 0; turn < 10; turn++) expect(await bouncer()).toBeNull();
    for (let turn = 0; turn < 120; turn++) expect(await from('192.0.2.1')).toBeNull();
    for (let at = 0; at < 48_000; at++) {
      expect(await from(`2001:db8:${at.toString(16)}::1`)).toBeNull();
      if (at % 1_000 === 0) expect(await from('192.0.2.1')).toBe(60);
    }
    expect(await bouncer()).toBe(60);
  });
});

describe('a paused bouncer', () => {
  let key: string;
  beforeEach(async () => {
    key = await addBouncer('fw');
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    await sync();
  });

  const statusOf = async (path: string, init: RequestInit = {}) => (await asBouncer(key, path, init)).status;
  const report = { method: 'POST', body: '{"remediation_components":[{}]}' };

  test('is refused like an unknown key, whatever it asks, until it is resumed', async () => {
    expect(await poll(key, '?startup=true')).toEqual({ new: ['192.0.2.1'], deleted: [] });
    await patch('fw', { paused: true });
    const refused = await asBouncer(key, '/v1/decisions/stream');
    expect([refused.status, await refused.json()]).toEqual([403, { message: 'access forbidden' }]);
    expect(await statusOf('/v1/decisions?ip=192.0.2.1')).toBe(403);
    expect(await statusOf('/v1/decisions', { method: 'HEAD' })).toBe(403);
    expect(await statusOf('/v1/usage-metrics', report)).toBe(403);
    await patch('fw', { paused: false });
    expect(await statusOf('/v1/decisions?ip=192.0.2.1')).toBe(200);
    expect(await statusOf('/v1/usage-metrics', report)).toBe(201);
  });

  test('keeps its place: resumed it gets what came and went meanwhile, and no more', async () => {
    await poll(key, '?startup=true');
    for (let quiets = 0; quiets < 2; quiets++) expect(await poll(key)).toEqual(quiet);
    await patch('fw', { paused: true });
    engine.add({ value: '192.0.2.2', untilMs: Date.now() + hour });
    engine.expire(1);
    await sync();
    for (let tries = 0; tries < 3; tries++) expect(await statusOf('/v1/decisions/stream')).toBe(403);
    await patch('fw', { paused: false });
    expect(await poll(key)).toEqual({ new: ['192.0.2.2'], deleted: ['192.0.2.1'] });
  });

  test('does not begin the grace of a rotation', async () => {
    const rotated = await operator('POST', '/bouncers/fw/rotate', { grace: '1m' });
    await patch('fw', { paused: true });
    expect((await asBouncer(rotated.body.key, '/v1/decisions/stream')).status).toBe(403);
    const { body } = await operator('GET', '/bouncers/fw');
    expect(body.key_versions.map(({ state }: { state: string }) => state)).toEqual(['current', 'next']);
  });

  test('is shown with the moment since when, and audited', async () => {
    expect((await operator('GET', '/bouncers/fw')).body).toMatchObject({ paused: false, paused_at: null });
    const first = (await patch('fw', { paused: true })).body.bouncer;
    expect(first).toMatchObject({ paused: true, paused_at: expect.any(String) });
    const again = (await patch('fw', { paused: true, view: { origins: ['cscli'] } })).body.bouncer;
    expect(again).toMatchObject({ paused_at: first.paused_at, view: { origins: ['cscli'] } });
    await patch('fw', { rate_limit: { per_minute: 60 } });
    await patch('fw', { paused: false });
    const rows = (await operator('GET', '/audit?limit=4')).body.audit;
    expect(rows.map(({ action }: { action: string }) => action)).toEqual([
      'bouncer.resume',
      'bouncer.policy',
      'bouncer.pause',
      'bouncer.pause',
    ]);
    expect(rows.map(({ detail }: any) => detail.paused_at)).toEqual([
      null,
      first.paused_at,
      first.paused_at,
      first.paused_at,
    ]);
  });
});
