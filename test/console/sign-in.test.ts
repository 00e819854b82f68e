// Who gets into the console: by a token that is typed once, or by what stands in front. What a session is, and what ends it.
import { env } from 'cloudflare:workers';
import { describe, expect, test } from 'vitest';
import { serveWith } from '../support/edge.ts';
import { addBouncer, call, operator, operatorToken } from '../support/http.ts';
import { mintedIn } from '../../src/crypto/mint.ts';
import { auditRows, entryOf, freshIssuer, makeToken, pass, watchOperators } from '../support/operators.ts';
import { backUp, putBack } from '../support/backup.ts';
import { formOf, openBrowser, pageOf, signedIn } from '../support/console.ts';

watchOperators();

test('/ leads to the console, and nothing of it is shown to strangers', async () => {
  const root = await call('/', { redirect: 'manual' });
  expect([root.status, root.headers.get('location')]).toEqual([302, '/console/']);
  for (const path of ['/console', '/console/', '/console/bouncers', '/console/nothing']) {
    const { status, text } = await openBrowser().get(path);
    expect(status).toBe(401);
    expect(text).toContain('<h1>Sign in</h1>');
  }
});

test('below a prefix all links and the cookie stay there', async () => {
  const bindings = { ...env, PATH_PREFIX: '/lapi' };
  const fetch = (path: string, init?: RequestInit) => serveWith(bindings, `/lapi${path}`, init);
  const root = await serveWith(bindings, '/lapi/', { redirect: 'manual' });
  expect(root.headers.get('location')).toBe('/lapi/console/');
  const browser = openBrowser(fetch);
  const page = await browser.get('/console/');
  const signed = await browser.submit(page, '/sign-in', { token: operatorToken });
  expect(signed.headers.get('location')).toBe('/lapi/console');
  expect(signed.headers.get('set-cookie')).toContain('Path=/lapi/console');
  const { text } = await browser.get('/console/');
  const links = [...text.matchAll(/(?:href|action)="(\/[^"]*)"/g)].map(([, link]) => link!);
  expect(links.length).toBeGreaterThan(1);
  expect(links.filter((link) => !link.startsWith('/lapi/console'))).toEqual([]);
});

