// Bouncers in the console: the list, one of them, and what an operator does about it, by the operations of the API.
import { beforeEach, describe, expect, test } from 'vitest';
import { startModelEngine } from '../support/model-engine.ts';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';
import { auditRows, makeToken, pass } from '../support/operators.ts';
import { formOf, signedIn, type Browser, type Page } from '../support/console.ts';

let browser: Browser;
beforeEach(async () => {
  startModelEngine();
  browser = await signedIn();
});

const keyIn = (page: Page): string => /csb_[0-9A-Za-z]{49}/.exec(page.text)![0];
const opens = async (key: string): Promise<number> => (await asBouncer(key, '/v1/decisions/stream')).status;
async function patchBouncer(name: string, change: object): Promise<void> {
  const headers = { authorization: `Bearer ${operatorToken}`, 'if-match': '*' };
  const body = JSON.stringify(change);
  const { status } = await call(`/api/v1/bouncers/${name}`, { method: 'PATCH', headers, body });
  expect(status).toBe(200);
}
const namesIn = ({ text }: Page): string[] =>
  [...text.matchAll(/<th scope="row"><a[^>]*>([^<]*)/g)].map(([, name]) => name!);

test('without a bouncer the list says how to make the first one', async () => {
  const { text } = await browser.get('/console/bouncers');
  expect(text).toContain('There is none yet.');
  expect(text).toContain('curl -sS -H @.lapidary/operator-header http://edge.example/api/v1/bouncers');
});

describe('a new bouncer', () => {
  const make = async (values: Record<string, string>): Promise<Page> =>
    browser.submit(await browser.get('/console/new-bouncer'), '/new-bouncer', values);

  test('gets a key that is shown once, with the lines for its configuration', async () => {
    const page = await make({ name: 'web-1', kind: 'firewall' });
    expect(page.status).toBe(201);
    const key = keyIn(page);
    expect(page.text).toContain('/etc/crowdsec/bouncers/crowdsec-firewall-bouncer.yaml');
    expect(page.text).toContain(`api_url: http://edge.example/\napi_key: ${key}`);
    expect(await opens(key)).toBe(200);
    expect((await browser.get('/console/bouncers/web-1')).text).not.toContain(key);
    expect((await auditRows()).filter(([, action]) => action === 'bouncer.create')).toEqual([
      ['operator-token', 'bouncer.create', 'web-1'],
    ]);
  });

  test.each([
    ['nginx', 'API_URL=http://edge.example\nAPI_KEY=csb_'],
    ['traefik', 'crowdsecLapiScheme: http\ncrowdsecLapiHost: edge.example\ncrowdsecLapiKey: csb_'],
    ['caddy', 'api_url http://edge.example/\n\tapi_key csb_'],
    ['other', 'http://edge.example/\ncsb_'],
  ])('%s: its own lines', async (kind, lines) => {
    expect((await make({ name: 'web-1', kind })).text).toContain(lines);
  });

  test('is made once, however often its form is sent', async () => {
    const form = { ...formOf(await browser.get('/console/new-bouncer'), '/new-bouncer'), name: 'web-1' };
    expect((await browser.post('/console/new-bouncer', form)).status).toBe(201);
    const again = await browser.post('/console/new-bouncer', form);
    expect(again.text).toContain('This form was sent before.');
    expect(again.text).not.toContain('csb_');
    expect((await operator('GET', '/bouncers')).body.bouncers.length).toBe(1);
  });

  test('is refused in the words of the API, beside the field, with what was typed', async () => {
    const page = await make({ name: 'web 1', expires_in: '90d' });
    expect(page.status).toBe(400);
    expect(page.text).toMatch(/id="field-name" name="name" aria-describedby="hint-name" aria-invalid="true"/);
    expect(page.text).toContain('must be 1 to 64 letters, digits');
    expect(formOf(page, '/new-bouncer')).toMatchObject({ name: 'web 1', expires_in: '90d' });
    await addBouncer('web-1');
    const taken = await make({ name: 'web-1' });
    expect(taken.status).toBe(409);
    expect(taken.text).toContain('bouncer web-1 exists');
  });
});

