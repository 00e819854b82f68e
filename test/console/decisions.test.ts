// Decisions in the console: the list, bans and unbans, by the operations of the API.
import { beforeEach, expect, test } from 'vitest';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { addBouncer, asBouncer, operator } from '../support/http.ts';
import { auditRows, makeToken } from '../support/operators.ts';
import { formOf, signedIn, type Browser, type Page } from '../support/console.ts';

let engine: ModelEngine;
let browser: Browser;
beforeEach(async () => {
  engine = startModelEngine();
  browser = await signedIn();
});

const untilMs = Date.now() + 3_600_000;

const valuesIn = ({ text }: Page): string[] =>
  [...text.matchAll(/<th scope="row"><a[^>]*><code>([^<]*)/g)].map(([, value]) => value!);
const ban = async (values: Record<string, string>): Promise<Page> =>
  browser.submit(await browser.get('/console/ban'), '/ban', values);

test('a ban is in the list and at the bouncers, and an unban takes it back', async () => {
  const key = await addBouncer('fw');
  expect((await browser.get('/console/decisions')).text).toContain('There is none: nothing is banned.');
  const { status, headers } = await ban({ value: '192.0.2.1', duration: '4h', scenario: 'as <b>asked</b>' });
  expect([status, headers.get('location')]).toEqual([303, '/console/lookup?value=192.0.2.1&done=banned']);
  const list = await browser.get('/console/decisions?origin=lapidary');
  expect(list.text).toContain('as &lt;b&gt;asked&lt;/b&gt;');
  expect(list.text).toMatch(/until \d+ \w+ 20\d\d, [\d:]+ UTC">3 h 59 min</);
  expect(valuesIn(list)).toEqual(['192.0.2.1']);
  const stream = await (await asBouncer(key, '/v1/decisions/stream?startup=true')).text();
  expect(stream).toContain('"value":"192.0.2.1"');
  const link = /<a href="([^"]*)">Unban…/.exec(list.text)![1]!.replaceAll('&amp;', '&');
  const page = await browser.get(link);
  expect(formOf(page, '/unban')).toMatchObject({ value: '192.0.2.1', scope: 'Ip', type: 'ban' });
  const done = await browser.submit(page, '/unban');
  expect(done.text).toContain('1 decision was removed.');
  expect((await operator('GET', '/decisions')).body.decisions).toEqual([]);
  expect((await auditRows()).map(([, action]) => action)).toEqual(
    expect.arrayContaining(['decision.ban', 'decision.unban']),
  );
});

test('a ban that is sent twice is made once', async () => {
  const form = { ...formOf(await browser.get('/console/ban'), '/ban'), value: '192.0.2.1', duration: '4h' };
  await browser.post('/console/ban', form);
  await browser.post('/console/ban', form);
  expect((await operator('GET', '/decisions')).body.decisions.length).toBe(1);
});

test('what the API refuses is refused, beside its field', async () => {
  const page = await ban({ value: '192.0.2', duration: 'for ever' });
  expect(page.status).toBe(400);
  expect(page.text).toContain('must be a duration like 4h, 30m or 7d');
  expect(formOf(page, '/ban')).toMatchObject({ value: '192.0.2', duration: 'for ever' });
});

test('the engine’s own decisions are listed, and stay its own', async () => {
  engine.add({ value: '198.51.100.7', untilMs });
  await operator('POST', '/feed/sync?full=true');
  const list = await browser.get('/console/decisions');
  expect(valuesIn(list)).toEqual(['198.51.100.7']);
  expect(list.text).toContain('at the engine');
  const page = await browser.submit(await browser.get('/console/unban'), '/unban', { value: '198.51.100.7' });
  expect(page.status).toBe(409);
  expect(page.text).toContain('cscli decisions delete --value 198.51.100.7');
});

