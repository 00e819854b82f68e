// Lists for appliances, as a device sees them: how it says who it is, what it gets, and what it is told when nothing changed
// or something is wrong.
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { serveWith, startEdge } from '../support/edge.ts';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';
import type { ModelEngine } from '../support/model-engine.ts';

const hour = 3_600_000;
let engine: ModelEngine;
let key: string;

beforeEach(async () => {
  ({ engine, key } = await startEdge());
});

const sync = () => operator('POST', '/feed/sync?full=true');

async function ban(...values: string[]): Promise<void> {
  for (const value of values) engine.add({ value, untilMs: Date.now() + hour });
  await sync();
}

const basic = (password: string, user = 'fw') => ({ authorization: `Basic ${btoa(`${user}:${password}`)}` });

const get = (file: string, headers: Record<string, string> = {}, method = 'GET') =>
  call(`/lists/${file}`, { method, headers: { ...basic(key), ...headers } });

/** The lines of a list that is there. */
async function lines(file: string): Promise<string[]> {
  const response = await get(file);
  expect(response.status).toBe(200);
  return (await response.text()).split('\n').slice(0, -1);
}

async function patch(policy: object): Promise<number> {
  const response = await call('/api/v1/bouncers/fw', {
    method: 'PATCH',
    headers: { authorization: `Bearer ${operatorToken}`, 'if-match': '*' },
    body: JSON.stringify(policy),
  });
  await response.text();
  return response.status;
}

describe('who asks', () => {
  beforeEach(() => ban('192.0.2.1'));

  test('a bouncer: by Basic with any user name, as a bearer, or as bouncers do', async () => {
    const ways = [
      basic(key),
      basic(key, ''),
      basic(key, 'somebody'),
      { authorization: `bearer ${key}` },
      { 'x-api-key': key },
    ];
    for (const headers of ways) {
      const response = await call('/lists/plain', { headers });
      expect([response.status, await response.text()]).toEqual([200, '192.0.2.1\n']);
    }
  });

  test('a key that opens nothing is a 401 that asks for Basic', async () => {
    const ways = [
      {},
      basic('csb_no-key-of-anybody'),
      { authorization: 'Basic !!!' },
      { authorization: 'Basic' },
      { authorization: `Basic ${btoa(key)}` },
      { authorization: `Digest ${key}` },
      { 'x-api-key': 'no-key-of-anybody' },
    ];
    for (const headers of ways as Record<string, string>[]) {
      for (const method of ['GET', 'HEAD']) {
        const response = await call('/lists/plain', { method, headers });
        await response.text();
        expect([response.status, response.headers.get('www-authenticate')]).toEqual([
          401,
          'Basic realm="lapidary"',
        ]);
      }
    }
  });

  test('a revoked key is one', async () => {
    expect((await get('plain')).status).toBe(200);
    const revoked = await operator('POST', '/bouncers/fw/versions/1/revoke', {});
    expect(revoked.status).toBeLessThan(300);
    expect((await get('plain')).status).toBe(401);
  });

  test('where a key may not be used, or while it is paused, it is a 403', async () => {
    expect(await patch({ allowed_addresses: ['203.0.113.9'] })).toBe(200);
    expect((await get('plain')).status).toBe(403);
    expect(await patch({ allowed_addresses: null, paused: true })).toBe(200);
    expect((await get('plain')).status).toBe(403);
  });

  test('a key in the address is refused, and not repeated', async () => {
    for (const query of [`key=${key}`, `api_key=${key}`, `X-Api-Key=${key}`, `password=${key}`, key]) {
      const response = await call(`/lists/plain?${query}`);
      const text = await response.text();
      expect([response.status, text]).toEqual([
        400,
        expect.stringContaining('does not belong in an address'),
      ]);
      expect(text).not.toContain(key);
    }
  });

  test('when keys can not be checked it is a 503, never a 401', async () => {
    vi.spyOn(console, 'error').mockReturnValue();
    const out = (): never => {
      throw new Error('out of reach');
    };
    const bindings = { ...env, DB: { prepare: out, batch: out } };
    const other = await serveWith(bindings, '/lists/plain', { headers: basic('csb_never-seen-before') });
    expect(other.status).toBe(503);
    expect(Number(other.headers.get('retry-after'))).toBeGreaterThan(0);
  });

  test('it is a pull: the bouncer was seen, from where and with what', async () => {
    await get('paloalto', { 'user-agent': 'PAN-OS/11.1.2' });
    const { body } = await operator('GET', '/bouncers/fw');
    expect(body).toMatchObject({ type: 'PAN-OS', version: '11.1.2', last_pull: expect.any(String) });
    expect(body.key_versions[0].first_used).toEqual(expect.any(String));
  });

  test('a rate limit holds', async () => {
    expect(await patch({ rate_limit: { per_minute: 10 } })).toBe(200);
    const statuses: number[] = [];
    for (let time = 0; time < 12; time++) statuses.push((await get('plain', {}, 'HEAD')).status);
    expect(statuses.filter((status) => status === 200)).toHaveLength(10);
    expect(statuses.at(-1)).toBe(429);
  });
});

