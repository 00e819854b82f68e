// A host's signed request is good for the broker that it was signed for, by the address that PUBLIC_URL or an operator sets.
// What is noted of requests for other brokers.
import { env } from 'cloudflare:workers';
import { describe, expect, test } from 'vitest';
import { checkAudience, publicUrls } from '../../src/hosts/audience.ts';
import { operator, operatorToken } from '../support/http.ts';
import { bootstrap, enrolmentToken, knownHost, makeHost, shownHost, signed } from '../support/hosts.ts';
import { auditRows, bearer, makeToken, pass, request } from '../support/operators.ts';
import { makeSshKey } from '../support/ssh.ts';
import { isLoopback, isLoopbackUrl } from '../../src/config/public-url.ts';

/** As on Cloudflare, where nobody has set PUBLIC_URL. */
const unset = { settings: { PUBLIC_URL: '' } };
const loopback = { settings: { PUBLIC_URL: 'http://127.0.0.1:8787' } };
const byOperator = bearer(operatorToken);

const aud = (address: string) => ({ aud: `${address}/bootstrap/v1/keys` });
const refusal = async (answer: ReturnType<typeof bootstrap>) => {
  const { status, body } = await answer;
  return [status, body.errors?.[0].field ?? body.state ?? body.type];
};

describe('an address', () => {
  test.each([
    ['http://127.0.0.1:8787', true],
    ['http://127.9.9.9/lapi', true],
    ['http://[::1]:8787', true],
    ['http://[::ffff:127.0.0.1]:8787', true],
    ['//localhost:8787', true],
    ['127.1:8787', true],
    ['http://0x7f.0.0.1', true],
    ['//2130706433', true],
    ['//[0:0:0:0:0:0:0:1]:8787', true],
    ['//lapidary.LOCALHOST', true],
    ['0.0.0.0:8787', true],
    ['[::]:8787', true],
    ['https://lapidary.example.net', false],
    ['//localhost.example.net', false],
    ['http://192.0.2.1:8787', false],
    ['http://[2001:db8::1]', false],
  ])('%s is of this machine only: %s', (url, local) => {
    expect(isLoopbackUrl(url)).toBe(local);
  });

  test('of a client is this machine’s own, or is not', () => {
    expect(['127.0.0.1', '::1', '::ffff:127.0.0.1'].map(isLoopback)).toEqual([true, true, true]);
    expect(['192.0.2.1', '2001:db8::1', 'unknown', ''].map(isLoopback)).toEqual([false, false, false, false]);
  });
});

describe('what hosts may sign', () => {
  const check = (publicUrl: string, fixed: string | null, audience: string, fromLoopback = false) =>
    checkAudience(publicUrls({ publicUrl, pathPrefix: '/lapi' }, fixed), '/keys', audience, fromLoopback).ok;
  const name = 'https://lapidary.example.net/lapi';

  test('is PUBLIC_URL alone, letter by letter, where others reach it', () => {
    expect(check(name, '//other.example.net', `${name}/keys`)).toBe(true);
    for (const other of [
      'https://other.example.net/lapi/keys',
      `${name.replace('s', '')}/keys`,
      `${name}/keys/`,
    ]) {
      expect(check(name, '//other.example.net', other)).toBe(false);
    }
  });

  test('is what an operator fixed, with both schemes where only the name was seen', () => {
    for (const scheme of ['http', 'https']) {
      expect(check('', '//lapidary.example.net', `${scheme}://lapidary.example.net/lapi/keys`)).toBe(true);
    }
    for (const other of ['ftp://lapidary.example.net/lapi/keys', '//lapidary.example.net/keys', '']) {
      expect(check('', '//lapidary.example.net', other)).toBe(false);
    }
    expect(check('', name, `${name}/keys`)).toBe(true);
    expect(check('', name, `http://lapidary.example.net/lapi/keys`)).toBe(false);
  });

  test('is an address of this machine for its own hosts, beside the name for others', () => {
    const own = 'http://127.0.0.1:8787';
    expect(check(own, null, `${own}/keys`, true)).toBe(true);
    expect(check(own, null, `${own}/keys`, false)).toBe(false);
    expect(check(own, '//lapidary.example.net', `${name}/keys`, false)).toBe(true);
    expect(check('', own, `${own}/keys`, false)).toBe(false);
  });
});

