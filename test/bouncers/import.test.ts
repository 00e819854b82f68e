// Moving from LAPI without touching a bouncer: its rows imported, its keys adopted.
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { env } from 'cloudflare:workers';
import { adopt } from '../../src/bouncers/adoption.ts';
import type { EngineSettings } from '../../src/config/engines.ts';
import { feed } from '../support/bouncer.ts';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';

let engine: ModelEngine;
beforeEach(() => {
  engine = startModelEngine();
});

const digestOf = async (key: string): Promise<string> => {
  return new Uint8Array(await crypto.subtle.digest('SHA-512', new TextEncoder().encode(key))).toHex();
};

const row = async (name: string, key: string, rest: object = {}) => ({
  name,
  api_key: await digestOf(key),
  ...rest,
});

const importRows = (bouncers: unknown) => operator('POST', '/bouncers/import', { bouncers });

describe('an import', () => {
  test('lets bouncers go on with their keys, and knows when they were last seen', async () => {
    const seen = { type: 'crowdsec-firewall-bouncer', version: 'v0.0.28', ip_address: '192.0.2.9' };
    const lastPull = new Date(Date.now() - 60_000)
      .toISOString()
      .replace('T', ' ')
      .replace('Z', '123456+00:00');
    const answer = await importRows([
      await row('fw', 'old-key-of-fw', { ...seen, last_pull: lastPull, revoked: 0, id: 7 }),
      await row('web', 'old-key-of-web', { type: '', ip_address: '', last_pull: null }),
    ]);
    expect([answer.status, answer.body]).toEqual([200, { imported: 2, merged: 0, renamed: [], skipped: [] }]);
    for (const key of ['old-key-of-fw', 'old-key-of-web']) {
      expect((await asBouncer(key, '/v1/decisions')).status).toBe(200);
    }
    const { body } = await operator('GET', '/bouncers/fw');
    expect(body.clients.map(({ address }: { address: string }) => address)).toContain('192.0.2.9');
  });

  test('the last pull comes with it, in the three spellings of time', async () => {
    const times = [
      '2026-01-02 03:04:05.678901234+00:00',
      '2026-01-02T04:04:05.678+01:00',
      '2026-01-02 03:04:05.678000',
    ];
    const rows = times.map((last_pull, index) =>
      row(`b${index}`, `key ${index}`, { ip_address: '192.0.2.1', last_pull, type: 'fw', version: 'v1' }),
    );
    await importRows(await Promise.all(rows));
    for (const index of times.keys()) {
      const { body } = await operator('GET', `/bouncers/b${index}`);
      expect(body).toMatchObject({
        last_pull: '2026-01-02T03:04:05.678Z',
        type: 'fw',
        version: 'v1',
        address: '192.0.2.1',
      });
    }
  });

  test('rows that LAPI made for further addresses are merged into their parent', async () => {
    const { body } = await importRows([
      await row('fw@192.0.2.1', 'shared', { auto_created: 1 }),
      await row('fw', 'shared'),
      await row('fw@2001:db8::1', 'shared', { auto_created: 1 }),
      await row('gone@192.0.2.1', 'orphan'),
      await row('me@example.net', 'mail'),
    ]);
    expect(body).toEqual({ imported: 3, merged: 2, renamed: [], skipped: [] });
    const { bouncers } = (await operator('GET', '/bouncers')).body;
    expect(bouncers.map(({ name }: { name: string }) => name).sort()).toEqual([
      'fw',
      'gone',
      'me@example.net',
    ]);
  });

  test('what can not come is named with the reason, and again does nothing more', async () => {
    const key = await addBouncer('taken');
    const gone = await addBouncer('gone');
    await operator('DELETE', '/bouncers/gone');
    const rows = [
      await row('taken', 'another key'),
      await row('copy', key),
      await row('back', gone),
      await row('off', 'off', { revoked: true }),
      await row('lapidary', 'feed-key-of-the-tests'),
      await row('twice', 'one'),
      await row('twice', 'two'),
    ];
    const { body } = await importRows(rows);
    expect([body.imported, body.merged]).toEqual([1, 0]);
    expect(body.skipped).toEqual([
      { name: 'taken', why: expect.stringContaining('another key') },
      { name: 'copy', why: 'its key is registered already, as taken' },
      { name: 'back', why: 'its key was revoked here' },
      { name: 'off', why: 'its key is revoked at the engine' },
      { name: 'lapidary', why: expect.stringContaining('Lapidary itself') },
      { name: 'twice', why: expect.stringContaining('in this import') },
    ]);
    const again = await importRows(rows);
    expect([again.status, again.body.imported, again.body.skipped.length]).toEqual([200, 0, 7]);
  });

  test('gives names of ours to those that LAPI allows and we do not, and keeps LAPI’s', async () => {
    const long = 'x'.repeat(80);
    const rows = [
      await row('nginx bouncer', '1', { ip_address: '192.0.2.9', last_pull: '2026-01-02 03:04:05' }),
      await row('Ünï-✓', '2'),
      await row(long, '3'),
      await row('_.-', '4'),
      await row('nginx-bouncer', '5'),
      await row('nginx bouncer@192.0.2.7', '1', { auto_created: 1 }),
      await row('nginx/bouncer', '6'),
    ];
    const named = async (name: string, key: string) => `${name}-${(await digestOf(key)).slice(0, 8)}`;
    const renamed = [
      { lapi_name: 'nginx bouncer', name: await named('nginx-bouncer', '1') },
      { lapi_name: 'Ünï-✓', name: await named('Uni', '2') },
      { lapi_name: long, name: await named('x'.repeat(55), '3') },
      { lapi_name: '_.-', name: await named('bouncer', '4') },
      { lapi_name: 'nginx/bouncer', name: await named('nginx-bouncer', '6') },
    ];
    const { status, body } = await importRows(rows);
    expect([status, body]).toEqual([200, { imported: 6, merged: 1, renamed, skipped: [] }]);
    for (const key of ['1', '2', '3', '4', '5', '6']) {
      expect((await asBouncer(key, '/v1/decisions')).status).toBe(200);
    }
    const { bouncers } = (await operator('GET', '/bouncers')).body;
    expect(bouncers.map(({ lapi_name }: any) => lapi_name)).toEqual([
      'nginx bouncer',
      'Ünï-✓',
      long,
      '_.-',
      'nginx-bouncer',
      'nginx/bouncer',
    ]);
    const { body: nginx } = await operator('GET', `/bouncers/${renamed[0]?.name}`);
    expect(nginx.clients).toContainEqual({ address: '192.0.2.9', last_pull: '2026-01-02T03:04:05.000Z' });
    await addBouncer('of-ours');
    expect((await operator('GET', '/bouncers/of-ours')).body.lapi_name).toBe(null);
    const again = await importRows(rows);
    expect([again.body.imported, again.body.skipped.length]).toEqual([0, 6]);
  });

  test.each([
    ['"1"', '1'],
    ['"true"', 'true'],
    ['2', 2],
    ['-1', -1],
    ['{}', {}],
    ['""', ''],
  ])('does not guess whether a key with revoked: %s is good', async (_, revoked) => {
    const rows = [await row('fw', 'good', { revoked: false }), await row('off', 'off', { revoked })];
    const { status, body } = await importRows(rows);
    expect([status, body.errors[0].field]).toEqual([400, 'bouncers.1.revoked']);
    expect((await operator('GET', '/bouncers')).body.bouncers).toEqual([]);
  });

  test('takes revoked as SQLite, PostgreSQL and MySQL write it', async () => {
    const rows = await Promise.all(
      [true, 1, false, 0, null, undefined].map((revoked, at) => row(`b${at}`, `key ${at}`, { revoked })),
    );
    const { body } = await importRows(rows);
    expect([body.imported, body.skipped.map(({ name }: any) => name)]).toEqual([4, ['b0', 'b1']]);
  });

  test('is one audit row, of which the chain is whole', async () => {
    await importRows([await row('a', '1'), await row('b', '2')]);
    const { body } = await operator('GET', '/audit');
    expect(body.audit).toHaveLength(1);
    expect(body.audit[0]).toMatchObject({ action: 'bouncer.import', detail: { folded: 0, skipped: 0 } });
    expect(JSON.stringify(body.audit)).not.toContain((await digestOf('1')).slice(0, 9));
    expect((await operator('GET', '/audit/verify')).body.ok).toBe(true);
  });

  test('a thousand at once work; one more is refused, and so is a bad row, whole', async () => {
    const rows = await Promise.all(
      Array.from({ length: 1001 }, (_, index) => row(`b-${index}`, `key ${index}`)),
    );
    expect((await importRows(rows)).status).toBe(400);
    const bad = await importRows([rows[0], { ...rows[1], api_key: 'plain' }]);
    expect([bad.status, bad.body.errors[0].field]).toEqual([400, 'bouncers.1.api_key']);
    expect((await operator('GET', '/bouncers')).body.bouncers).toEqual([]);
    expect((await importRows(rows.slice(0, 1000))).body.imported).toBe(1000);
    expect((await asBouncer('key 999', '/v1/decisions')).status).toBe(200);
  });

  test('two at once do not make a bouncer twice', async () => {
    const rows = [await row('a', '1'), await row('b', '2')];
    const answers = await Promise.all(Array.from({ length: 5 }, () => importRows(rows)));
    expect(answers.map(({ body }) => body.imported).sort()).toEqual([0, 0, 0, 0, 2]);
  });

  test.each([
    ['bouncers', {}],
    ['bouncers', { bouncers: 'x' }],
    ['bouncers.0', { bouncers: [1] }],
    ['bouncers.0.name', { bouncers: [{ name: '' }] }],
    ['rows', { rows: [] }],
  ])('bad input names %s', async (field, body) => {
    const answer = await operator('POST', '/bouncers/import', body);
    expect([answer.status, answer.body.errors[0].field]).toEqual([400, field]);
  });

  test('an Idempotency-Key holds, and a bouncer may be called import', async () => {
    await addBouncer('import');
    expect((await operator('GET', '/bouncers/import')).body.name).toBe('import');
    const send = async () => {
      const headers = { authorization: `Bearer ${operatorToken}`, 'idempotency-key': 'once' };
      const body = JSON.stringify({ bouncers: [await row('a', '1')] });
      return (await call('/api/v1/bouncers/import', { method: 'POST', headers, body })).json();
    };
    expect([await send(), await send()]).toEqual(
      Array(2).fill({ imported: 1, merged: 0, renamed: [], skipped: [] }),
    );
  });
});