describe('what a list has', () => {
  test('bans on addresses and ranges, each network once, in order; nothing else', async () => {
    await ban('198.51.100.9', '192.0.2.0/24', '192.0.2.1', '2001:db8::1', '2001:DB8:0::2', '192.0.2.7/32');
    await ban('192.0.2.1');
    engine.add({ value: 'DE', scope: 'Country', untilMs: Date.now() + hour });
    engine.add({ value: '192.0.2.99', type: 'captcha', untilMs: Date.now() + hour });
    engine.add({ value: 'no address', untilMs: Date.now() + hour });
    await sync();
    const all = ['192.0.2.0/24', '192.0.2.1', '192.0.2.7', '198.51.100.9', '2001:db8::1', '2001:db8::2'];
    expect(await lines('plain')).toEqual(all);
    expect(await lines('plain.txt')).toEqual(all);
    expect(JSON.parse(await (await get('json')).text())).toEqual(all);
    expect(await lines('plain?family=4')).toEqual(all.slice(0, 4));
    expect(await lines('plain?family=6')).toEqual(all.slice(4));
    expect(await lines('plain?aggregate=1')).toEqual([
      '192.0.2.0/24',
      '198.51.100.9',
      '2001:db8::1',
      '2001:db8::2',
    ]);
  });

  test('of a range with an allowed address in it the rest, until the entry goes', async () => {
    await ban('192.0.2.0/29', '198.51.100.9');
    const before = await get('plain');
    await before.text();
    for (const value of ['192.0.2.3', '198.51.100.9']) {
      const { status } = await operator('POST', '/allowlist', { value, comment: 'office' });
      expect(status).toBe(201);
    }
    const rest = ['192.0.2.0/31', '192.0.2.2', '192.0.2.4/30'];
    expect(await lines('plain')).toEqual(rest);
    expect(await lines('cisco?aggregate=1')).toEqual(rest);
    expect(await lines('sophos')).toEqual(['192.0.2.2']);
    expect((await lines('checkpoint')).slice(1).map((line) => line.split(',').slice(0, 3))).toEqual([
      [expect.stringMatching(/^lapidary-\d+-192-0-2-0$/), '192.0.2.0-192.0.2.1', 'IP Range'],
      [expect.stringMatching(/^lapidary-\d+-192-0-2-2$/), '192.0.2.2', 'IP'],
      [expect.stringMatching(/^lapidary-\d+-192-0-2-4$/), '192.0.2.4-192.0.2.7', 'IP Range'],
    ]);
    const etag = before.headers.get('etag')!;
    expect((await get('plain', { 'if-none-match': etag })).status).toBe(200);
    const { body } = await operator('GET', '/allowlist');
    for (const { id } of body.entries) await operator('DELETE', `/allowlist/${id}`);
    expect((await get('plain', { 'if-none-match': etag })).status).toBe(304);
  });

  test('a view of its bouncer holds, and the query narrows it', async () => {
    engine.add({ value: '192.0.2.1', origin: 'CAPI', untilMs: Date.now() + hour });
    engine.add({ value: '192.0.2.2', origin: 'crowdsec', untilMs: Date.now() + hour });
    engine.add({ value: '192.0.2.3', origin: 'cscli', untilMs: Date.now() + hour });
    await sync();
    expect(await lines('plain?origins=CAPI,cscli')).toEqual(['192.0.2.1', '192.0.2.3']);
    await patch({ view: { origins: ['crowdsec', 'cscli'] } });
    expect(await lines('plain')).toEqual(['192.0.2.2', '192.0.2.3']);
    expect(await lines('plain?origins=CAPI,cscli')).toEqual(['192.0.2.3']);
  });

  test('under a limit our own come first, then the longest; merged before it is cut', async () => {
    const add = (value: string, origin: string, hours: number) =>
      engine.add({ value, origin, untilMs: Date.now() + hours * hour });
    add('192.0.2.1', 'CAPI', 9);
    add('192.0.2.3', 'lists:one', 5);
    add('192.0.2.5', 'crowdsec', 1);
    add('2001:db8::1', 'CAPI', 7);
    await sync();
    await operator('POST', '/decisions', { value: '198.51.100.0', duration: '1h' });
    await operator('POST', '/decisions', { value: '198.51.100.1', duration: '2h' });
    const cut = await get('plain?limit=4');
    expect((await cut.text()).split('\n')).toEqual([
      '192.0.2.1',
      '192.0.2.5',
      '198.51.100.0',
      '198.51.100.1',
      '',
    ]);
    expect(cut.headers.get('x-lapidary-omitted')).toBe('2');
    const merged = await get('plain?limit=4&aggregate=1');
    expect((await merged.text()).split('\n')).toEqual([
      '192.0.2.1',
      '192.0.2.5',
      '198.51.100.0/31',
      '2001:db8::1',
      '',
    ]);
    expect(merged.headers.get('x-lapidary-omitted')).toBe('1');
    expect((await get('plain?limit=6')).headers.get('x-lapidary-omitted')).toBeNull();
    expect(await lines('plain?limit=1')).toEqual(['198.51.100.1']);
    await patch({ view: { max_decisions: 2 } });
    expect(await lines('plain')).toEqual(['198.51.100.0', '198.51.100.1']);
  });

  test('what is left out is counted', async () => {
    const countOf = async (series: string): Promise<number> => {
      const metrics = await call('/metrics', { headers: { authorization: `Bearer ${operatorToken}` } });
      const line = (await metrics.text()).split('\n').find((each) => each.startsWith(`${series} `));
      return Number(line?.slice(series.length) ?? 0);
    };
    const omitted = 'lapidary_bouncer_list_omitted_total{bouncer="fw"}';
    const requests = 'cs_lapi_bouncer_requests_total{bouncer="fw",route="/lists",method="GET"}';
    await ban('192.0.2.1', '192.0.2.9', '2001:db8::1');
    // What this isolate counted before is a part of it.
    const before = [await countOf(omitted), await countOf(requests)] as const;
    expect(await lines('plain?limit=1')).toHaveLength(1);
    expect(await lines('checkpoint')).toHaveLength(3);
    expect((await get('checkpoint')).headers.get('x-lapidary-omitted')).toBe('1');
    expect([(await countOf(omitted)) - before[0], (await countOf(requests)) - before[1]]).toEqual([4, 3]);
  });

  test('an empty list is empty, or has the placeholder', async () => {
    await sync();
    const response = await get('plain');
    expect([response.status, response.headers.get('content-length'), await response.text()]).toEqual([
      200,
      '0',
      '',
    ]);
    expect(await lines('plain?placeholder=203.0.113.77')).toEqual(['203.0.113.77']);
    expect(await lines('pfsense')).toEqual(['192.0.2.1']);
    expect(await lines('cisco?placeholder=2001:db8::ffff')).toEqual(['2001:db8::ffff']);
    expect(await lines('juniper?placeholder=203.0.113.77')).toEqual(['203.0.113.77/32']);
    await ban('198.51.100.1');
    expect(await lines('pfsense')).toEqual(['198.51.100.1']);
  });

  test('vendors’ names have what their devices read', async () => {
    await ban('192.0.2.1', '198.51.100.0/24', '2001:db8::1');
    expect(await lines('juniper.txt')).toEqual(['192.0.2.1/32', '198.51.100.0/24', '2001:db8::1/128']);
    expect(await lines('sophos')).toEqual(['192.0.2.1']);
    expect((await get('sophos')).headers.get('x-lapidary-omitted')).toBe('1');
    for (const name of ['paloalto', 'fortigate', 'cisco', 'pfsense', 'opnsense']) {
      expect(await lines(name)).toEqual(['192.0.2.1', '198.51.100.0/24', '2001:db8::1']);
    }
    const [, first] = await lines('checkpoint');
    expect(first).toMatch(/^lapidary-\d+,192\.0\.2\.1,IP,high,high,AB,test$/);
    expect((await lines('mikrotik?list=crowdsec-a'))[0]).toBe(
      ':do { /ip firewall address-list add list=crowdsec-a address=192.0.2.1 timeout=1h comment="test" } on-error={}',
    );
  });

  test('what its policy fixes counts, whatever the device asks for', async () => {
    await ban('192.0.2.0', '192.0.2.1', '192.0.2.9', '2001:db8::1');
    const list = { family: 4, limit: 1, aggregate: true, placeholder: '203.0.113.77' };
    await patch({ view: { scopes: ['ip', 'range'] }, rate_limit: { per_minute: 600 } });
    expect(await patch({ list })).toBe(200);
    expect((await operator('GET', '/bouncers/fw')).body).toMatchObject({
      list,
      view: { scopes: ['Ip', 'Range'] },
      rate_limit: { per_minute: 600 },
    });
    expect(await lines('plain?family=6&limit=99&aggregate=0&placeholder=2001:db8::77')).toHaveLength(1);
    await patch({ list: { aggregate: true } });
    expect(await lines('plain?family=4')).toEqual(['192.0.2.0/31', '192.0.2.9']);
    await patch({ view: null });
    expect((await operator('GET', '/bouncers/fw')).body).toMatchObject({
      list: { aggregate: true },
      view: null,
    });
    await patch({ list: null });
    expect((await operator('GET', '/bouncers/fw')).body).toMatchObject({ list: null, view: null });
    expect(await lines('plain?family=4')).toHaveLength(3);
  });
});

