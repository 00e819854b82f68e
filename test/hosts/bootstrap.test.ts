// Hosts register their keys by signed requests. The right SSH key registers, once per request. A copy, a stranger, a replay
// and a late request do not, and nothing is written.
import { env } from 'cloudflare:workers';
import { describe, expect, test, vi } from 'vitest';
import { digestOf } from '../../src/crypto/secret.ts';
import { asBouncer, operator } from '../support/http.ts';
import {
  actions,
  base,
  bootstrap,
  enrolmentToken,
  kindsOf,
  knownHost,
  makeHost,
  makeKey,
  nonce,
  shownHost,
  signed,
} from '../support/hosts.ts';
import { wholeMinute } from '../support/minute.ts';
import { makeSshKey } from '../support/ssh.ts';

const pass = (ms: number): void => {
  const now = Date.now();
  vi.useFakeTimers({ toFake: ['Date'] });
  vi.setSystemTime(now + ms);
};

const opens = async (key: string): Promise<number> =>
  (await asBouncer(key, '/v1/decisions', { method: 'HEAD' })).status;
const versions = async (name = 'web-1') => (await operator('GET', `/bouncers/${name}`)).body.key_versions;
const kindOf = async (answer: Promise<any>): Promise<string> => kindsOf([await answer])[0];
const rows = async (table: string): Promise<number> =>
  (await env.DB.prepare(`SELECT count(*) AS n FROM ${table}`).first<{ n: number }>())?.n ?? -1;

describe('a known host', () => {
  test.each(['ed25519', 'p256'] as const)('registers the key that it made, with %s', async (type) => {
    const host = await makeHost('web-1', await makeSshKey(type));
    await operator('PUT', '/hosts/web-1', { public_key: host.key.publicKey, bouncers: ['web-1'] });
    const key = makeKey();
    expect(await opens(key)).toBe(403);
    const { status, body, headers } = await host.register({ key_sha512: await digestOf(key) });
    expect([status, body]).toEqual([
      200,
      { bouncer: 'web-1', generation: 1, state: 'registered', rotate: false, valid_until: null },
    ]);
    expect(headers.get('cache-control')).toBe('no-store');
    expect(await opens(key)).toBe(200);
    expect(await shownHost()).toMatchObject({ state: 'registered', bouncers: [{ generation: 1 }] });
    expect(await actions()).toEqual(['host.create', 'host.register']);
    expect((await operator('GET', '/audit/verify')).body.ok).toBe(true);
  });

  test('renews without a change, and without a row in the log', async () => {
    const host = await knownHost();
    await host.register();
    for (let round = 0; round < 3; round++) {
      const { body } = await host.register();
      expect(body).toMatchObject({ state: 'unchanged', generation: 1, rotate: false });
    }
    expect(await actions()).toEqual(['host.create', 'host.register']);
    expect((await versions()).length).toBe(1);
  });

  test('whose answer was lost sends the same digest again, and gets the answer', async () => {
    const host = await knownHost();
    await bootstrap('/keys', await host.request());
    expect((await host.register()).body).toMatchObject({ state: 'unchanged', generation: 1 });
    expect((await versions()).length).toBe(1);
  });

  test('registers the next key by the rules of rotation', async () => {
    const host = await knownHost();
    const [first, second] = [makeKey(), makeKey()];
    await host.register({ key_sha512: await digestOf(first) });
    const { body } = await host.register({ key_sha512: await digestOf(second) });
    expect(body).toMatchObject({ state: 'registered', generation: 2 });
    expect((await versions()).map(({ state }: any) => state)).toEqual(['current', 'next']);
    expect([await opens(first), await opens(second)]).toEqual([200, 200]);
  });

  test('with a clock that is a year wrong registers: no time of its own is in the request', async () => {
    const host = await knownHost();
    expect(Object.keys(await host.payload())).not.toContain('time');
    expect((await host.register({ boot_id: 'c0ffee00-0000-4000-8000-000000000000' })).status).toBe(200);
    const [row] = (await operator('GET', '/audit?action=host.register')).body.audit;
    expect(row).toMatchObject({
      actor: 'host:web-1',
      detail: { boot_id: 'c0ffee00-0000-4000-8000-000000000000' },
    });
  });

  test('that was removed gets 410; a stranger under its name gets 403', async () => {
    const host = await knownHost();
    const key = makeKey();
    await host.register({ key_sha512: await digestOf(key) });
    expect((await operator('DELETE', '/hosts/web-1')).status).toBe(204);
    expect(await opens(key)).toBe(403);
    expect(await kindOf(host.register())).toBe('410 host-revoked');
    expect(await kindOf((await makeHost('web-1')).register())).toBe('403 forbidden');
    expect(await kindOf(host.register({ key_sha512: await digestOf(key) }))).toBe('410 host-revoked');
  });

  test('removed and made known again has its old generation, and is not suspected', async () => {
    const host = await knownHost('web-1', { mode: 'strict' });
    await host.register();
    await host.register({ key_sha512: await digestOf(makeKey()) });
    await operator('DELETE', '/hosts/web-1');
    const put = { public_key: host.key.publicKey, bouncers: ['web-1'], mode: 'strict' };
    expect((await operator('PUT', '/hosts/web-1', put)).status).toBe(201);
    const next = { key_sha512: await digestOf(makeKey()) };
    expect((await host.register(next)).body).toMatchObject({ state: 'registered', generation: 1 });
    // A copy that did not come in between is found out as ever.
    expect(await kindOf(host.register({ generation: 2, key_sha512: await digestOf(makeKey()) }))).toBe(
      '409 generation-mismatch',
    );
  });
});

