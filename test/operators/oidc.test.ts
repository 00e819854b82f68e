// Tokens of OIDC issuers: whom they let in, every way of being refused, and issuers that change or lose their keys.
import { SignJWT, UnsecuredJWT } from 'jose';
import { describe, expect, test, vi } from 'vitest';
import { usualClaims, type Signing, type TestIssuer } from '../support/issuer.ts';
import {
  asked,
  auditRows,
  entryOf,
  freshIssuer,
  network,
  pass,
  request,
  watchOperators,
  withToken,
} from '../support/operators.ts';

watchOperators();

describe('an OIDC issuer', () => {
  test.each(['RS256', 'ES256'] as const)('%s: lets in, by rule and by name', async (alg) => {
    const issuer = await freshIssuer(alg);
    const host = new URL(issuer.url).host;
    const token = await issuer.sign({ claims: { groups: ['x', 'ops'], sub: 'bob' } });
    const made = await withToken(issuer, token, { path: '/bouncers', method: 'POST', body: { name: 'fw' } });
    expect(made.status).toBe(201);
    expect((await auditRows()).find(([, action]) => action === 'bouncer.create')?.[0]).toBe(
      `oidc:${host}:bob`,
    );
    expect(asked).toEqual([`${issuer.url}/.well-known/jwks.json`]);
  });

  test.each([
    ['a list that holds one of them', { groups: ['oncall'] }, 'operator'],
    ['a text', { groups: 'everybody' }, 'viewer'],
    ['two rules: the first decides', { groups: ['everybody', 'owners'] }, 'admin'],
  ])('a rule matches %s', async (_, claims, role) => {
    const issuer = await freshIssuer();
    const path = '/operator-tokens/nobody';
    const answer = await withToken(issuer, await issuer.sign({ claims }), { path, method: 'DELETE' });
    if (role === 'admin') expect(answer.status).toBe(404);
    else expect(answer.body.detail).toBe(`this needs the role admin; yours is ${role}`);
  });

  test.each([
    ['no such claim', {}],
    ['another text', { groups: ['strangers'] }],
    ['a part of it', { groups: ['owner'] }],
    ['an object', { groups: { owners: true } }],
    ['a list in a list', { groups: [['owners']] }],
    ['a number', { groups: 1 }],
  ])('no rule matches %s: 403, and nothing is open', async (_, claims) => {
    const issuer = await freshIssuer();
    const { status, body } = await withToken(issuer, await issuer.sign({ claims }));
    expect([status, body.detail]).toEqual([403, expect.stringContaining('no rule of OPERATOR_ISSUERS')]);
  });

  test('all conditions of a rule must hold', async () => {
    const issuer = await freshIssuer();
    const all = [
      { claim: 'repository_id', equals: '42' },
      { claim: 'environment', one_of: ['production'] },
    ];
    const issuers = [entryOf(issuer, { rules: [{ all, role: 'viewer' }] })];
    const ask = async (claims: Record<string, unknown>) => {
      return (await withToken(issuer, await issuer.sign({ claims }), { issuers })).status;
    };
    expect(await ask({ repository_id: '42', environment: 'production' })).toBe(200);
    expect(await ask({ repository_id: '42', environment: 'test' })).toBe(403);
    expect(await ask({ environment: 'production' })).toBe(403);
  });

  const now = () => Math.floor(Date.now() / 1000);
  const signedBy = (signing: () => Signing) => (issuer: TestIssuer) => {
    const { claims, ...rest } = signing();
    return issuer.sign({ ...rest, claims: { groups: ['owners'], ...claims } });
  };
  const refusals: [string, (issuer: TestIssuer) => Promise<string> | string, string][] = [
    [
      'alg none',
      (issuer) => new UnsecuredJWT(usualClaims(issuer, { groups: ['owners'] })).encode(),
      'an algorithm that is not allowed',
    ],
    [
      'HS256 with the public key as the secret',
      async (issuer) => {
        const secret = new TextEncoder().encode(await issuer.publicPem('first'));
        const unsigned = new SignJWT(usualClaims(issuer, { groups: ['owners'] }));
        return unsigned.setProtectedHeader({ alg: 'HS256', kid: 'first' }).sign(secret);
      },
      'an algorithm that is not allowed',
    ],
    ['another audience', signedBy(() => ({ claims: { aud: 'another' } })), "the token's aud"],
    ['no audience', signedBy(() => ({ claims: { aud: undefined } })), "the token's aud"],
    ['an expired token', signedBy(() => ({ claims: { exp: now() - 31 } })), 'expired'],
    ['a token without an end', signedBy(() => ({ claims: { exp: undefined } })), "the token's exp"],
    ['a token that is not valid yet', signedBy(() => ({ claims: { nbf: now() + 60 } })), "the token's nbf"],
    ['a token of the future', signedBy(() => ({ claims: { iat: now() + 60 } })), "the token's iat"],
    [
      'a token older than max_age_seconds, whatever its exp',
      signedBy(() => ({ claims: { iat: now() - 3631, exp: now() + 86_400 } })),
      'older than max_age_seconds',
    ],
    ['a token without a time', signedBy(() => ({ claims: { iat: undefined } })), "the token's iat"],
    ['a token without a subject', signedBy(() => ({ claims: { sub: undefined } })), "the token's sub"],
    ['an empty subject', signedBy(() => ({ claims: { sub: '' } })), 'has no name'],
    ['a subject with a line break', signedBy(() => ({ claims: { sub: 'a\nb' } })), 'has no name'],
    ['another issuer', signedBy(() => ({ claims: { iss: 'https://evil.example' } })), 'not valid'],
    ['no issuer', signedBy(() => ({ claims: { iss: undefined } })), 'not valid'],
    [
      'a changed claim',
      async (issuer) => {
        const [head, , signature] = (await issuer.sign({ claims: { groups: ['everybody'] } })).split('.');
        const claims = JSON.stringify(usualClaims(issuer, { groups: ['owners'] }));
        return [head, btoa(claims).replaceAll('=', ''), signature].join('.');
      },
      'not signed by its issuer',
    ],
    [
      'a signature that was cut off',
      async (issuer) => (await issuer.sign({ claims: { groups: ['owners'] } })).replace(/[^.]+$/, ''),
      'the token',
    ],
    [
      'another key under a published name',
      async (issuer) => {
        await issuer.forgeKey('ES256', 'first');
        return issuer.sign({ claims: { groups: ['owners'] } });
      },
      'not signed by its issuer',
    ],
    [
      'a key that is not published',
      async (issuer) => {
        await issuer.addKey('ES256', 'hidden');
        issuer.dropKey('hidden');
        return issuer.sign({ kid: 'hidden', claims: { groups: ['owners'] } });
      },
      'a key that its issuer does not publish',
    ],
    ['no token at all, but three parts', () => 'a.b.c', 'not valid'],
  ];

  test.each(refusals)('%s: 401 that says why, and writes nothing', async (_, make, why) => {
    const issuer = await freshIssuer();
    const token = await make(issuer);
    const call = { path: '/bouncers', method: 'POST', body: { name: 'fw' } };
    const answer = await withToken(issuer, token, call);
    expect([answer.status, answer.body.detail]).toEqual([401, expect.stringContaining(why)]);
    expect(answer.headers.get('www-authenticate')).toContain('Bearer');
    expect(await auditRows()).toEqual([]);
  });

  test('clocks may differ by 30 s', async () => {
    const issuer = await freshIssuer();
    const at = now();
    for (const claims of [{ exp: at - 25 }, { nbf: at + 25 }, { iat: at + 25 }]) {
      const token = await issuer.sign({ claims: { groups: ['owners'], ...claims } });
      expect((await withToken(issuer, token)).status).toBe(200);
    }
  });

  test('an algorithm that its entry does not allow is refused, though its key is published', async () => {
    const issuer = await freshIssuer('RS256');
    const issuers = [entryOf(issuer, { algorithms: ['ES256'] })];
    const token = await issuer.sign({ claims: { groups: ['owners'] } });
    expect((await withToken(issuer, token, { issuers })).status).toBe(401);
  });

  test('of two, neither speaks for the other', async () => {
    const [a, b] = [await freshIssuer(), await freshIssuer()];
    const issuers = [entryOf(a), entryOf(b)];
    const groups = ['owners'];
    const ask = async (token: Promise<string>) => (await withToken(a, await token, { issuers })).status;
    expect(await ask(a.sign({ claims: { groups } }))).toBe(200);
    expect(await ask(b.sign({ claims: { groups } }))).toBe(200);
    expect(await ask(a.sign({ claims: { groups, aud: b.audience } }))).toBe(401);
    expect(await ask(b.sign({ claims: { groups, iss: a.url, aud: a.audience } }))).toBe(401);
    await b.addKey('ES256', 'only-of-b');
    pass(10_001);
    expect(await ask(b.sign({ claims: { groups, iss: a.url, aud: a.audience } }))).toBe(401);
    expect(await ask(b.sign({ claims: { groups } }))).toBe(200);
  });

  test('a token in a header that its entry does not name is none', async () => {
    const issuer = await freshIssuer();
    const token = await issuer.sign({ claims: { groups: ['owners'] } });
    const issuers = [entryOf(issuer, { header: 'X-Assertion' })];
    expect((await withToken(issuer, token, { issuers })).status).toBe(401);
    const headers = { 'x-assertion': token };
    expect((await request('/feed', { issuers, headers })).status).toBe(200);
    expect((await request('/feed', { issuers: [entryOf(issuer)], headers })).status).toBe(401);
  });
});