test.each([
  ['plain?family=5', 'family'],
  ['plain?limit=0', 'limit'],
  ['plain?limit=5000001', 'limit'],
  ['plain?limit=1e3', 'limit'],
  ['plain?limit=1&limit=2', 'limit'],
  ['plain?aggregate=yes', 'aggregate'],
  ['plain?origins=', 'origins'],
  ['plain?placeholder=192.0.2.0/24', 'placeholder'],
  ['plain?placeholder=nobody', 'placeholder'],
  ['plain?family=6&placeholder=192.0.2.1', 'placeholder'],
  ['checkpoint?placeholder=2001:db8::1', 'placeholder'],
  ['sophos?placeholder=2001:db8::1', 'placeholder'],
  // All of its bans are then of addresses that it can not have.
  ['checkpoint?family=6', 'family'],
  ['sophos?family=6', 'family'],
  ['plain?types=ban', 'types'],
  ['plain?list=crowdsec', 'list'],
  ['mikrotik?list=a%20b', 'list'],
  ['plain?%22%3C=1', 'query'],
])('/lists/%s is a 400 that names %s', async (file, field) => {
  const response = await get(file);
  const body = await response.json<any>();
  expect([response.status, body.errors[0].field]).toEqual([400, field]);
});

test.each([
  [{ family: 5 }, 'list.family'],
  [{ limit: 5_000_001 }, 'list.limit'],
  [{ placeholder: '192.0.2.0/24' }, 'list.placeholder'],
  [{ origins: ['CAPI'] }, 'list.origins'],
])('a policy of %j is a 400 that names %s', async (list, field) => {
  const { status, body } = await operator('PATCH', '/bouncers/fw', { list });
  expect(status).toBe(428);
  expect(body).toBeTruthy();
  const response = await call('/api/v1/bouncers/fw', {
    method: 'PATCH',
    headers: { authorization: `Bearer ${operatorToken}`, 'if-match': '*' },
    body: JSON.stringify({ list }),
  });
  expect([response.status, (await response.json<any>()).errors[0].field]).toEqual([400, field]);
});