describe('without PUBLIC_URL', () => {
  test('no host gets in before an operator came, and then by the name that the operator called', async () => {
    const host = await knownHost();
    const { status, body } = await host.register({}, unset);
    expect([status, body.detail]).toEqual([503, expect.stringContaining('PUBLIC_URL')]);
    await request('/feed', { headers: byOperator, ...unset });
    expect((await host.register({}, unset)).status).toBe(200);
    expect((await auditRows()).filter(([, action]) => action.startsWith('public-url'))).toEqual([
      ['operator-token', 'public-url.fix', '//edge.example'],
    ]);
  });

  test.each([
    ['a stranger', {}],
    ['a wrong token', { authorization: 'Bearer of-somebody-else-entirely' }],
    ['a viewer', 'viewer'],
    ['an operator on this very machine', { ...byOperator, host: 'localhost:8787' }],
  ])('the name that is called by %s is none', async (_, who) => {
    const headers =
      who === 'viewer' ? bearer(await makeToken('eyes', 'viewer')) : (who as Record<string, string>);
    await request('/feed', { headers, ...unset });
    const host = await knownHost();
    expect((await host.register({}, unset)).status).toBe(503);
  });

  test('the first name holds until an operator sets another; the status shows it', async () => {
    const urls = async () => (await request('/feed', { headers: byOperator, ...unset })).body.public_urls;
    const call = (host: string) => request('/feed', { headers: { ...byOperator, host }, ...unset });
    await call('lapidary.example.net');
    await call('lapidary.workers.example');
    const first = { local: false, fixed_by: 'operator-token', fixed_at: expect.any(String) };
    expect(await urls()).toEqual([{ url: '//lapidary.example.net', ...first }]);
    const host = await knownHost();
    expect(await refusal(host.register(aud('https://lapidary.workers.example'), unset))).toEqual([
      400,
      'aud',
    ]);
    const put = (url: unknown, settings = unset.settings) =>
      request('/public-url', { method: 'PUT', headers: byOperator, body: { url }, settings });
    expect((await put('lapidary.workers.example')).body.errors[0].field).toBe('url');
    const { status, body } = await put('https://lapidary.workers.example/');
    expect([status, body.public_urls[0].url]).toEqual([200, 'https://lapidary.workers.example']);
    expect(await urls()).toEqual([{ url: 'https://lapidary.workers.example', ...first }]);
    expect((await host.register(aud('https://lapidary.workers.example'), unset)).status).toBe(200);
    expect(await refusal(host.register(aud('https://lapidary.example.net'), unset))).toEqual([400, 'aud']);
    const set = await put('https://other.example.net', { PUBLIC_URL: 'https://lapidary.example.net' });
    expect([set.status, set.body.errors[0].field]).toEqual([409, 'url']);
  });

  test('25 operators at once fix one name', async () => {
    const names = Array.from({ length: 25 }, (_, number) => `name-${number}.example.net`);
    await Promise.all(names.map((host) => request('/feed', { headers: { ...byOperator, host }, ...unset })));
    const rows = (await auditRows()).filter(([, action]) => action === 'public-url.fix');
    expect(rows.length).toBe(1);
    const { public_urls } = (await request('/feed', { headers: byOperator, ...unset })).body;
    expect(public_urls.map(({ url }: { url: string }) => url)).toEqual([rows[0]?.[2]]);
  });

  test('what is good on this machine only is refused to everybody else, under any header', async () => {
    const host = await knownHost();
    const own = aud('http://127.0.0.1:8787');
    expect(await refusal(host.register(own, { ...loopback, address: '192.0.2.1' }))).toEqual([400, 'aud']);
    expect((await host.register(own, { ...loopback, address: '127.0.0.1' })).status).toBe(200);
    const { public_urls } = (await request('/feed', { headers: byOperator, ...loopback })).body;
    expect(public_urls).toMatchObject([
      { url: 'http://127.0.0.1:8787', local: true },
      { url: '//edge.example' },
    ]);
  });

  test('the status is there while the key store is not', async () => {
    const DB = new Proxy({}, { get: () => () => { throw new Error('D1 is out of reach'); } }); // prettier-ignore
    const { status, body } = await request('/feed', {
      headers: byOperator,
      settings: { ...unset.settings, DB },
    });
    expect([status, body.public_urls]).toEqual([200, null]);
  });
});

