// The look-up page: which decisions cover an address, and who has been sent them, as far as is known.
import { beforeEach, describe, expect, test } from 'vitest';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';
import { makeToken, pass } from '../support/operators.ts';
import { formOf, plain, signedIn, type Browser, type Page, wordsOf } from '../support/console.ts';

let engine: ModelEngine;
let browser: Browser;
beforeEach(async () => {
  engine = startModelEngine();
  browser = await signedIn();
});

const untilMs = Date.now() + 3_600_000;
const sync = () => operator('POST', '/feed/sync?full=true');
const start = (key: string) => asBouncer(key, '/v1/decisions/stream?startup=true');
const poll = (key: string) => asBouncer(key, '/v1/decisions/stream');
const ban = (value: string) => operator('POST', '/decisions', { value, duration: '4h' });
const patch = (name: string, body: object) =>
  call(`/api/v1/bouncers/${name}`, {
    method: 'PATCH',
    headers: { authorization: `Bearer ${operatorToken}`, 'if-match': '*' },
    body: JSON.stringify(body),
  });
const lookUp = (query: string): Promise<Page> => browser.get(`/console/lookup?${query}`);

/** What a page says, without its markup. */
/** What it says of a bouncer. */
const saidOf = ({ text }: Page, name: string): string => {
  const row = [...text.matchAll(/<tr>[\s\S]*?<\/tr>/g)].find(([each]) => each.includes(`>${name}</a>`));
  return wordsOf({ text: row?.[0] ?? '' });
};

test('asks what is to be looked up, by a form that every page has', async () => {
  const page = await lookUp('');
  expect(page.status).toBe(200);
  expect(page.text).toContain('Which decisions cover an address');
  expect(formOf(await browser.get('/console/'), '/lookup')).toEqual({ value: '' });
});

test('says which decisions cover an address, from where, until when, and which lasts longest', async () => {
  engine.add({ value: '192.0.2.0/24', scope: 'Range', scenario: 'a range', untilMs });
  await sync();
  await ban('192.0.2.77');
  const page = await lookUp('value=+192.0.2.77+');
  expect(wordsOf(page)).toContain('Covered by 2 decisions, of default and operators of Lapidary.');
  expect(wordsOf(page)).toMatch(/Banned until \d+ \w+ 20\d\d, [\d:]+ UTC \(3 h 59 min left\)/);
  expect(page.text).toContain('<code>192.0.2.0/24</code>');
  expect(page.text).toContain('a range');
  expect(page.text).toContain('at the engine');
  const link = /<a href="([^"]*)">Unban…/.exec(page.text)![1]!;
  expect(plain(link)).toBe('/console/unban?value=192.0.2.77&scope=Ip&type=ban');
  const none = await lookUp('value=198.51.100.1');
  expect(wordsOf(none)).toContain('Nothing that is known here covers 198.51.100.1.');
});

test('finds countries and AS, however they are written', async () => {
  await operator('POST', '/decisions', { value: 'FR', scope: 'Country', duration: '4h' });
  await operator('POST', '/decisions', { value: '64500', scope: 'AS', duration: '4h' });
  for (const query of ['value=fr', 'value=FR&scope=country', 'value=AS64500', 'value=64500&scope=as']) {
    expect(wordsOf(await lookUp(query)), query).toContain('Covered by 1 decision');
  }
});

test('follows a ban from not yet over sent once to sent twice', async () => {
  const key = await addBouncer('web-7');
  await sync();
  await start(key);
  await ban('192.0.2.77');
  const said = [];
  for (let polls = 0; polls < 3; polls++) {
    said.push(saidOf(await lookUp('value=192.0.2.77'), 'web-7'));
    await poll(key);
  }
  expect(said).toEqual([
    expect.stringMatching(/not yet its next poll gets it \d+ s ago/),
    expect.stringMatching(/sent once its next poll gets it again/),
    expect.stringMatching(/sent twice it polled again after the first answer that had it/),
  ]);
  const page = await lookUp('value=192.0.2.77');
  expect(wordsOf(page)).toContain('1 sent twice: a poll came after the first answer');
  expect(wordsOf(page)).toContain('Nobody can know that an answer arrived');
});

