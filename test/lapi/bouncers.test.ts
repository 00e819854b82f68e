// What bouncers may rely on, line by line: each of these broke a real bouncer somewhere when it did not hold.
// The numbers are those of the list in docs/bouncers.md.
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { type ModelEngine } from '../support/model-engine.ts';
import { startEdge } from '../support/edge.ts';
import { addBouncer, asBouncer, call, operator } from '../support/http.ts';
import type { WireDecision } from '../support/bouncer.ts';

const hour = 3_600_000;
let engine: ModelEngine;
let key: string;

beforeEach(async () => {
  ({ engine, key } = await startEdge());
});

interface Stream {
  new: WireDecision[];
  deleted: WireDecision[];
}

const get = (path: string, headers: Record<string, string> = {}) => asBouncer(key, path, { headers });
const stream = async (query = ''): Promise<Stream> => (await get(`/v1/decisions/stream${query}`)).json();
const sync = () => operator('POST', '/feed/sync');

/** A list long enough to be streamed in several slices, and to be worth compressing. */
async function fill(count: number, untilMs = Date.now() + hour): Promise<void> {
  for (let index = 1; index <= count; index++) {
    engine.add({ value: `2001:db8::${index.toString(16)}`, untilMs });
  }
  await operator('POST', '/feed/sync?full=true');
}

