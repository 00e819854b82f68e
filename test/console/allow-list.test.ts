// The allow-list in the console: the list, another entry, one of them, by the operations of the API.
import { beforeEach, expect, test } from 'vitest';
import { addBouncer, asBouncer, operator } from '../support/http.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { makeToken } from '../support/operators.ts';
import { formOf, signedIn, type Browser } from '../support/console.ts';

let engine: ModelEngine;
let browser: Browser;
beforeEach(async () => {
  engine = startModelEngine();
  browser = await signedIn();
});

const untilMs = Date.now() + 3_600_000;
const allow = async (values: Record<string, string>) =>
  browser.submit(await browser.get('/console/allow-list'), '/allow-list', values);
const idIn = (location: string | null): string => /allow-list\/(\d+)/.exec(location ?? '')![1]!;

test('an entry is made, seen with what it withholds, changed and removed', async () => {
  const key = await addBouncer('fw');
  engine.add({ value: '192.0.2.0/28', scope: 'Range', untilMs });
  await operator('POST', '/feed/sync?full=true');
  expect((await browser.get('/console/allow-list')).text).toContain('There is none.');
  const made = await allow({ value: '192.0.2.7', comment: 'the <office>', expires_in: '8h' });
  expect(made.status).toBe(303);
  const id = idIn(made.headers.get('location'));
  const page = await browser.get(`/console/allow-list/${id}?done=allowed`);
  expect(page.text).toContain('It withholds 1 decision.');
  expect(page.text).toMatch(/192\.0\.2\.7 is in the banned range 192\.0\.2\.0\/28 .*15 other addresses/);
  expect(page.text).toContain('the &lt;office&gt;');
  expect((await browser.get('/console/decisions')).text).toContain(`href="/console/allow-list/${id}"`);
  const poll = async () => (await asBouncer(key, '/v1/decisions/stream?startup=true')).json<any>();
  expect((await poll()).new).toEqual([]);
  const older = await browser.get(`/console/allow-list/${id}`);
  const changed = await browser.submit(page, `/allow-list/${id}`, { comment: 'home', expires_in: 'never' });
  expect(changed.status).toBe(303);
  // The page from before knows another revision.
  expect((await browser.submit(older, `/allow-list/${id}`, { comment: 'again' })).status).toBe(412);
  const list = await browser.get('/console/allow-list');
  expect(list.text).toMatch(/192\.0\.2\.7<\/code><\/a><\/th><td class="wrap">home/);
  const now = await browser.get(`/console/allow-list/${id}`);
  expect((await browser.submit(now, `/allow-list/${id}/remove`)).status).toBe(303);
  expect((await browser.get('/console/allow-list')).text).toContain('There is none.');
  expect((await poll()).new).toMatchObject([{ value: '192.0.2.0/28' }]);
  expect((await browser.get(`/console/allow-list/${id}`)).status).toBe(404);
});

test('an entry for some bouncers says for which, there and where it withholds something', async () => {
  engine.add({ value: '192.0.2.1', untilMs });
  await operator('POST', '/feed/sync?full=true');
  const made = await allow({ value: '192.0.2.1', comment: 'office', bouncers: 'web-*, vpn-1' });
  const id = idIn(made.headers.get('location'));
  expect((await browser.get(`/console/allow-list/${id}`)).text).toContain(
    'It withholds 1 decision from vpn-1 and web-*.',
  );
  expect((await browser.get('/console/allow-list')).text).toContain('vpn-1, web-*');
  const lookup = (await browser.get('/console/lookup?value=192.0.2.1')).text;
  expect(lookup).toContain('withheld from vpn-1, web-*: allow-list');
  expect(lookup).toContain('<b>Banned until');
  const refused = await allow({ value: '192.0.2.2', comment: 'office', bouncers: 'a b' });
  expect(formOf(refused, '/allow-list')).toMatchObject({ bouncers: 'a b' });
});

test('what needs force says so beside what was typed, and is done with it', async () => {
  const page = await allow({ value: '0.0.0.0/0', comment: 'all' });
  expect(page.status).toBe(400);
  expect(page.text).toContain('send force if it is meant');
  expect(formOf(page, '/allow-list')).toMatchObject({ value: '0.0.0.0/0', comment: 'all' });
  expect((await browser.submit(page, '/allow-list', { force: 'true' })).status).toBe(303);
});

test('a viewer reads it, and changes nothing', async () => {
  const { body } = await operator('POST', '/allowlist', { value: '192.0.2.7', comment: 'office' });
  const viewer = await signedIn(await makeToken('ann', 'viewer'));
  const list = await viewer.get('/console/allow-list');
  expect(list.text).toContain('192.0.2.7');
  expect((await viewer.get(`/console/allow-list/${body.entry.id}`)).text).not.toContain('/remove"');
  const form = { ...formOf(list, '/sign-out'), value: '192.0.2.8', comment: 'x' };
  expect((await viewer.post('/console/allow-list', form)).status).toBe(403);
  expect((await viewer.post(`/console/allow-list/${body.entry.id}/remove`, form)).status).toBe(403);
});