describe('adoption', () => {
  const upstream: EngineSettings = {
    kind: 'lapi',
    name: 'default',
    keyName: 'UPSTREAM_API_KEY',
    registrationToken: null,
    allowLists: null,
    hosts: [],
    url: 'http://engine.example',
    apiKey: 'feed-key-of-the-tests',
    headers: {},
    timeoutMs: 1000,
    scopes: ['ip'],
  };
  let asked: Request[];
  let nowMs = Date.now();

  /** The engine answers `status`; each test has a minute of its own, since an isolate remembers. */
  function answering(status: number | Error): void {
    asked = [];
    nowMs += 120_000;
    vi.spyOn(globalThis, 'fetch').mockImplementation(async (input, init) => {
      asked.push(new Request(input, init));
      if (status instanceof Error) throw status;
      return new Response(null, { status });
    });
  }
  const offer = (key: string, atMs = 0) =>
    adopt(
      env,
      [upstream],
      key,
      'fw/v1',
      async (digest) => (await feed().keyDigests()).includes(digest),
      nowMs + atMs,
    );

  test('is off: for an unknown key no engine is asked', async () => {
    expect((await asBouncer('unknown', '/v1/decisions')).status).toBe(403);
    expect(engine.requests).toEqual([]);
  });

  test('a key that the engine accepts is registered under its digest, and works', async () => {
    answering(200);
    expect(await offer('good at the engine')).toBe(true);
    const [request] = asked;
    expect([request.method, request.url]).toEqual([
      'HEAD',
      'http://engine.example/v1/decisions?ip=192.0.2.1',
    ]);
    expect([request.headers.get('x-api-key'), request.headers.get('user-agent')]).toEqual([
      'good at the engine',
      'fw/v1',
    ]);
    const name = `adopted-${(await digestOf('good at the engine')).slice(0, 8)}`;
    expect((await operator('GET', `/bouncers/${name}`)).status).toBe(200);
    expect((await operator('GET', `/audit?target=${name}`)).body.audit).toMatchObject([
      { actor: 'adoption' },
    ]);
    expect((await asBouncer('good at the engine', '/v1/decisions/stream')).status).toBe(200);
  });

  test.each([
    ['a refusal', 403],
    ['an error', 500],
    ['a login page', 302],
    ['no answer', new Error('down')],
  ])('%s: not adopted, and not asked again for 60 s', async (what, status) => {
    answering(status);
    const key = `key for ${what}`;
    expect(await offer(key)).toBe(false);
    expect(await offer(key, 59_000)).toBe(false);
    expect(asked).toHaveLength(1);
    await offer(key, 61_000);
    expect(asked).toHaveLength(2);
  });

  test('guesses cost the engine three questions a second at most', async () => {
    answering(403);
    await Promise.all(Array.from({ length: 200 }, (_, index) => offer(`guess ${index}`, index)));
    expect(asked).toHaveLength(3);
    await offer('guess 200', 1000);
    expect(asked).toHaveLength(4);
  });

  test('the same key many times at once is asked for once', async () => {
    answering(200);
    const answers = await Promise.all(Array.from({ length: 9 }, () => offer('same')));
    expect([answers.every(Boolean), asked.length]).toEqual([true, 1]);
  });

  test('a key that was revoked here, and the feed’s own, are never asked about', async () => {
    const key = await addBouncer('fw');
    await operator('DELETE', '/bouncers/fw');
    answering(200);
    expect([await offer(key), await offer('feed-key-of-the-tests'), await offer('')]).toEqual([
      false,
      false,
      false,
    ]);
    expect(asked).toEqual([]);
  });
});