describe('the stream', () => {
  test('1: 200, JSON, one object with both lists, also when nothing changed', async () => {
    for (const query of ['?startup=true', '', '?', '?startup=false', '']) {
      const response = await get(`/v1/decisions/stream${query}`);
      expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/json']);
      expect(await response.text()).toBe('{"new": [], "deleted": []}');
    }
  });

  test('2: all seven fields, none empty, ids as numbers below 2^31 and the same in both lists', async () => {
    const { id } = engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    await operator('POST', '/decisions', { value: '192.0.2.2', duration: '1h' });
    await sync();
    const { new: added } = await stream('?startup=true');
    engine.expire(id);
    await sync();
    const { deleted } = await stream();
    expect(deleted.map((ended) => ended.id)).toEqual([id]);
    for (const decision of [...added, ...deleted]) {
      const { id: number, ...texts } = decision;
      expect(Object.keys(texts).sort()).toEqual(['duration', 'origin', 'scenario', 'scope', 'type', 'value']);
      for (const text of Object.values(texts)) expect(text).toMatch(/^.+$/);
      expect(Number.isInteger(number) && number > 0 && number < 2 ** 31).toBe(true);
    }
  });

  test.each([0, 300])('2: ids ascend in both lists, in an answer of %d more as well', async (more) => {
    // Ours are above those of engines, and come in first; ends come in another order than bans did.
    await operator('POST', '/decisions', { value: '198.51.100.1', duration: '1h' });
    await operator('POST', '/decisions', { value: '198.51.100.2', duration: '1h' });
    await fill(more);
    const engines = ['192.0.2.1', '192.0.2.2', '192.0.2.3'].map((value) => {
      return engine.add({ value, untilMs: Date.now() + hour });
    });
    await sync();
    const start = await stream('?startup=true');
    await operator('DELETE', '/decisions?value=198.51.100.2');
    await operator('DELETE', '/decisions?value=198.51.100.1');
    for (const { id } of engines.toReversed()) {
      engine.expire(id);
      await sync();
    }
    const ends = [await stream(), await stream('?startup=true')];
    expect([start.new.length, ...ends.map(({ deleted }) => deleted.length)]).toEqual([more + 5, 5, 5]);
    for (const list of [start.new, ...ends.flatMap((each) => [each.new, each.deleted])]) {
      const ids = list.map(({ id }) => id);
      expect(ids).toEqual(ids.toSorted((a, b) => a - b));
    }
  });

  test('2: scopes are spelled Ip and Range, however the engine stored them', async () => {
    engine.add({ value: '192.0.2.1', scope: 'ip', untilMs: Date.now() + hour });
    await operator('POST', '/feed/sync?full=true');
    expect((await stream('?startup=true')).new[0].scope).toBe('Ip');
  });

  test('3: whole seconds, at least 1s in new, -Ns or 0s in deleted', async () => {
    engine.dialect = 'A';
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + 59_560 });
    engine.add({ value: '192.0.2.2', untilMs: Date.now() + 600 });
    const gone = engine.add({ value: '192.0.2.3', untilMs: Date.now() + hour });
    await sync();
    const { new: added } = await stream('?startup=true');
    expect(added.map(({ value }) => value)).toEqual(['192.0.2.1', '192.0.2.3']);
    for (const { duration } of added) expect(duration).toMatch(/^(\d+h)?(\d+m)?[1-9]\d*s$|^\d+h\d+m\d+s$/);
    engine.expire(gone.id);
    await sync();
    for (const { duration } of (await stream()).deleted) expect(duration).toMatch(/^(0s|-\d+s)$/);
  });

  test('4: one entry per scope, value and type, the longest; never one in both lists', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    const longest = engine.add({ value: '192.0.2.1', untilMs: Date.now() + 2 * hour });
    engine.add({ value: '192.0.2.1', type: 'captcha', untilMs: Date.now() + hour });
    await sync();
    const { new: added, deleted } = await stream('?startup=true');
    expect(added.map(({ id, type }) => [id, type])).toEqual([
      [longest.id, 'ban'],
      [expect.any(Number), 'captcha'],
    ]);
    expect(deleted).toEqual([]);
  });

  test('4: an end is not reported while another decision of the same kind is active', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + 2 * hour });
    const shorter = engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    await sync();
    await stream('?startup=true');
    engine.expire(shorter.id);
    await sync();
    expect(await stream()).toEqual({ new: [], deleted: [] });
  });

  test('5: a natural end is delivered as deleted', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + 30_000 });
    await sync();
    await stream('?startup=true');
    vi.setSystemTime(Date.now() + 31_000);
    expect((await stream()).deleted.map(({ value }) => value)).toEqual(['192.0.2.1']);
  });

  test('6: only ip and range unless scopes asks for more; unknown parameters are ignored', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    engine.add({ value: 'FR', scope: 'Country', untilMs: Date.now() + hour });
    await operator('POST', '/feed/sync?full=true');
    const values = async (query: string) =>
      (await stream(`?startup=true&${query}`)).new.map(({ value }) => value);
    expect(await values('')).toEqual(['192.0.2.1']);
    expect(await values('additional_pull=false&community_pull=false')).toEqual(['192.0.2.1']);
    expect(await values('scopes=ip%2Crange%2Ccountry')).toEqual(['192.0.2.1', 'FR']);
    expect(await values('scopes=IP,Country')).toEqual(['192.0.2.1', 'FR']);
    expect(await values('scope=ip,range')).toEqual(['192.0.2.1']);
  });

  test('7: a delta without a cursor is the full state', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    await sync();
    expect((await stream()).new).toHaveLength(1);
  });

  test('8: a start-up is answered while the engine is down', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    await sync();
    engine.fault = () => Promise.reject(new Error('down'));
    await sync();
    expect((await stream('?startup=true')).new).toHaveLength(1);
  });

  test.each([
    ['no Accept-Encoding', {}, null],
    ['gzip', { 'accept-encoding': 'gzip' }, 'gzip'],
    ['several', { 'accept-encoding': 'gzip, deflate, br, zstd' }, 'gzip'],
    ['brotli only', { 'accept-encoding': 'br' }, null],
    ['identity', { 'accept-encoding': 'identity' }, null],
    ['gzip refused', { 'accept-encoding': 'gzip;q=0, identity' }, null],
  ])('9: compressed exactly when it was asked for: %s', async (_, headers, encoding) => {
    await fill(2000);
    const response = await get('/v1/decisions/stream?startup=true', headers as Record<string, string>);
    expect(response.headers.get('content-encoding')).toBe(encoding);
    expect(response.headers.get('cache-control')).toContain('no-transform');
    const bytes = new Uint8Array(await response.arrayBuffer());
    const plain =
      bytes[0] === 0x1f ? new Response(bytes).body?.pipeThrough(new DecompressionStream('gzip')) : bytes;
    expect((await new Response(plain).json<Stream>()).new).toHaveLength(2000);
  });

  test('10: no redirect for a slash too many', async () => {
    for (const path of ['/v1/decisions/stream/', '//v1/decisions/stream', '//v1//decisions//stream']) {
      const response = await asBouncer(key, path, { redirect: 'manual' });
      expect([path, response.status]).toEqual([path, 200]);
    }
  });

  test('12: a body that breaks in the middle is not ended as if it were whole', async () => {
    await fill(5000);
    const { body } = await get('/v1/decisions/stream?startup=true');
    const reader = body?.getReader();
    await reader?.read();
    await reader?.cancel();
    expect((await stream()).new).toHaveLength(5000);
  });
});