test('other names are a 404 that says which there are, other methods a 405', async () => {
  for (const file of ['nothing', 'plain.csv', 'constructor', '__proto__']) {
    const response = await get(file);
    expect([response.status, await response.text()]).toEqual([404, expect.stringContaining('paloalto')]);
  }
  const response = await get('plain', {}, 'POST');
  expect([response.status, response.headers.get('allow')]).toEqual([405, 'GET, HEAD']);
});

describe('caching', () => {
  beforeEach(async () => {
    await ban('192.0.2.1', '198.51.100.0/24');
    vi.useFakeTimers({ toFake: ['Date'] });
  });

  /** An answer once the second in which its list changed is over: it has a date then. */
  async function dated(file: string): Promise<Response> {
    await (await get(file)).text();
    vi.setSystemTime(Date.now() + 1_000);
    return get(file);
  }

  const named = (response: Response) =>
    ['etag', 'last-modified', 'content-length', 'content-type', 'cache-control', 'vary'].map((name) =>
      response.headers.get(name),
    );

  test('a HEAD has the headers of the GET, and no body', async () => {
    for (const file of ['plain', 'checkpoint', 'json', 'juniper.txt']) {
      const [whole, head] = [await dated(file), await get(file, {}, 'HEAD')];
      const text = await whole.text();
      expect([head.status, await head.text()]).toEqual([200, '']);
      expect(named(head)).toEqual(named(whole));
      expect(whole.headers.get('content-length')).toBe(String(text.length));
      expect(whole.headers.get('etag')).toMatch(/^"[0-9a-f]{32}"$/);
      expect(whole.headers.get('cache-control')).toBe('private, no-cache, no-transform');
      expect(whole.headers.get('vary')).toBe('Authorization, X-Api-Key, Accept-Encoding');
    }
  });

  test('who has it already gets a 304 without a body', async () => {
    const first = await dated('plain');
    await first.text();
    const etag = first.headers.get('etag')!;
    const modified = first.headers.get('last-modified')!;
    for (const tags of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
      for (const method of ['GET', 'HEAD']) {
        const again = await get('plain', { 'if-none-match': tags }, method);
        expect([again.status, again.headers.get('etag'), await again.text()]).toEqual([304, etag, '']);
      }
    }
    expect((await get('plain', { 'if-modified-since': modified })).status).toBe(304);
    expect((await get('plain', { 'if-none-match': '"other"', 'if-modified-since': modified })).status).toBe(
      200,
    );
    expect((await get('juniper', { 'if-none-match': etag })).status).toBe(200);
    expect((await get('plain?family=4', { 'if-none-match': etag })).status).toBe(304);
  });

  test('a ban that is renewed, or doubled by another, changes nothing; another one does', async () => {
    const first = await get('plain');
    await first.text();
    const etag = first.headers.get('etag')!;
    await ban('192.0.2.1');
    expect((await get('plain', { 'if-none-match': etag })).status).toBe(304);
    await ban('203.0.113.1');
    const second = await get('plain', { 'if-none-match': etag });
    expect([second.status, await second.text()]).toEqual([200, '192.0.2.1\n198.51.100.0/24\n203.0.113.1\n']);
    for (const row of engine.active()) if (row.value === '203.0.113.1') engine.expire(row.id);
    await sync();
    expect((await get('plain', { 'if-none-match': etag })).status).toBe(304);
  });

  test('a list has a date when the second in which it changed is over', async () => {
    vi.setSystemTime(Math.floor(Date.now() / 1000) * 1000 + 60_000);
    const changedMs = Date.now();
    const dateAt = async (ms: number): Promise<number | null> => {
      vi.setSystemTime(changedMs + ms);
      const response = await get('plain');
      await response.text();
      const date = response.headers.get('last-modified');
      return date === null ? null : Date.parse(date) - changedMs;
    };
    expect([await dateAt(0), await dateAt(999), await dateAt(1_000), await dateAt(9_000)]).toEqual([
      null,
      null,
      0,
      0,
    ]);
    // Another change in the next second has that one.
    await operator('POST', '/decisions', { value: '203.0.113.1', duration: '1h' });
    expect([await dateAt(9_100), await dateAt(10_000)]).toEqual([null, 9_000]);
  });

  test('two changes in one second: nobody keeps the first list for the second', async () => {
    vi.setSystemTime(Math.floor(Date.now() / 1000) * 1000 + 60_000);
    const date = new Date().toUTCString();
    const modifiedSince = async (since: string) => {
      const response = await get('plain', { 'if-modified-since': since });
      return [response.status, (await response.text()).includes('203.0.113.1')];
    };
    expect(await modifiedSince(date)).toEqual([200, false]);
    await operator('POST', '/decisions', { value: '203.0.113.1', duration: '1h' });
    expect(await modifiedSince(date)).toEqual([200, true]);
    vi.setSystemTime(Date.now() + 2_000);
    const later = (await dated('plain')).headers.get('last-modified')!;
    expect(Date.parse(later)).toBeGreaterThan(Date.parse(date));
    expect(await modifiedSince(later)).toEqual([304, false]);
    expect(await modifiedSince(date)).toEqual([200, true]);
  });

  test('with the clock set back, what changed since goes out', async () => {
    const first = await dated('plain');
    await first.text();
    const modified = first.headers.get('last-modified')!;
    vi.setSystemTime(Date.now() - 30 * 60_000);
    await operator('POST', '/decisions', { value: '203.0.113.1', duration: '2h' });
    const second = await get('plain', { 'if-modified-since': modified });
    expect([second.status, (await second.text()).includes('203.0.113.1')]).toEqual([200, true]);
  });

  test('gzip for who asks for it, and it is another text', async () => {
    const plain = await get('plain');
    const text = await plain.text();
    const packed = await asBouncer(key, '/lists/plain', { headers: { 'accept-encoding': 'gzip' } });
    expect(packed.headers.get('content-encoding')).toBe('gzip');
    // In here a body is unpacked on its way; test/e2e/lists.test.ts has it as it is sent.
    expect(await packed.text()).toBe(text);
    expect(packed.headers.get('etag')).toBe(plain.headers.get('etag')!.replace(/"$/, '-gzip"'));
    const again = { 'accept-encoding': 'gzip', 'if-none-match': packed.headers.get('etag')! };
    expect((await get('plain', again)).status).toBe(304);
    expect((await get('plain', { 'if-none-match': packed.headers.get('etag')! })).status).toBe(200);
  });
});

describe('truth', () => {
  test('cold is a 503 that says when to come again, on GET and HEAD', async () => {
    engine.addUnseen({ value: '192.0.2.1', untilMs: Date.now() + hour });
    engine.fault = () => Response.json({ message: 'timeout' }, { status: 500 });
    vi.useFakeTimers({ toFake: ['Date'] });
    await asBouncer(key, '/v1/decisions/stream');
    vi.setSystemTime(Date.now() + 60_000);
    for (const method of ['GET', 'HEAD']) {
      const response = await get('pfsense', {}, method);
      const text = await response.text();
      expect([response.status, Number(response.headers.get('retry-after')) > 0]).toEqual([503, true]);
      expect(text).not.toMatch(/^192/m);
    }
  });

  test('of very many different lists at once some are asked for again, and none is short', async () => {
    await ban('192.0.2.1', '192.0.2.9');
    const all = Array.from({ length: 40 }, (_, at) => get(`plain?limit=${1000 + at}`));
    const answers = await Promise.all(
      (await Promise.all(all)).map(async (response) => [response.status, await response.text()] as const),
    );
    for (const [status, text] of answers) if (status !== 503) expect(text).toBe('192.0.2.1\n192.0.2.9\n');
    expect(answers.filter(([status]) => status === 200).length).toBeGreaterThanOrEqual(8);
    expect((await get('plain?limit=999')).status).toBe(200);
  });

  test('stale is the last good list', async () => {
    await ban('192.0.2.1');
    engine.fault = () => Response.json({ message: 'gone' }, { status: 500 });
    vi.useFakeTimers({ toFake: ['Date'] });
    vi.setSystemTime(Date.now() + 30 * 60_000);
    await operator('POST', '/feed/sync?full=true');
    expect((await (await call('/health')).json<any>()).feed).toBe('stale');
    expect(await lines('plain')).toEqual(['192.0.2.1']);
  });

  test('a list is as it was chosen while it is sent, whatever changes meanwhile', async () => {
    const count = 30_000;
    for (let index = 0; index < count; index++) {
      engine.add({ value: `2001:db8::${index.toString(16)}`, untilMs: Date.now() + hour });
    }
    await sync();
    const response = await get('plain');
    const reader = response.body!.getReader();
    const first = await reader.read();
    for (const row of engine.active().slice(0, 20_000)) engine.expire(row.id);
    await operator('POST', '/feed/sync?full=true&force=true');
    let bytes = first.value!.length;
    for (let part = await reader.read(); !part.done; part = await reader.read()) bytes += part.value.length;
    expect(bytes).toBe(Number(response.headers.get('content-length')));
    expect(await lines('plain')).toHaveLength(10_000);
  });
});

test('hundreds that ask at once share one list', async () => {
  await ban(...Array.from({ length: 200 }, (_, index) => `198.51.100.${index}`));
  const keys = [key];
  for (let index = 1; index < 5; index++) keys.push(await addBouncer(`fw-${index}`));
  const answers = await Promise.all(
    Array.from({ length: 200 }, async (_, index) => {
      const response = await call('/lists/plain', { headers: basic(keys[index % 5]) });
      return [response.status, (await response.text()).length, response.headers.get('etag')].join();
    }),
  );
  expect(new Set(answers).size).toBe(1);
});