describe('many at once', () => {
  test('25 copies of one request: one registers, the others are replays, nothing is doubled', async () => {
    const host = await knownHost();
    const request = await host.request();
    const answers = await Promise.all(Array.from({ length: 25 }, () => bootstrap('/keys', request)));
    expect(kindsOf(answers)).toEqual([...Array.from({ length: 24 }, () => '409 replayed'), 'registered']);
    expect((await versions()).length).toBe(1);
    expect(await shownHost()).toMatchObject({ bouncers: [{ generation: 1 }] });
    expect(await actions()).toEqual(['host.create', 'host.register']);
    expect(await kindOf(bootstrap('/keys', request))).toBe('409 replayed');
  });

  test('25 requests for one key, each with its own nonce: one registers, the others see that it is there', async () => {
    const host = await knownHost();
    const requests = await Promise.all(Array.from({ length: 25 }, () => host.request()));
    const answers = await Promise.all(requests.map((request) => bootstrap('/keys', request)));
    expect(kindsOf(answers)).toEqual(['registered', ...Array.from({ length: 24 }, () => 'unchanged')]);
    expect((await versions()).length).toBe(1);
  });

  test('20 different keys of one host and generation: one registers, the others are suspected copies', async () => {
    const host = await knownHost('web-1', { mode: 'strict' });
    await host.register();
    await operator('PUT', '/hosts/web-1', { public_key: host.key.publicKey, bouncers: ['web-1'] });
    const requests = await Promise.all(
      Array.from({ length: 20 }, async () => host.request({ key_sha512: await digestOf(makeKey()) })),
    );
    const kinds = kindsOf(await Promise.all(requests.map((request) => bootstrap('/keys', request))));
    expect(kinds.filter((kind) => kind === 'registered').length).toBe(1);
    expect(kinds.filter((kind) => kind === '409 generation-mismatch').length).toBe(19);
    expect((await versions()).length).toBe(2);
  });

  test('25 claimants of one enrolment with a place for one: one is in, and may come again', async () => {
    const enrolment_token = await enrolmentToken({ max_hosts: 1 });
    const hosts = await Promise.all(Array.from({ length: 25 }, (_, number) => makeHost(`web-${number}`)));
    const with_ = (host: (typeof hosts)[number]) => ({ public_key: host.key.publicKey, enrolment_token });
    const requests = await Promise.all(hosts.map((host) => host.request(with_(host))));
    const answers = await Promise.all(requests.map((request) => bootstrap('/keys', request)));
    expect(kindsOf(answers)).toEqual([...Array.from({ length: 24 }, () => '403 forbidden'), 'registered']);
    expect([await rows('hosts'), await rows('bouncers'), await rows('key_versions')]).toEqual([1, 1, 1]);
    const winner = hosts[answers.findIndex(({ status }) => status === 200)];
    expect((await winner.register(with_(winner))).body).toMatchObject({ state: 'unchanged', generation: 1 });
  });

  test('25 copies of a first contact: one host, one bouncer, one row in the log', async () => {
    const host = await makeHost();
    const introduced = { public_key: host.key.publicKey, enrolment_token: await enrolmentToken() };
    const request = await host.request(introduced);
    const answers = await Promise.all(Array.from({ length: 25 }, () => bootstrap('/keys', request)));
    expect(kindsOf(answers)).toEqual([...Array.from({ length: 24 }, () => '409 replayed'), 'registered']);
    expect(await actions()).toEqual(['enrolment.create', 'host.enrol']);
    const again = await Promise.all(Array.from({ length: 5 }, () => host.request(introduced)));
    const kinds = kindsOf(await Promise.all(again.map((each) => bootstrap('/keys', each))));
    expect(kinds).toEqual(Array.from({ length: 5 }, () => 'unchanged'));
  });
});