describe('the list', () => {
  test('13: nothing is exactly the four bytes null', async () => {
    const response = await get('/v1/decisions?ip=192.0.2.1');
    expect([response.status, await response.text()]).toEqual([200, 'null']);
  });

  test('13: an address in a range matches, the ban comes first, filters narrow, pages end', async () => {
    engine.add({ value: '192.0.2.0/24', type: 'captcha', untilMs: Date.now() + 2 * hour });
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour, origin: 'crowdsec' });
    engine.add({ value: '2001:db8::/32', untilMs: Date.now() + hour });
    await sync();
    const list = async (query: string): Promise<WireDecision[] | null> =>
      (await get(`/v1/decisions?${query}`)).json();
    expect((await list('ip=192.0.2.1'))?.map(({ type }) => type)).toEqual(['ban', 'captcha']);
    expect((await list('ip=192.0.2.1&type=captcha'))?.map(({ value }) => value)).toEqual(['192.0.2.0/24']);
    expect((await list('ip=2001:DB8::7'))?.map(({ value }) => value)).toEqual(['2001:db8::/32']);
    expect((await list('range=192.0.2.0/23&contains=false'))?.length).toBe(2);
    expect((await list('scope=ip&value=192.0.2.1'))?.length).toBe(1);
    expect((await list('origins=crowdsec'))?.length).toBe(1);
    expect((await list('limit=2&offset=0'))?.length).toBe(2);
    expect((await list('limit=2&offset=2'))?.length).toBe(1);
    expect(await list('limit=2&offset=4')).toBeNull();
    expect((await list('limit=-1&offset=-1&id_gt=-1'))?.length).toBe(3);
    expect(await list('limit=0')).toBeNull();
  });

  test('15: a lookup is answered while the engine is down', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    await sync();
    engine.fault = () => Promise.reject(new Error('down'));
    await sync();
    expect(await (await get('/v1/decisions?ip=192.0.2.1')).json()).toHaveLength(1);
    expect(await (await get('/v1/decisions?ip=192.0.2.2')).text()).toBe('null');
  });

  test('14: HEAD is 200 without a body, and moves no cursor', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    await sync();
    for (const path of ['/v1/decisions', '/v1/decisions/stream', '/v1/decisions/stream?startup=true']) {
      const response = await asBouncer(key, path, { method: 'HEAD' });
      expect([response.status, await response.text()]).toEqual([200, '']);
    }
    expect((await stream()).new).toHaveLength(1);
  });

  test.each([
    'ip=zz',
    'ip=',
    'ip=192.0.2.0/33',
    'range=1.2.3',
    'ip=fe80::1%25eth0',
    'ip=192.0.2.1&contains=maybe',
    'limit=x',
  ])('bad input (%s) is a 400 that names the parameter', async (query) => {
    const response = await get(`/v1/decisions?${query}`);
    const { message } = await response.json<{ message: string }>();
    const field = query.includes('contains') ? 'contains' : query.slice(0, query.indexOf('='));
    expect([response.status, message.startsWith(`${field}:`)]).toEqual([400, true]);
  });
});