describe('the list', () => {
  test('says who was seen, who is silent, and whose key has ended', async () => {
    const seen = await addBouncer('seen');
    const silent = await addBouncer('silent');
    await addBouncer('unseen');
    await operator('POST', '/bouncers', { name: 'ended', expires_in: '30m' });
    await asBouncer(silent, '/v1/decisions/stream', {
      headers: { 'user-agent': 'crowdsec-nginx-bouncer/v1.1.3' },
    });
    pass(2 * 3_600_000);
    await asBouncer(seen, '/v1/decisions/stream');
    browser = await signedIn();
    const { text } = await browser.get('/console/bouncers');
    expect(text).toContain(
      '1 bouncer of 4 seen in the last hour, 1 silent, 1 never seen, 1 without a key that is good.',
    );
    expect(text).toContain('last seen 2 h ago');
    expect(text).toContain('its key ended 1 h ago');
    expect(namesIn(await browser.get('/console/bouncers?state=silent'))).toEqual(['silent']);
    expect(namesIn(await browser.get('/console/bouncers?q=NGINX'))).toEqual(['silent']);
    expect(namesIn(await browser.get('/console/bouncers?sort=pull')).slice(0, 2)).toEqual(['seen', 'silent']);
    expect(namesIn(await browser.get('/console/bouncers?sort=-name'))).toEqual([
      'unseen',
      'silent',
      'seen',
      'ended',
    ]);
  });

  test('is paged, sorted as it was', async () => {
    const many = Array.from({ length: 120 }, (_, at) => `fw-${String(at).padStart(3, '0')}`);
    const row = (name: string) => ({ name, api_key: name.padEnd(128, '0').replaceAll(/[^0-9a-f]/g, 'a') });
    const { status } = await operator('POST', '/bouncers/import', { bouncers: many.map(row) });
    expect(status).toBe(200);
    const first = await browser.get('/console/bouncers?sort=-name&q=fw');
    expect(namesIn(first)).toEqual(many.toReversed().slice(0, 50));
    const next = /<a href="([^"]*)">next/.exec(first.text)![1]!.replaceAll('&amp;', '&');
    const second = await browser.get(next);
    expect(namesIn(second)).toEqual(many.toReversed().slice(50, 100));
    expect(second.text).toContain('Page 2 of 3');
    expect(namesIn(await browser.get('/console/bouncers?page=999')).length).toBe(20);
    for (const odd of ['page=0', 'page=-1', 'page=x', 'sort=constructor', 'sort=__proto__', 'state=x']) {
      expect((await browser.get(`/console/bouncers?${odd}`)).status, odd).toBe(200);
    }
  });
});