test('calls nothing banned that the allow-list withholds', async () => {
  await ban('192.0.2.77');
  expect(wordsOf(await lookUp('value=192.0.2.77'))).toContain('Banned until');
  await operator('POST', '/allowlist', { value: '192.0.2.77', comment: 'office' });
  const page = wordsOf(await lookUp('value=192.0.2.77'));
  expect(page).toContain('Withheld : no bouncer that follows the stream is sent it.');
  expect(page).not.toContain('Banned until');
  // A decision that is served stands above one that is not.
  await operator('POST', '/decisions', { value: 'FR', scope: 'Country', duration: '4h' });
  expect(wordsOf(await lookUp('value=FR'))).toContain('Banned until');
});

test('says of each decision apart what a bouncer was sent', async () => {
  const key = await addBouncer('web-7');
  engine.add({ value: '192.0.2.0/24', scope: 'Range', untilMs });
  await sync();
  await start(key);
  await ban('192.0.2.77');
  expect(saidOf(await lookUp('value=192.0.2.77'), 'web-7')).toMatch(
    /not yet 192\.0\.2\.77 .* sent twice 192\.0\.2\.0\/24 /,
  );
});

test('says why a bouncer is never sent it, and what is not known', async () => {
  const keys = {
    limited: await addBouncer('limited'),
    paused: await addBouncer('paused'),
    nginx: await addBouncer('nginx'),
  };
  await addBouncer('away');
  await patch('limited', { view: { scenarios_not_containing: ['manual'] } });
  await sync();
  await start(keys.limited);
  await start(keys.paused);
  await ban('192.0.2.77');
  await asBouncer(keys.nginx, '/v1/decisions?ip=192.0.2.77');
  await patch('paused', { paused: true });
  const page = await lookUp('value=192.0.2.77');
  expect(saidOf(page, 'limited')).toContain('not sent its limits leave such scenarios out');
  expect(saidOf(page, 'paused')).toContain(
    'not sent it is paused It is paused: it hears of no unban either.',
  );
  expect(saidOf(page, 'nginx')).toContain('asks for itself it asks about single addresses');
  expect(saidOf(page, 'away')).toContain('never seen');
});

test('a bouncer that does not come does not get it', async () => {
  const key = await addBouncer('silent');
  await sync();
  await start(key);
  pass(2 * 3_600_000);
  browser = await signedIn();
  await ban('192.0.2.77');
  expect((await lookUp('value=192.0.2.77')).text).toContain('<span class="tag bad">not yet</span>');
});

test('shows bouncers in pages, each evaluated by itself', async () => {
  const row = (at: number) => ({ name: `fw-${at}`, api_key: String(at).padStart(128, '0') });
  await operator('POST', '/bouncers/import', { bouncers: Array.from({ length: 60 }, (_, at) => row(at)) });
  await ban('192.0.2.77');
  const first = await lookUp('value=192.0.2.77');
  expect(wordsOf(first)).toContain('Of the 50 bouncers of this page.');
  const next = plain(/<a href="([^"]*)">next/.exec(first.text)![1]!);
  const second = await browser.get(next);
  expect(second.text.match(/\/console\/bouncers\/fw-/g)!.length).toBe(10);
});