describe('everywhere', () => {
  test.each([
    ['an unknown path', 'GET', '/v1/nothing', 404],
    ['an unknown path beside /v1', 'GET', '/nothing', 404],
    ['a wrong method', 'POST', '/v1/decisions/stream', 405],
    ['OPTIONS', 'OPTIONS', '/v1/decisions', 405],
    ['no key', 'GET', '/v1/decisions', 403],
    ['bad metrics', 'POST', '/v1/usage-metrics', 400],
  ])('16: %s answers a JSON object with a text message', async (_, method, path, status) => {
    const headers: Record<string, string> = status === 403 ? {} : { 'x-api-key': key };
    const response = await call(path, { method, headers, ...(method === 'POST' ? { body: 'x' } : {}) });
    expect(response.status).toBe(status);
    expect(await response.json()).toEqual({ message: expect.any(String) });
  });

  test.each([
    ['none', {}],
    ['an empty one', { 'x-api-key': '' }],
    ['an unknown one', { 'x-api-key': 'f'.repeat(32) }],
    ['one in Authorization', { authorization: 'Bearer x' }],
  ])('17: a bad key (%s) is 403 access forbidden', async (_, headers) => {
    for (const path of ['/v1/decisions', '/v1/decisions/stream', '/v1/decisions/stream?startup=true']) {
      const response = await call(path, { headers: headers as Record<string, string> });
      expect([response.status, await response.text()]).toEqual([403, '{"message":"access forbidden"}']);
    }
  });

  test.each([
    ['POST', '/v1/decisions', 'GET, HEAD, DELETE'],
    ['PUT', '/v1/decisions/stream', 'GET, HEAD, DELETE'],
    ['GET', '/v1/decisions/1', 'DELETE'],
    ['GET', '/v1/usage-metrics', 'POST'],
    ['PUT', '/v1/alerts', 'GET, POST, HEAD, DELETE'],
    ['PUT', '/v1/alerts/1', 'GET, HEAD, DELETE'],
    ['HEAD', '/v1/allowlists', 'GET'],
    ['HEAD', '/v1/allowlists/mine', 'GET'],
    ['DELETE', '/v1/allowlists/check', 'GET, POST'],
    ['POST', '/v1/allowlists/check/192.0.2.1', 'GET, HEAD'],
    ['POST', '/health', 'GET'],
  ])('a 405 to %s %s allows what LAPI allows there: %s', async (method, path, allow) => {
    const response = await call(path, { method });
    expect([response.status, response.headers.get('allow')]).toEqual([405, allow]);
  });

  test('17: of a repeated header the first value counts', async () => {
    const headers = new Headers();
    headers.append('x-api-key', key);
    headers.append('x-api-key', 'bad');
    expect((await call('/v1/decisions', { headers })).status).toBe(200);
  });

  test('a client is one client, however its address is written', async () => {
    await fill(3);
    const from = async (address: string, query = ''): Promise<Stream> => {
      return (await get(`/v1/decisions/stream${query}`, { 'cf-connecting-ip': address })).json();
    };
    expect((await from('198.51.100.7:40001', '?startup=true')).new).toHaveLength(3);
    for (const address of ['198.51.100.7:40002', '::ffff:198.51.100.7']) {
      expect(await from(address)).toEqual({ new: [], deleted: [] });
    }
    const { body } = await operator('GET', '/bouncers/fw');
    expect(body.clients.map(({ address }: { address: string }) => address)).toEqual(['198.51.100.7']);
  });

  test('18: header names in any case, vyos’ apikey, any User-Agent, a Content-Type on GET', async () => {
    expect((await call('/v1/decisions', { headers: { 'X-API-KEY': key } })).status).toBe(200);
    expect((await call('/v1/decisions', { headers: { apikey: key } })).status).toBe(200);
    const odd = { 'user-agent': 'crowdsec-wasm-bouncer', 'content-type': 'application/json' };
    expect((await get('/v1/decisions', odd)).status).toBe(200);
  });

  test('19: usage metrics are 201 and empty, gzip too, and no stricter than clients are', async () => {
    const component = {
      type: 'lua-bouncer',
      name: 'nginx bouncer',
      version: 'crowdsec-nginx-bouncer/v1.1.3',
      feature_flags: {},
      utc_startup_timestamp: 1,
      metrics: [{ meta: { window_size_seconds: 0, utc_now_timestamp: 1 }, items: [] }],
    };
    const json = JSON.stringify({ remediation_components: [component], log_processors: null });
    const gzip = new Response(json).body?.pipeThrough(new CompressionStream('gzip'));
    const packed = await new Response(gzip).arrayBuffer();
    for (const init of [{ body: `${json}\n` }, { body: packed, headers: { 'content-encoding': 'gzip' } }]) {
      const response = await asBouncer(key, '/v1/usage-metrics', { method: 'POST', ...init });
      expect([response.status, await response.text()]).toEqual([201, '']);
    }
  });

  test.each(['gzip, br', 'br, gzip', 'gzip, gzip', 'br', 'x-gzip', 'gzip;q=1', 'none'])(
    '19: a body whose coding is %s is 415, and the answer says what is read',
    async (coding) => {
      const init = { method: 'POST', body: '{}', headers: { 'content-encoding': coding } };
      const response = await asBouncer(key, '/v1/usage-metrics', init);
      expect([response.status, response.headers.get('accept-encoding')]).toEqual([415, 'gzip']);
      expect(await response.json()).toEqual({ message: 'content-encoding: not gzip' });
    },
  );

  test.each(['', 'identity', 'GZIP', ' gzip ,'])('19: a body whose coding is %j is read', async (coding) => {
    const json = new Blob(['{"remediation_components":[{}]}']).stream();
    const packed = /gzip/i.test(coding) ? json.pipeThrough(new CompressionStream('gzip')) : json;
    const body = await new Response(packed).arrayBuffer();
    const init = { method: 'POST', body, headers: { 'content-encoding': coding } };
    expect((await asBouncer(key, '/v1/usage-metrics', init)).status).toBe(201);
  });

  test('19: a small body that unfolds to a large one is refused', async () => {
    const bomb = new Response(' '.repeat(8_000_000)).body?.pipeThrough(new CompressionStream('gzip'));
    const body = await new Response(bomb).arrayBuffer();
    const init = { method: 'POST', body, headers: { 'content-encoding': 'gzip' } };
    expect((await asBouncer(key, '/v1/usage-metrics', init)).status).toBe(413);
  });

  test('health is LAPI’s, with more beside it', async () => {
    const response = await call('/health');
    expect(response.headers.get('cache-control')).toBe('no-cache');
    expect(await response.json()).toMatchObject({ status: 'up' });
    expect((await call('/health', { method: 'POST' })).status).toBe(405);
  });
});