describe('a copy of a host', () => {
  test('with an old generation is refused, seen and noted; the host goes on', async () => {
    const host = await knownHost();
    await host.register();
    await host.register({ key_sha512: await digestOf(makeKey()) });
    const stale = await host.request({ generation: 1, key_sha512: await digestOf(makeKey()) });
    const answer = await bootstrap('/keys', stale);
    expect([answer.status, answer.body.type]).toEqual([409, 'urn:lapidary:generation-mismatch']);
    expect(answer.body.detail).toMatch(/^this host's bouncer web-1 was registered 2 times, .*recoveries$/);
    expect(await shownHost()).toMatchObject({ state: 'clone-suspected', suspected_at: expect.any(String) });
    const [row] = (await operator('GET', '/audit?action=host.clone-suspected')).body.audit;
    expect(row).toMatchObject({ target: 'web-1', detail: { generation: 2, claimed: 1, revoked: false } });
    expect(await kindOf(bootstrap('/keys', stale))).toBe('409 replayed');
    expect((await actions()).filter((action) => action === 'host.clone-suspected').length).toBe(1);
    expect((await host.register({ key_sha512: await digestOf(makeKey()) })).status).toBe(200);
    const recovered = await operator('POST', '/hosts/web-1/recoveries');
    expect(recovered.body.host).toMatchObject({
      state: 'registered',
      bouncers: [{ recovery_allowed: true }],
    });
  });

  test('that renews the key it has in common is found out when the host has gone on', async () => {
    const host = await knownHost();
    const shared = { key_sha512: await digestOf(makeKey()) };
    await host.register(shared);
    await host.register({ key_sha512: await digestOf(makeKey()) });
    expect(await kindOf(bootstrap('/keys', await host.request({ ...shared, generation: 1 })))).toBe(
      '409 generation-mismatch',
    );
  });

  test('of a strict host costs the host all its keys', async () => {
    const host = await knownHost('web-1', { mode: 'strict' });
    const key = makeKey();
    await host.register({ key_sha512: await digestOf(key) });
    const lost = await host.request({ generation: 0, key_sha512: await digestOf(makeKey()) });
    expect(await kindOf(bootstrap('/keys', lost))).toBe('409 generation-mismatch');
    expect(await opens(key)).toBe(403);
    expect(await versions()).toEqual([]);
    expect((await host.register({ key_sha512: await digestOf(makeKey()) })).body.state).toBe('registered');
  });
});

describe('a rebuilt host, which begins at 0,', () => {
  const rebuilt = async (host: Awaited<ReturnType<typeof knownHost>>): Promise<string> => {
    return kindOf(host.register({ generation: 0, key_sha512: await digestOf(makeKey()) }));
  };

  test('may do so once by itself, and then once for each time that an operator allows it', async () => {
    const host = await knownHost();
    await host.register();
    expect(await rebuilt(host)).toBe('registered');
    expect(host.generation).toBe(2);
    expect(await rebuilt(host)).toBe('409 generation-mismatch');
    await operator('POST', '/hosts/web-1/recoveries');
    expect(await rebuilt(host)).toBe('registered');
    expect(await rebuilt(host)).toBe('409 generation-mismatch');
    const recovered = (await operator('GET', '/audit?action=host.recover')).body.audit;
    expect(recovered.map(({ detail }: any) => detail.by)).toEqual(['operator', 'automatic']);
  });

  test('that still has its key gets the right generation, once it is allowed', async () => {
    const host = await knownHost();
    await host.register();
    await host.register({ key_sha512: await digestOf(makeKey()) });
    const kept = async () => kindOf(bootstrap('/keys', await host.request({ generation: 0 })));
    expect(await kept()).toBe('409 generation-mismatch');
    await operator('POST', '/hosts/web-1/recoveries');
    expect(await kept()).toBe('unchanged');
    expect(await kept()).toBe('409 generation-mismatch');
    expect(await shownHost()).toMatchObject({ bouncers: [{ generation: 2, recovery_allowed: false }] });
  });

  test('may always do so when it is relaxed, and leaves a row each time', async () => {
    const host = await knownHost('web-1', { mode: 'relaxed' });
    await host.register();
    for (let round = 0; round < 3; round++) expect(await rebuilt(host)).toBe('registered');
    expect((await actions()).filter((action) => action === 'host.recover').length).toBe(3);
    expect(await kindOf(host.register({ generation: 1, key_sha512: await digestOf(makeKey()) }))).toBe(
      '409 generation-mismatch',
    );
  });

  test('with a new SSH key registers once an operator has given that key', async () => {
    const host = await knownHost();
    await host.register();
    const other = await makeHost('web-1');
    expect(await kindOf(other.register())).toBe('403 forbidden');
    const put = { public_key: other.key.publicKey, bouncers: ['web-1'] };
    expect((await operator('PUT', '/hosts/web-1', put)).status).toBe(200);
    expect(await kindOf(host.register())).toBe('403 forbidden');
    expect((await other.register()).body).toMatchObject({ state: 'registered', generation: 2 });
  });
});

describe('a request is refused', () => {
  test('alike for an unknown host, a wrong key and a bad signature', async () => {
    const host = await knownHost();
    const stranger = await makeSshKey();
    await knownHost('web-2');
    const answers = [
      await (await makeHost('nobody')).register(),
      await bootstrap('/keys', await signed(stranger, await host.payload())),
      await bootstrap('/keys', {
        ...(await host.request()),
        payload: btoa(JSON.stringify(await host.payload())),
      }),
      await bootstrap('/keys', await signed(host.key, await host.payload(), { namespace: 'git' })),
      await bootstrap('/keys', await signed(host.key, await host.payload({ host: 'web-2' }))),
    ];
    for (const { status, body } of answers) expect([status, body]).toEqual([403, answers[0].body]);
    expect(await rows('burnt_nonces')).toBe(0);
    expect(await actions()).toEqual(['host.create', 'host.create']);
  });

  test('of a host that has signed with what the host lacks, and not whether another has it', async () => {
    const host = await knownHost();
    await knownHost('web-2', { engine: true });
    const answers = [
      await host.register({ bouncer: 'web-2' }),
      await host.register({ bouncer: 'nobody-s' }),
      await host.sendEngineKey('engine-key-0123456789'),
    ];
    const lacks = ['bouncer web-2', 'bouncer nobody-s', 'engine'];
    for (const [at, { status, body }] of answers.entries()) {
      const detail = `host web-1 has no ${lacks[at]}: an operator has to name it (PUT /api/v1/hosts/web-1)`;
      expect([status, body.detail]).toEqual([403, detail]);
    }
    expect(await rows('burnt_nonces')).toBe(0);
    expect(await actions()).toEqual(['host.create', 'host.create']);
  });

  test('when it was signed for another address', async () => {
    const host = await knownHost();
    for (const aud of ['http://other.example/bootstrap/v1/keys', `${base}/engine-key`, `${base}/keys/`, '']) {
      expect(await kindOf(host.register({ aud }))).toBe('400 bad-input');
    }
  });

  test('when PUBLIC_URL says another address, scheme and all', async () => {
    const host = await knownHost();
    const settings = { PUBLIC_URL: 'https://lapidary.example/lapi/' };
    expect((await host.register({}, { settings })).status).toBe(400);
    const aud = 'https://lapidary.example/lapi/bootstrap/v1/keys';
    expect((await host.register({ aud: aud.replace('https', 'http') }, { settings })).status).toBe(400);
    expect((await host.register({ aud }, { settings })).status).toBe(200);
  });

  test('with a nonce that is forged, from another broker, cut, or too old', async () => {
    pass(0);
    const host = await knownHost();
    const good = await nonce();
    const forged = (at: number) => good.slice(0, at) + (good[at] === 'A' ? 'B' : 'A') + good.slice(at + 1);
    for (const bad of ['', 'x', good.slice(1), `${good}A`, forged(3), forged(20), forged(40), `${good} `]) {
      const { status, body, headers } = await host.register({ nonce: bad });
      expect([status, body.type]).toEqual([401, 'urn:lapidary:bad-nonce']);
      expect(headers.get('www-authenticate')).toContain('SSHSIG');
    }
    const other = await nonce({ settings: { BOOTSTRAP_SECRET: 'another-secret-of-the-tests-01234' } });
    expect(await kindOf(host.register({ nonce: other }))).toBe('401 bad-nonce');
    pass(119_999);
    expect((await host.register({ nonce: good })).status).toBe(200);
    const late = await nonce();
    pass(120_000);
    expect(await kindOf(host.register({ nonce: late }))).toBe('401 stale-nonce');
  });

  test('with the twin of its signature, when it was done', async () => {
    const host = await makeHost('web-1', await makeSshKey('p256'));
    await operator('PUT', '/hosts/web-1', { public_key: host.key.publicKey, bouncers: ['web-1'] });
    const payload = await host.payload();
    expect((await bootstrap('/keys', await signed(host.key, payload))).status).toBe(200);
    const twin = await signed(host.key, payload, { twin: true });
    expect(await kindOf(bootstrap('/keys', twin))).toBe('409 replayed');
    const fresh = await signed(host.key, await host.payload({ generation: 1 }), { twin: true });
    expect((await bootstrap('/keys', fresh)).body.state).toBe('unchanged');
  });

  test('with a digest that is another’s, or was revoked', async () => {
    const host = await knownHost();
    const { key } = (await operator('POST', '/bouncers', { name: 'other' })).body;
    expect(await kindOf(host.register({ key_sha512: await digestOf(key) }))).toBe('409 conflict');
    await operator('DELETE', '/bouncers/other');
    expect(await kindOf(host.register({ key_sha512: await digestOf(key) }))).toBe('409 conflict');
    expect((await host.register()).body.generation).toBe(1);
  });

  test('when anything in it is not as it must be, by its name', async () => {
    const host = await knownHost();
    const bad: [Record<string, unknown>, string][] = [
      [{ v: 2 }, 'v'],
      [{ host: '../x' }, 'host'],
      [{ bouncer: undefined }, 'bouncer'],
      [{ key_sha512: 'AB'.repeat(64) }, 'key_sha512'],
      [{ generation: -1 }, 'generation'],
      [{ generation: 1.5 }, 'generation'],
      [{ generation: '0' }, 'generation'],
      [{ time: 0 }, 'time'],
      [{ boot_id: 'a b' }, 'boot_id'],
      [{ nonce: 1 }, 'nonce'],
    ];
    for (const [changes, field] of bad) {
      const { status, body } = await host.register(changes);
      expect([status, body.errors?.[0].field], JSON.stringify(changes)).toEqual([400, field]);
    }
    const good = await host.request();
    const envelopes: [unknown, string][] = [
      [{ ...good, payload: '%' }, 'payload'],
      [{ ...good, payload: btoa('[]') }, 'payload'],
      [{ ...good, payload: btoa('\xff') }, 'payload'],
      [{ ...good, signature: 'none' }, 'signature'],
      [{ payload: good.payload }, 'signature'],
      [{ ...good, more: 1 }, 'more'],
      ['{', 'body'],
      ['[]', 'body'],
    ];
    for (const [body, field] of envelopes) {
      const answer = await bootstrap('/keys', body);
      expect([answer.status, answer.body.errors?.[0].field], JSON.stringify(body)).toEqual([400, field]);
    }
    expect((await bootstrap('/keys', { ...good, payload: 'A'.repeat(9000) })).status).toBe(413);
    expect(await rows('burnt_nonces')).toBe(0);
  });

  test.each([
    ['an address', (port: number) => `192.0.2.77:${port}`],
    ['a /64', (host: number) => `2001:db8:77::${host}`],
  ])('from %s that asks too often, with the time to wait', async (_, spell) => {
    await wholeMinute();
    const answers = await Promise.all(
      Array.from({ length: 125 }, (_, i) => bootstrap('/challenge', undefined, { address: spell(i + 1) })),
    );
    const refused = answers.filter(({ status }) => status === 429);
    expect(refused.length).toBeGreaterThan(0);
    expect(refused.length).toBeLessThan(10);
    expect(Number(refused[0].headers.get('retry-after'))).toBeGreaterThan(0);
    expect((await bootstrap('/challenge', undefined, { address: '192.0.2.78' })).status).toBe(200);
  });

  test('while BOOTSTRAP_SECRET is not set, by that name', async () => {
    const settings = { BOOTSTRAP_SECRET: '' };
    for (const path of ['/challenge', '/nonsense']) {
      const { status, body } = await bootstrap(path, undefined, { settings });
      expect([status, body.detail]).toEqual([503, expect.stringContaining('BOOTSTRAP_SECRET')]);
    }
  });

  test('while any setting is wrong, by its name', async () => {
    vi.spyOn(console, 'error').mockImplementation(() => undefined);
    const { status, body } = await bootstrap('/challenge', undefined, { settings: { TOMBSTONE_DAYS: 'x' } });
    vi.restoreAllMocks();
    expect([status, body.detail]).toEqual([503, expect.stringContaining('TOMBSTONE_DAYS')]);
  });

  test('on no route, or by another method, with a problem as well', async () => {
    expect((await bootstrap('/nonsense')).status).toBe(404);
    expect((await bootstrap('/challenge', '{}')).status).toBe(405);
  });
});

test('a challenge is new each time, never kept, and lasts two minutes; a changed secret still opens old ones', async () => {
  const { body, headers } = await bootstrap('/challenge');
  expect(headers.get('cache-control')).toBe('no-store');
  expect(Date.parse(body.expires_at) - Date.parse(body.server_time)).toBe(120_000);
  expect(body.nonce).not.toBe(await nonce());
  const host = await knownHost();
  const BOOTSTRAP_SECRET = 'the-next-secret-of-the-tests-012345';
  const settings = { BOOTSTRAP_SECRET, BOOTSTRAP_SECRET_PREVIOUS: env['BOOTSTRAP_SECRET' as keyof Env] };
  expect((await host.register({ nonce: body.nonce }, { settings })).status).toBe(200);
});

test('burnt nonces are deleted when they have expired', async () => {
  const host = await knownHost();
  await host.register();
  await host.register();
  expect(await rows('burnt_nonces')).toBe(2);
  pass(120_001);
  await host.register();
  expect(await rows('burnt_nonces')).toBe(1);
});

test('what a batch can’t record does not happen: the nonce is not burnt, the key opens nothing', async () => {
  const host = await knownHost();
  const key = makeKey();
  vi.spyOn(console, 'error').mockImplementation(() => undefined);
  await env.DB.exec(`CREATE TRIGGER broken BEFORE INSERT ON audit BEGIN SELECT raise(ABORT, 'no'); END`);
  expect((await host.register({ key_sha512: await digestOf(key) })).status).toBe(503);
  await env.DB.exec('DROP TRIGGER broken');
  vi.restoreAllMocks();
  expect([await rows('burnt_nonces'), await rows('bouncers'), await opens(key)]).toEqual([0, 0, 403]);
  expect((await host.register({ key_sha512: await digestOf(key) })).body).toMatchObject({ generation: 1 });
});