describe('one bouncer', () => {
  test('shows its clients, versions and limits', async () => {
    const key = await addBouncer('web-1');
    const headers = { 'user-agent': 'crowdsec-firewall-bouncer/v0.0.31', 'cf-connecting-ip': '192.0.2.44' };
    await asBouncer(key, '/v1/decisions/stream?startup=true', { headers });
    const { text } = await browser.get('/console/bouncers/web-1');
    expect(text).toContain('crowdsec-firewall-bouncer v0.0.31.');
    expect(text).toContain('192.0.2.44');
    expect(text).toContain('up to date');
    expect(text).toContain('scopes Ip, Range');
    expect(text).toContain('decisions on 0 values, of what it asks for and may read');
    expect(text).toMatch(/<th scope="row">1<\/th><td><span class="tag ok">current/);
  });

  test('says what it enforces beside what its view has', async () => {
    const key = await addBouncer('web-1');
    for (let at = 1; at <= 5; at++) {
      await operator('POST', '/decisions', { value: `192.0.2.${at}`, duration: '4h' });
    }
    const limits = { view: { scenarios_not_containing: ['smtp'], max_decisions: 4 } };
    await patchBouncer('web-1', limits);
    await asBouncer(key, '/v1/decisions/stream?startup=true&scopes=Ip');
    const report = async (value: number): Promise<string> => {
      const items = [{ name: 'active_decisions', unit: 'ip', value, labels: { origin: 'lapidary' } }];
      const metrics = [{ items, meta: { utc_now_timestamp: Math.floor(Date.now() / 1000) } }];
      const body = JSON.stringify({ remediation_components: [{ type: 'firewall', metrics }] });
      await asBouncer(key, '/v1/usage-metrics', { method: 'POST', body });
      return (await browser.get('/console/bouncers/web-1')).text;
    };
    const good = await report(4);
    expect(good).toContain('decisions on 4 values, of what it asks for and may read');
    expect(good).toContain('4 decisions, as it reported');
    expect(good).not.toContain('less than half');
    expect(await report(1)).toContain('less than half of the 4 in its view');
  });

  test('is paused and resumed, and says what that means for it', async () => {
    const key = await addBouncer('web-1');
    const headers = { 'user-agent': 'Crowdsec-Bouncer-Traefik-Plugin/1.4.5' };
    await asBouncer(key, '/v1/decisions/stream?startup=true', { headers });
    const page = await browser.get('/console/bouncers/web-1');
    expect(page.text).toContain('Unbans stop, too:');
    expect(page.text).toContain('refuses every visitor that it has not seen');
    expect(page.text).not.toContain('Blocklist mirror');
    const done = await browser.submit(page, '/bouncers/web-1/pause');
    expect(done.headers.get('location')).toBe('/console/bouncers/web-1?done=paused');
    pass(6_000);
    expect(await opens(key)).toBe(403);
    const paused = await browser.get('/console/bouncers/web-1?done=paused');
    expect(paused.text).toContain('<span class="tag off">paused</span>');
    expect(paused.text).toMatch(/<b>Paused \d+ s ago:<\/b>/);
    expect(namesIn(await browser.get('/console/bouncers?state=paused'))).toEqual(['web-1']);
    // From a page that was made before.
    expect(
      (await browser.post('/console/bouncers/web-1/pause', formOf(page, '/pause'))).headers.get('location'),
    ).toBe('/console/bouncers/web-1?done=paused');
    const late = { ...formOf(page, '/pause'), request: crypto.randomUUID() };
    expect((await browser.post('/console/bouncers/web-1/pause', late)).headers.get('location')).toBe(
      '/console/bouncers/web-1?done=stale',
    );
    await browser.submit(paused, '/bouncers/web-1/resume');
    pass(6_000);
    expect(await opens(key)).toBe(200);
    expect((await auditRows()).map(([, action]) => action)).toEqual(
      expect.arrayContaining(['bouncer.pause', 'bouncer.resume']),
    );
  });

  test('of a kind that is not known has all that may happen while it is paused', async () => {
    await addBouncer('web-1');
    const { text } = await browser.get('/console/bouncers/web-1');
    for (const kind of ['Firewall', 'Caddy', 'Cloudflare Worker']) expect(text).toContain(`>${kind}</th>`);
  });

  test('that is not there is a 404', async () => {
    expect((await browser.get('/console/bouncers/nobody')).status).toBe(404);
  });

  test('is rotated: the new key is shown once, and both are good', async () => {
    const old = await addBouncer('web-1');
    await asBouncer(old, '/v1/decisions/stream', {
      headers: { 'user-agent': 'crowdsec-nginx-bouncer/v1.1.3' },
    });
    const shown = await browser.submit(
      await browser.get('/console/bouncers/web-1'),
      '/bouncers/web-1/rotate',
    );
    expect(shown.status).toBe(200);
    const key = keyIn(shown);
    expect(shown.text).toContain(`API_URL=http://edge.example\nAPI_KEY=${key}`);
    expect([await opens(old), await opens(key)]).toEqual([200, 200]);
    const wrong = { grace: 'soon' };
    const page = await browser.submit(
      await browser.get('/console/bouncers/web-1'),
      '/bouncers/web-1/rotate',
      wrong,
    );
    expect(page.status).toBe(400);
    expect(page.text).toContain('must be a duration like 4h, 30m or 7d');
  });

  test('loses a version that is revoked, within 5 s, and all with the bouncer', async () => {
    const key = await addBouncer('web-1');
    const page = await browser.get('/console/bouncers/web-1');
    expect(page.text).toContain('It is the only one: web-1 is refused within 5 s');
    const done = await browser.submit(page, '/bouncers/web-1/versions/1/revoke');
    expect([done.status, done.headers.get('location')]).toEqual([
      303,
      '/console/bouncers/web-1?done=revoked',
    ]);
    pass(6_000);
    expect(await opens(key)).toBe(403);
    const after = await browser.get('/console/bouncers/web-1?done=revoked');
    expect(after.text).toContain('Revoked. The version is refused everywhere within 5 s.');
    expect(after.text).toContain('web-1 is refused until its key is rotated.');
    expect((await browser.submit(after, '/bouncers/web-1/delete')).headers.get('location')).toBe(
      '/console/bouncers?done=deleted',
    );
    expect((await operator('GET', '/bouncers/web-1')).status).toBe(404);
  });

  test('is limited, as the API has it', async () => {
    await addBouncer('web-1');
    const limits = {
      scopes: 'ip, Range',
      scenarios_not_containing: 'smtp',
      max_decisions: '500',
      allowed_addresses: '192.0.2.0/24\n2001:db8::1',
      per_minute: '60',
      silent_after: '30m',
    };
    const page = await browser.get('/console/bouncers/web-1');
    const { headers } = await browser.submit(page, '/bouncers/web-1/limits', limits);
    expect(headers.get('location')).toBe('/console/bouncers/web-1?done=limited');
    expect((await operator('GET', '/bouncers/web-1')).body).toMatchObject({
      view: { scopes: ['Ip', 'Range'], scenarios_not_containing: ['smtp'], max_decisions: 500 },
      allowed_addresses: ['192.0.2.0/24', '2001:db8::1'],
      rate_limit: { per_minute: 60 },
      silent_after: '30m0s',
    });
    // What it has stands in the form, which sends it again as it is.
    const again = await browser.get('/console/bouncers/web-1');
    expect(formOf(again, '/limits')).toMatchObject({ scopes: 'Ip, Range', max_decisions: '500' });
    const none = Object.fromEntries(Object.keys(limits).map((name) => [name, '']));
    await browser.submit(again, '/bouncers/web-1/limits', none);
    expect((await operator('GET', '/bouncers/web-1')).body).toMatchObject({
      view: null,
      allowed_addresses: null,
      rate_limit: null,
      silent_after: null,
    });
  });

  test('keeps the limits that were not touched, also those that the form could not write', async () => {
    await addBouncer('web-1');
    const view = { engines: ['default'], scenarios_not_containing: ['foo, bar'] };
    await patchBouncer('web-1', { view });
    const page = await browser.get('/console/bouncers/web-1');
    await browser.submit(page, '/bouncers/web-1/limits', { per_minute: '60' });
    expect((await operator('GET', '/bouncers/web-1')).body).toMatchObject({
      view,
      rate_limit: { per_minute: 60 },
    });
  });

  test('is not limited by somebody who has not seen its newest limits', async () => {
    await addBouncer('web-1');
    const page = await browser.get('/console/bouncers/web-1');
    await browser.submit(page, '/bouncers/web-1/limits', { max_decisions: '500' });
    const late = await browser.post('/console/bouncers/web-1/limits', {
      ...formOf(page, '/limits'),
      request: crypto.randomUUID(),
      max_decisions: '7',
    });
    expect(late.headers.get('location')).toBe('/console/bouncers/web-1?done=stale');
    expect((await browser.get('/console/bouncers/web-1?done=stale')).text).toContain('Nothing was changed');
    const wrong = await browser.submit(
      await browser.get('/console/bouncers/web-1'),
      '/bouncers/web-1/limits',
      {
        max_decisions: 'many',
        allowed_addresses: 'here',
      },
    );
    expect(wrong.status).toBe(400);
    expect(wrong.text).toContain('must be a whole number from 1 to 20000');
    expect(formOf(wrong, '/limits')).toMatchObject({ max_decisions: 'many', allowed_addresses: 'here' });
  });
});