describe('the fast path', () => {
  test('answers a bouncer that is up to date without the feed, for 1 s at most after it saw the latest sequence', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    await stream('?startup=true');
    const quiet = await stream();
    expect(quiet).toEqual({ new: [], deleted: [] });
    // Past the operator API, which would tell this isolate: only the feed knows.
    await env.DECISION_FEED.getByName('default').addLocal({
      value: '192.0.2.1',
      scope: 'Ip',
      type: 'ban',
      scenario: 'test',
      untilMs: Date.now() + hour,
    });
    expect(await stream()).toEqual({ new: [], deleted: [] });
    vi.setSystemTime(Date.now() + 1_001);
    expect((await stream()).new).toHaveLength(1);
  });

  test('an operator’s ban is in the next poll', async () => {
    await stream('?startup=true');
    await stream();
    await operator('POST', '/decisions', { value: '192.0.2.1', duration: '1h' });
    expect((await stream()).new).toHaveLength(1);
  });

  test('a lookup that was made a moment ago is answered from memory, with what is left of its duration', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + 60_000 });
    await sync();
    const lookUp = async (ip: string): Promise<WireDecision[] | null> =>
      (await get(`/v1/decisions?ip=${ip}`)).json();
    expect((await lookUp('192.0.2.1'))?.[0].duration).toBe('1m0s');
    expect(await lookUp('192.0.2.2')).toBeNull();
    await env.DECISION_FEED.getByName('default').addLocal({
      value: '192.0.2.2',
      scope: 'Ip',
      type: 'ban',
      scenario: 'test',
      untilMs: Date.now() + hour,
    });
    vi.setSystemTime(Date.now() + 900);
    expect((await lookUp('192.0.2.1'))?.[0].duration).toBe('59s');
    expect(await lookUp('192.0.2.2')).toBeNull();
    vi.setSystemTime(Date.now() + 101);
    expect(await lookUp('192.0.2.2')).toHaveLength(1);
    await operator('DELETE', '/decisions?value=192.0.2.2');
    expect(await lookUp('192.0.2.2')).toBeNull();
  });

  test('a page of the list is not kept: whoever pages reads each once', async () => {
    for (const query of ['?limit=5', '?offset=0&limit=2', '?id_gt=1']) {
      const page = async () =>
        ((await (await get(`/v1/decisions${query}`)).json()) as unknown[] | null) ?? [];
      const before = (await page()).length;
      await env.DECISION_FEED.getByName('default').addLocal({
        value: `192.0.2.${query.length}`,
        scope: 'Ip',
        type: 'ban',
        scenario: 'test',
        untilMs: Date.now() + hour,
      });
      expect((await page()).length).toBe(before + 1);
    }
  });

  test('its polls are reported: last pull goes on', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    await stream('?startup=true');
    await stream();
    vi.setSystemTime(Date.now() + 1_000);
    await stream();
    const lastMs = Date.now();
    vi.setSystemTime(Date.now() + 5_000);
    const other = await addBouncer('other');
    await asBouncer(other, '/v1/decisions/stream');
    expect((await operator('GET', '/bouncers/fw')).body.last_pull).toBe(new Date(lastMs).toISOString());
  });
});