test('narrows bouncers to those with a part of a name, and its links keep that', async () => {
  const row = (at: number) => ({ name: `web-${at}`, api_key: String(at).padStart(128, '0') });
  const rows = Array.from({ length: 60 }, (_, at) => row(at));
  await operator('POST', '/bouncers/import', { bouncers: [...rows, { ...row(60), name: 'db-1' }] });
  await ban('192.0.2.77');
  const form = formOf(await lookUp('value=192.0.2.77'), '#reach');
  expect(form).toEqual({ value: '192.0.2.77', bouncer: '' });
  const one = await lookUp(String(new URLSearchParams({ ...form, bouncer: ' DB ' })));
  expect([saidOf(one, 'db-1').includes('never seen'), one.text.includes('>web-1</a>')]).toEqual([
    true,
    false,
  ]);
  const first = await lookUp('value=192.0.2.77&bouncer=web');
  expect(formOf(first, '#reach')['bouncer']).toBe('web');
  const next = plain(/<a href="([^"]*)">next/.exec(first.text)![1]!);
  const second = await browser.get(next);
  expect(second.text.match(/\/console\/bouncers\/web-/g)!.length).toBe(10);
  expect(wordsOf(await lookUp('value=192.0.2.77&bouncer=mail'))).toContain(
    'No bouncer’s name has that in it.',
  );
});

test('does not say that nothing covers an address before every list is known', async () => {
  engine.fault = () => new Response(null, { status: 500 });
  await sync();
  const text = wordsOf(await lookUp('value=192.0.2.77'));
  expect(text).toContain('No full list of default is known: what it bans is not here.');
});

describe('odd input', () => {
  test.each([
    ['no address', '192.0.2.300', 'must be an IP address or a CIDR range'],
    ['no range', '192.0.2.0/33', 'must be an IP address or a CIDR range'],
    ['a long text', 'x'.repeat(300), 'must be 1 to 256 printable characters'],
    ['a control character', 'a\u0000b', 'must be 1 to 256 printable characters'],
  ])('%s is a message on the page, which keeps it', async (_, value, message) => {
    const page = await lookUp(`value=${encodeURIComponent(value)}`);
    expect(page.status).toBe(400);
    expect(page.text).toContain(message);
    expect(page.text).toContain('role="alert"');
  });

  test('elsewhere in the address is one, too', async () => {
    expect((await lookUp('value=192.0.2.1&after=x')).status).toBe(400);
    expect((await lookUp('value=192.0.2.1&done=x&else=y')).status).toBe(200);
  });

  test('is shown as text, as is what engines and bouncers say', async () => {
    const markup = '<script>alert(1)</script>"\'><img src=x>';
    engine.add({ value: markup, scope: 'Session', scenario: markup, origin: markup, type: markup, untilMs });
    await sync();
    await addBouncer('web-7');
    for (const query of [`value=${encodeURIComponent(markup)}`, `value=192.0.2.1&scope=${markup}`]) {
      const { text } = await lookUp(query);
      expect(text).not.toContain('<script>alert');
      expect(text).not.toContain('<img');
    }
    expect(wordsOf(await lookUp(`value=${encodeURIComponent(markup)}`))).toContain('Covered by 1 decision');
  });
});

test('a ban leads to its look-up, and from there to an unban', async () => {
  const page = await lookUp('value=198.51.100.7');
  const form = plain(/<a href="([^"]*)">Ban it…/.exec(page.text)![1]!);
  const done = await browser.submit(await browser.get(form), '/ban', { duration: '4h' });
  expect(done.headers.get('location')).toBe('/console/lookup?value=198.51.100.7&done=banned');
  const shown = await browser.get(done.headers.get('location')!);
  expect(wordsOf(shown)).toContain('Banned. Each bouncer whose view it is in gets it with its next poll.');
  const unban = plain(/<a href="([^"]*)">Unban…/.exec(shown.text)![1]!);
  const removed = await browser.submit(await browser.get(unban), '/unban');
  expect(removed.text).toContain('1 decision was removed.');
  const viewer = await signedIn(await makeToken('ann', 'viewer'));
  await ban('198.51.100.7');
  const seen = await viewer.get('/console/lookup?value=198.51.100.7');
  expect(seen.text).toContain('Banning takes the role operator; yours is viewer.');
  expect(seen.text).not.toMatch(/Unban|\/console\/ban/);
});