test('the list is filtered and paged', async () => {
  for (let at = 0; at < 130; at++) engine.add({ value: `203.0.113.${at}`, untilMs });
  engine.add({ value: '192.0.2.0/24', scope: 'Range', untilMs });
  await operator('POST', '/feed/sync?full=true');
  const first = await browser.get('/console/decisions');
  expect(valuesIn(first).length).toBe(100);
  const next = /<a href="([^"]*)">next/.exec(first.text)![1]!.replaceAll('&amp;', '&');
  expect(valuesIn(await browser.get(next)).length).toBe(31);
  expect(valuesIn(await browser.get('/console/decisions?value=192.0.2.77'))).toEqual(['192.0.2.0/24']);
  expect((await browser.get('/console/decisions?value=192.0.2.999')).status).toBe(400);
  const none = await browser.get('/console/decisions?value=198.51.100.1');
  expect(none.text).toContain('Nothing that is known bans 198.51.100.1 like that.');
});

test('an address with several decisions is one row that opens, with what was made here beside the lists', async () => {
  engine.add({ value: '198.51.100.7', origin: 'CAPI', scenario: 'http:scan', untilMs });
  engine.add({ value: '198.51.100.7', origin: 'lists', scenario: 'a-list', type: 'captcha', untilMs });
  engine.add({ value: '192.0.2.2', untilMs });
  await operator('POST', '/feed/sync?full=true');
  await operator('POST', '/decisions', { value: '198.51.100.7', duration: '4h' });
  const list = await browser.get('/console/decisions');
  expect(valuesIn(list)).toEqual(['198.51.100.7', '192.0.2.2']);
  expect(list.text).toContain('4 decisions on 2 values, 1 of them made here.');
  expect(list.text).toMatch(/<div>1 lapidary<\/div><div>1 (CAPI|lists)<\/div>/);
  expect(list.text).toMatch(/<details><summary>all 3<\/summary>/);
  const captchas = await browser.get('/console/decisions?type=captcha');
  expect(valuesIn(captchas)).toEqual(['198.51.100.7']);
  expect(captchas.text).toContain('1 decision like that on 1 value, none of them made here.');
  expect(captchas.text).not.toContain('<details>');
});

test('the list is sorted, and stays narrowed and sorted from page to page', async () => {
  for (let at = 0; at < 103; at++) engine.add({ value: `203.0.113.${at}`, untilMs: untilMs + at * 60_000 });
  engine.add({ value: '192.0.2.1', type: 'captcha', untilMs: untilMs - 60_000 });
  await operator('POST', '/feed/sync?full=true');
  const sorted = await browser.get('/console/decisions?type=ban&order=ends-first');
  expect(valuesIn(sorted)[0]).toBe('203.0.113.0');
  expect(sorted.text).toMatch(/aria-sort="ascending"><a href="[^"]*order=ends-last">Left ↑/);
  const next = /<a href="([^"]*)">next/.exec(sorted.text)![1]!.replaceAll('&amp;', '&');
  expect(valuesIn(await browser.get(next))).toEqual(['203.0.113.100', '203.0.113.101', '203.0.113.102']);
  expect((await browser.get('/console/decisions?after=<b>')).status).toBe(400);
});

test('markup in decisions of an engine is shown as text', async () => {
  const markup = '<script>alert(1)</script>"\'<img src=x>';
  engine.add({ value: '198.51.100.7', scenario: markup, origin: markup, type: markup, untilMs });
  await operator('POST', '/feed/sync?full=true');
  for (const path of ['/console/', '/console/decisions', `/console/decisions?scenario=${markup}`]) {
    const { text } = await browser.get(path);
    expect(text).not.toContain('<script>alert');
    expect(text).not.toContain('<img');
  }
  expect((await browser.get('/console/decisions')).text).toContain('&lt;script&gt;alert(1)');
});

test('a viewer bans and unbans nothing', async () => {
  await operator('POST', '/decisions', { value: '192.0.2.1', duration: '4h' });
  const viewer = await signedIn(await makeToken('ann', 'viewer'));
  const list = await viewer.get('/console/decisions');
  expect(valuesIn(list)).toEqual(['192.0.2.1']);
  expect(list.text).not.toMatch(/Unban|\/ban"/);
  const form = { ...formOf(list, '/sign-out'), value: '192.0.2.1', duration: '4h' };
  for (const path of ['/console/ban', '/console/unban'])
    expect((await viewer.post(path, form)).status).toBe(403);
  expect((await operator('GET', '/decisions')).body.decisions.length).toBe(1);
});