describe('a session', () => {
  test('is a cookie that no script reads and no other site sends, without the token', async () => {
    const browser = openBrowser();
    const page = await browser.get('/console/');
    const { status, headers } = await browser.submit(page, '/sign-in', { token: operatorToken });
    expect(status).toBe(303);
    const cookie = headers.get('set-cookie')!;
    expect(cookie).toMatch(/; Max-Age=43200; Path=\/console; HttpOnly; SameSite=Strict$/);
    expect(cookie).not.toContain(operatorToken);
    expect((await browser.get('/console/')).status).toBe(200);
    expect(cookie).toMatch(/^lapidary_session=/);
  });

  test('behind TLS has a name that browsers take from nothing else, and is sent over nothing else', async () => {
    const tls = { 'x-forwarded-proto': 'https' };
    const browser = openBrowser();
    const values = { to: '/console', token: operatorToken };
    const { headers } = await browser.post('/console/sign-in', values, tls);
    expect(headers.get('set-cookie')).toMatch(
      /^__Secure-lapidary_session=[^;]+;.*; Path=\/console;.*; Secure/,
    );
    expect((await browser.get('/console/', tls)).status).toBe(200);
    // What somebody set over plain HTTP is not looked at.
    const { cookie } = await signedIn();
    expect((await call('/console/', { headers: { cookie, ...tls } })).status).toBe(401);
    const left = await browser.post(
      '/console/sign-out',
      formOf(await browser.get('/console/', tls), '/sign-out'),
      tls,
    );
    expect(left.headers.get('set-cookie')).toMatch(/^__Secure-lapidary_session=; Max-Age=0;/);
  });

  test('opens nothing but the console', async () => {
    const { cookie } = await signedIn();
    expect((await call('/api/v1/bouncers', { headers: { cookie } })).status).toBe(401);
  });

  test('goes back to the page that was asked for, and to no other site', async () => {
    const browser = openBrowser();
    const page = await browser.get('/console/bouncers?sort=name');
    expect(formOf(page, '/sign-in').to).toBe('/console/bouncers?sort=name');
    const { headers } = await browser.submit(page, '/sign-in', { token: operatorToken });
    expect(headers.get('location')).toBe('/console/bouncers?sort=name');
    for (const to of ['https://example.com/', '//example.com', '/console/../..', '/\\example.com', 'x', '']) {
      const answer = await openBrowser().post('/console/sign-in', { to, token: operatorToken });
      expect(answer.headers.get('location')).toBe('/console/');
    }
  });

  test('ends with its token, at once', async () => {
    const token = await makeToken('ann', 'viewer');
    const browser = await signedIn(token);
    expect((await browser.get('/console/')).status).toBe(200);
    expect(mintedIn(browser.cookie)).toEqual([]);
    await operator('DELETE', '/operator-tokens/ann');
    const { status, text } = await browser.get('/console/');
    expect(status).toBe(401);
    expect(text).toContain('this operator token is revoked');
  });

  test('ends with its token’s time, and after 12 hours', async () => {
    const browser = await signedIn(await makeToken('ann', 'viewer', '1h'));
    pass(3_600_000);
    expect((await browser.get('/console/')).text).toContain('this operator token is expired');
    const other = await signedIn();
    pass(12 * 3_600_000);
    expect((await other.get('/console/')).text).toContain('this session is over');
  });

  test('ends with another OPERATOR_TOKEN', async () => {
    const { cookie } = await signedIn();
    const bindings = { ...env, OPERATOR_TOKEN: 'another-token-of-the-operator' };
    const answer = await serveWith(bindings, '/console/', { headers: { cookie } });
    expect(answer.status).toBe(401);
  });

  test('can not be written by hand', async () => {
    const { cookie } = await signedIn(await makeToken('ann', 'viewer'));
    const changed = [
      cookie.replace(/=[0-9a-f]{128}\./, '=operator-token.'),
      cookie.replace(/\.(\d)/, (_, digit) => `.${(Number(digit) + 1) % 10}`),
      `${cookie.slice(0, -2)}AA`,
      'lapidary_session=operator-token.1900000000000.',
      'lapidary_session=',
    ];
    for (const each of changed) {
      expect((await call('/console/', { headers: { cookie: each } })).status, each).toBe(401);
    }
  });

  test('ends for a browser that signs out', async () => {
    const browser = await signedIn();
    const { status, headers } = await browser.submit(await browser.get('/console/'), '/sign-out');
    expect([status, headers.get('location')]).toEqual([303, '/console/']);
    expect(browser.cookie).toBe('');
    expect((await browser.get('/console/')).status).toBe(401);
  });

  test.each([
    ['operator-token', () => operatorToken],
    ['token:ann', () => makeToken('ann', 'viewer')],
  ])('of %s that was signed out ends in every copy, and others stay', async (actor, token) => {
    const value = await token();
    const [browser, other] = [await signedIn(value), await signedIn(value)];
    const { cookie } = browser;
    const dump = await backUp();
    await browser.submit(await browser.get('/console/'), '/sign-out');
    const copied = () => call('/console/', { headers: { cookie } });
    const refused = await copied();
    expect([refused.status, await refused.text()]).toEqual([
      401,
      expect.stringContaining('this session was ended by signing out'),
    ]);
    expect((await other.get('/console/')).status).toBe(200);
    expect((await auditRows())[0]).toEqual([actor, 'operator.sign-out', 'console']);
    // Nor does a restored D1 bring it back.
    await putBack(dump);
    expect((await copied()).status).toBe(401);
  });

  test('is not ended by whoever has it and signs in otherwise: any text would be noted as ended', async () => {
    const browser = await signedIn();
    const { cookie } = browser;
    const bearer = { authorization: `Bearer ${await makeToken('ann', 'operator')}` };
    const form = formOf(await pageOf(await call('/console/ban', { headers: bearer })), '/ban');
    const headers = { ...bearer, cookie, origin: 'http://edge.example' };
    const body = new URLSearchParams(form);
    const answer = await call('/console/sign-out', { method: 'POST', redirect: 'manual', headers, body });
    expect(answer.status).toBe(303);
    expect((await call('/console/', { headers: { cookie } })).status).toBe(200);
  });

  test('begins with a row in the audit log, with the operator’s name', async () => {
    await signedIn(await makeToken('ann', 'viewer'));
    expect((await auditRows())[0]).toEqual(['token:ann', 'operator.sign-in', 'console']);
    await signedIn();
    expect((await auditRows())[0]).toEqual(['operator-token', 'operator.sign-in', 'console']);
  });
});

test.each([
  ['a wrong token', 'another-operator-token'],
  ['a token of nobody', 'cso_00000000000000000000000000000000000000000000000000'],
  ['none', ''],
])('%s is refused in words, and never shown', async (_, token) => {
  const browser = openBrowser();
  const page = await browser.submit(await browser.get('/console/'), '/sign-in', { token });
  expect([page.status, browser.cookie]).toEqual([401, '']);
  expect(page.text).toContain('this operator token is not valid');
  if (token !== '') expect(page.text).not.toContain(token);
});

test('a role that may not read gets no page', async () => {
  const browser = await signedIn(await makeToken('prometheus', 'metrics'));
  const { status, text } = await browser.get('/console/');
  expect(status).toBe(403);
  expect(text).toContain('this takes the role viewer; yours is metrics');
});