describe('when D1 is out of reach', () => {
  test('a key that was good reads decisions for 15 minutes, an unknown one is told to wait', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    expect((await get('/v1/decisions')).status).toBe(200);
    await env.DB.exec('ALTER TABLE key_epoch RENAME TO away');
    const logged = vi.spyOn(console, 'error').mockReturnValue();
    vi.setSystemTime(Date.now() + 14 * 60_000);
    expect((await get('/v1/decisions')).status).toBe(200);
    const unknown = await call('/v1/decisions', { headers: { 'x-api-key': 'f'.repeat(33) } });
    expect([unknown.status, await unknown.json()]).toEqual([503, { message: expect.any(String) }]);
    vi.setSystemTime(Date.now() + 2 * 60_000);
    expect((await get('/v1/decisions')).status).toBe(503);
    expect((await operator('POST', '/bouncers', { name: 'other' })).status).toBe(503);
    await env.DB.exec('ALTER TABLE away RENAME TO key_epoch');
    expect((await operator('POST', '/bouncers', { name: 'other' })).status).toBe(201);
    await env.DB.exec('ALTER TABLE key_versions RENAME TO gone');
    expect((await operator('POST', '/bouncers', { name: 'third' })).status).toBe(503);
    expect(logged).toHaveBeenCalled();
    expect(JSON.stringify(logged.mock.calls)).not.toMatch(/[0-9a-f]{64}/);
  });
});