test('a viewer sees all of it, and no form that changes something', async () => {
  await addBouncer('web-1');
  const viewer = await signedIn(await makeToken('ann', 'viewer'));
  const page = await viewer.get('/console/bouncers/web-1');
  expect(page.text).toContain('Changing them takes the role operator; yours is viewer.');
  expect(() => formOf(page, '/bouncers/web-1/rotate')).toThrow();
  expect((await viewer.get('/console/bouncers')).text).not.toContain('New bouncer');
  // Nor by hand.
  const form = formOf(page, '/sign-out');
  for (const path of ['rotate', 'versions/1/revoke', 'limits', 'pause', 'resume', 'delete']) {
    const { status, text } = await viewer.post(`/console/bouncers/web-1/${path}`, form);
    expect(status, path).toBe(403);
    expect(text).toContain('this needs the role operator; yours is viewer');
  }
  const made = await viewer.post('/console/new-bouncer', { ...form, name: 'web-2' });
  expect(made.status).toBe(403);
  expect((await operator('GET', '/bouncers')).body.bouncers).toMatchObject([{ name: 'web-1', revision: 1 }]);
});

test('what bouncers say of themselves is shown as text', async () => {
  const key = await addBouncer('web-1');
  const markup = '<script>alert(1)</script>"\'><img src=x onerror=alert(2)>';
  await asBouncer(key, '/v1/decisions/stream', { headers: { 'user-agent': `${markup}/${markup}` } });
  await asBouncer(key, '/v1/usage-metrics', {
    method: 'POST',
    body: JSON.stringify({ remediation_components: [{ name: markup, type: markup, metrics: markup }] }),
  });
  for (const path of [
    '/console/',
    '/console/bouncers',
    '/console/bouncers/web-1',
    `/console/bouncers?q=${markup}`,
  ]) {
    const { status, text } = await browser.get(path);
    expect(status).toBe(200);
    expect(text).not.toContain('<script>alert');
    expect(text).not.toContain('<img');
  }
  for (const path of ['/console/bouncers/%3Cimg%20src=x%3E', '/console/%3Cimg%20src=x%3E']) {
    expect((await browser.get(path)).text).not.toContain('<img');
  }
});