describe('what stands in front', () => {
  test('an issuer signs in by its header, without a session', async () => {
    const issuer = await freshIssuer();
    const header = 'cf-access-jwt-assertion';
    const bindings = { ...env, OPERATOR_ISSUERS: JSON.stringify([entryOf(issuer, { header })]) };
    const token = await issuer.sign({ claims: { sub: 'ann@example.com', groups: 'everybody' } });
    const open = (headers: Record<string, string>) => serveWith(bindings, '/console/', { headers });
    const page = await open({ [header]: token });
    const text = await page.text();
    expect(page.status).toBe(200);
    expect(text).toContain('ann@example.com');
    expect(text).not.toContain('Sign out');
    // A token that is not good is no reason to look at a cookie.
    const { cookie } = await signedIn();
    expect((await open({ [header]: `${token}x`, cookie })).status).toBe(401);
  });

  test('`Authorization` counts, too', async () => {
    const headers = { authorization: `Bearer ${operatorToken}` };
    expect((await call('/console/', { headers })).status).toBe(200);
    expect((await call('/console/', { headers: { authorization: 'Bearer wrong' } })).status).toBe(401);
  });
});

describe('another site', () => {
  test('signs nobody in or out', async () => {
    const values = { to: '/console', token: operatorToken };
    for (const headers of [{ 'sec-fetch-site': 'cross-site' }, { 'sec-fetch-site': 'same-site' }]) {
      expect((await openBrowser().post('/console/sign-in', values, headers)).status).toBe(403);
    }
    const browser = await signedIn();
    const form = formOf(await browser.get('/console/'), '/sign-out');
    const { status } = await browser.post('/console/sign-out', form, { 'sec-fetch-site': 'cross-site' });
    expect(status).toBe(403);
    expect((await browser.get('/console/')).status).toBe(200);
  });

  test('is told by its origin where the browser says no more', async () => {
    const send = (origin: string) =>
      call('/console/sign-in', {
        method: 'POST',
        redirect: 'manual',
        body: new URLSearchParams({ to: '/console', token: operatorToken }),
        headers: { origin },
      });
    expect((await send('http://edge.example')).status).toBe(303);
    expect((await send('http://example.com')).status).toBe(403);
    expect((await send('null')).status).toBe(403);
  });

  test('may link here: the page asks again for itself, with the cookie', async () => {
    const { status, text } = await openBrowser().get('/console/bouncers', { 'sec-fetch-site': 'cross-site' });
    expect(status).toBe(401);
    expect(text).toContain('<meta http-equiv="refresh" content="0; url=/console/bouncers"/>');
    expect((await openBrowser().get('/console/', { 'sec-fetch-site': 'same-origin' })).text).not.toContain(
      'http-equiv="refresh"',
    );
  });
});

test('a form without its token, or with one of another session, does nothing', async () => {
  const [ann, bob] = [await signedIn(await makeToken('ann', 'admin')), await signedIn()];
  const form = formOf(await ann.get('/console/'), '/sign-out');
  for (const token of ['', 'x', form['form-token']!.replace(/^1/, '2')]) {
    expect((await ann.post('/console/sign-out', { ...form, 'form-token': token })).status).toBe(403);
  }
  expect((await bob.post('/console/sign-out', form)).status).toBe(403);
  expect((await ann.post('/console/sign-out', form)).status).toBe(303);
});

test('a token that only a restored D1 takes for good is shown nothing by a form that is refused', async () => {
  await addBouncer('web-1');
  const ann = await signedIn(await makeToken('ann', 'operator'));
  const form = { ...formOf(await ann.get('/console/'), '/sign-out'), grace: 'soon' };
  const dump = await backUp();
  await operator('DELETE', '/operator-tokens/ann');
  await putBack(dump);
  const { status, text } = await ann.post('/console/bouncers/web-1/rotate', form);
  expect(status).toBe(401);
  expect(text).not.toContain('web-1');
});

test('a page lets nothing run but its own script and style', async () => {
  const browser = await signedIn();
  for (const page of [await browser.get('/console/'), await openBrowser().get('/console/')]) {
    const { headers, text } = page;
    const policy = headers.get('content-security-policy')!;
    expect(policy).toMatch(/^default-src 'none'; style-src 'sha256-/);
    expect(policy).not.toMatch(/unsafe|https?:|\*/);
    for (const tag of ['style', 'script']) {
      const found = [...text.matchAll(new RegExp(`<${tag}[^>]*>([\\s\\S]*?)</${tag}>`, 'g'))];
      expect(found.length).toBe(1);
      const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(found[0]![1]));
      const hash = btoa(String.fromCharCode(...new Uint8Array(digest)));
      expect(policy).toContain(`${tag}-src 'sha256-${hash}'`);
    }
    expect(text).not.toMatch(/ style="| on\w+="|javascript:|(?:src|href)="(?:https?:)?\/\//);
    expect(headers.get('cache-control')).toBe('no-store');
  }
});

test('what goes wrong is a page, too', async () => {
  const browser = await signedIn();
  const { status, text } = await browser.get('/console/nothing');
  expect(status).toBe(404);
  expect(text).toContain('this page not found');
});