describe('a request that was signed for another broker', () => {
  const relays = async () => (await operator('GET', '/audit?action=host.relay-refused')).body.audit;

  test('leaves a row for each address and hour, and says so at the host', async () => {
    pass(0);
    const host = await knownHost();
    const relay = (address: string) => refusal(host.register(aud(address), { address: '192.0.2.66' }));
    for (let round = 0; round < 3; round++) expect(await relay('https://a.example')).toEqual([400, 'aud']);
    await relay('https://b.example');
    expect((await relays()).map(({ detail }: any) => detail.audience)).toEqual([
      'https://b.example/bootstrap/v1/keys',
      'https://a.example/bootstrap/v1/keys',
    ]);
    expect((await relays())[0]).toMatchObject({
      actor: 'host:web-1',
      target: 'web-1',
      detail: { address: '192.0.2.66' },
    });
    expect(await shownHost()).toMatchObject({
      last_refused_at: expect.any(String),
      last_refused_why: 'it signed for https://a.example/bootstrap/v1/keys',
    });
    pass(3_600_001);
    await relay('https://a.example');
    expect((await relays()).length).toBe(3);
    expect((await operator('GET', '/audit/verify')).body.ok).toBe(true);
  });

  test('by a host that invents addresses leaves twenty rows an hour, each of a bounded length', async () => {
    pass(0);
    const host = await knownHost();
    for (let number = 0; number < 25; number++) {
      await host.register(aud(`https://${'x'.repeat(300)}${number}.example`));
      await host.register(aud(`https://a${number}.example`));
    }
    const all = await relays();
    expect(all.length).toBe(20);
    for (const { detail } of all) expect(detail.audience.length).toBeLessThanOrEqual(200);
  });

  test('by 25 at once leaves one', async () => {
    const host = await knownHost();
    await Promise.all(Array.from({ length: 25 }, () => host.register(aud('https://a.example'))));
    expect((await relays()).length).toBe(1);
  });

  test('by an unknown host leaves none', async () => {
    await (await makeHost('nobody')).register(aud('https://a.example'));
    const introduced = await makeHost('web-7');
    const enrolment_token = await enrolmentToken();
    const contact = { public_key: introduced.key.publicKey, enrolment_token, ...aud('https://a.example') };
    expect(await refusal(introduced.register(contact))).toEqual([400, 'aud']);
    expect(await relays()).toEqual([]);
  });
});

describe('a known host with another SSH key', () => {
  const writes = async () =>
    (await env.DB.prepare('SELECT last_refused_ms AS ms FROM hosts').first<{ ms: number | null }>())?.ms;

  test('is refused as ever, and seen at the host, every ten minutes at most', async () => {
    pass(0);
    const host = await knownHost();
    const other = await makeHost('web-1');
    const { status, body } = await other.register();
    expect([status, body]).toEqual([403, (await (await makeHost('nobody')).register()).body]);
    const shown = await shownHost();
    expect(shown).toMatchObject({ last_refused_at: new Date().toISOString(), revision: 1 });
    expect(shown.last_refused_why).toMatch(/^it came with another SSH key, SHA256:[\w+/]{43}$/);
    const first = await writes();
    pass(599_999);
    await other.register();
    expect(await writes()).toBe(first);
    pass(1);
    await other.register();
    expect(await writes()).toBe((first as number) + 600_000);
    // What an operator has seen to is over.
    const put = { public_key: other.key.publicKey, bouncers: ['web-1'] };
    expect((await operator('PUT', '/hosts/web-1', put)).body.host.last_refused_at).toBe(null);
    expect(await refusal(host.register())).toEqual([403, 'urn:lapidary:forbidden']);
    expect((await shownHost()).last_refused_at).not.toBe(null);
  });

  test('and an enrolment token, too', async () => {
    await knownHost();
    const other = await makeHost('web-1');
    const contact = { public_key: other.key.publicKey, enrolment_token: await enrolmentToken() };
    expect((await other.register(contact)).status).toBe(409);
    expect((await shownHost()).last_refused_why).toContain('another SSH key');
  });

  test('is not seen where nobody has signed, in another namespace, or for a removed host', async () => {
    const host = await knownHost();
    const stranger = await makeSshKey();
    const payload = await host.payload();
    const { signature } = await signed(stranger, payload);
    await bootstrap('/keys', { payload: btoa(JSON.stringify({ ...payload, generation: 9 })), signature });
    await bootstrap('/keys', await signed(stranger, payload, { namespace: 'git' }));
    expect((await shownHost()).last_refused_at).toBe(null);
    await operator('DELETE', '/hosts/web-1');
    await (await makeHost('web-1')).register();
    expect(await writes()).toBe(null);
  });
});