describe('the keys of an issuer', () => {
  const groups = ['owners'];

  test('are asked for once, and again after 10 minutes', async () => {
    const issuer = await freshIssuer();
    const ask = async () => (await withToken(issuer, await issuer.sign({ claims: { groups } }))).status;
    expect([await ask(), await ask(), await ask()]).toEqual([200, 200, 200]);
    expect(asked).toHaveLength(1);
    pass(600_001);
    expect(await ask()).toBe(200);
    expect(asked).toHaveLength(2);
  });

  test('a new one is known 10 s after the last look; strangers make us look no more often', async () => {
    const issuer = await freshIssuer();
    const ask = async (kid: string) =>
      (await withToken(issuer, await issuer.sign({ kid, claims: { groups } }))).status;
    vi.useFakeTimers({ toFake: ['Date'] });
    expect(await ask('first')).toBe(200);
    await issuer.addKey('ES256', 'second');
    issuer.dropKey('first');
    for (let attempt = 0; attempt < 20; attempt++) expect(await ask('second')).toBe(401);
    expect(asked).toHaveLength(1);
    vi.setSystemTime(Date.now() + 10_000);
    expect(await ask('second')).toBe(200);
    expect(asked).toHaveLength(2);
    // The set that came with the new key no longer has the old one.
    expect(await ask('first')).toBe(401);
  });

  const outages: [string, () => Response | Promise<Response>][] = [
    ['nobody answers', () => Promise.reject(new TypeError('connection refused'))],
    ['an error', () => new Response('broken', { status: 500 })],
    ['a redirect', () => new Response(null, { status: 302, headers: { location: 'https://evil.example/' } })],
    ['no JSON', () => new Response('<html>')],
    ['another JSON', () => Response.json({ hello: 'world' })],
  ];

  test.each(outages)('%s: 503 that names the issuer, for cold isolates', async (_, down) => {
    const issuer = await freshIssuer();
    network.fault = down;
    const token = await issuer.sign({ claims: { groups } });
    const { status, body } = await withToken(issuer, token);
    expect([status, body.detail]).toEqual([503, expect.stringContaining(new URL(issuer.url).host)]);
    expect(asked.every((url) => url.startsWith(issuer.url))).toBe(true);
  });

  test.each(outages)('%s: known keys go on for 10 minutes, an unknown one is a 503', async (_, down) => {
    const issuer = await freshIssuer();
    const ask = async (kid: string) =>
      (await withToken(issuer, await issuer.sign({ kid, claims: { groups } }))).status;
    expect(await ask('first')).toBe(200);
    network.fault = down;
    pass(500_000);
    expect(await ask('first')).toBe(200);
    await issuer.addKey('ES256', 'second');
    expect(await ask('second')).toBe(503);
    expect(await ask('first')).toBe(200);
    pass(100_001);
    expect(await ask('first')).toBe(503);
    network.fault = undefined;
    pass(10_000);
    expect([await ask('first'), await ask('second')]).toEqual([200, 200]);
  });

  test('an issuer that is down is asked every 10 s, not at every request', async () => {
    const issuer = await freshIssuer();
    vi.useFakeTimers({ toFake: ['Date'] });
    network.fault = () => new Response('broken', { status: 500 });
    const token = await issuer.sign({ claims: { groups } });
    for (let attempt = 0; attempt < 20; attempt++) expect((await withToken(issuer, token)).status).toBe(503);
    expect(asked).toHaveLength(1);
    vi.setSystemTime(Date.now() + 10_000);
    await withToken(issuer, token);
    expect(asked).toHaveLength(2);
  });

  test('a token that is refused for its algorithm asks nobody', async () => {
    const issuer = await freshIssuer();
    const token = new UnsecuredJWT(usualClaims(issuer, { groups })).encode();
    expect((await withToken(issuer, token)).status).toBe(401);
    expect(asked).toEqual([]);
  });
});
