// Engines' own allow-lists in the console: how they stand on the page of the engines, and what they have on a page of their own.
import { beforeEach, expect, test, vi } from 'vitest';
import { operatorToken } from '../support/http.ts';
import { formOf, signedIn, wordsOf, type Browser, type Page } from '../support/console.ts';
import { startModelEngines, type ModelEngine } from '../support/model-engine.ts';
import { makeToken } from '../support/operators.ts';
import { waitUntil } from '../support/patience.ts';
import {
  asked,
  awakeFeed,
  down,
  engineStatus,
  readAllowLists,
  sync,
  until,
  wake,
} from '../support/several.ts';

const minute = 60_000;
const paris = {
  name: 'paris',
  url: 'http://b.example',
  key: 'k',
  allowlists: { machine: 'lapidary', password: 'pass' },
};
const list = { kind: 'list', name: 'drop', url: 'http://c.example/drop.txt' };
let first: ModelEngine;
let engine: ModelEngine;

beforeEach(() => {
  ({ 'a.example': first, 'b.example': engine } = startModelEngines('a.example', 'b.example', 'c.example'));
  vi.useFakeTimers({ toFake: ['Date'] });
  vi.spyOn(console, 'error').mockReturnValue();
  engine.allowLists = [{ name: 'office', items: [{ value: '192.0.2.1' }] }];
});

/** Somebody signed in, while the feed reads the lists of `paris` but not those of `default`. */
const opened = (use: (browser: Browser) => Promise<void>, token = () => Promise.resolve(operatorToken)) =>
  wake({ default: 'a.example' }, async () => use(await signedIn(await token(), asked)), [paris, list]);

const page = '/console/allow-list/engines';
const rowsOf = ({ text }: Page) => text.match(/<th scope="row">/g)?.length ?? 0;
const next = ({ text }: Page) => /<a href="([^"]*)">next/.exec(text)?.[1]?.replaceAll('&amp;', '&');

/** What the page of the engines says of one's own allow-lists. */
async function saidOf(browser: Browser, name: string): Promise<string | undefined> {
  const { text } = await browser.get('/console/engines');
  const part = text.split(`id="engine-${name}"`)[1]?.split('<h2')[0];
  return /<dt>Its own allow-lists<\/dt><dd>(.*?)<\/dd>/.exec(part ?? '')?.[1];
}

/** A round in which what is asked for of the lists of `paris` comes to this. */
async function roundTo(state: string): Promise<void> {
  vi.setSystemTime(Date.now() + minute);
  await awakeFeed().alarm();
  await waitUntil(() => engineStatus('paris')?.allowLists?.state === state);
}

test('the page of the engines says how they stand', () =>
  opened(async (browser) => {
    const said = async (name = 'paris') => wordsOf({ text: (await saidOf(browser, name)) ?? '' }).trim();
    engine.allowLists = null;
    await roundTo('none');
    expect(await said()).toBe('it has none: engines have them from 1.6.6 on');
    const items = ['192.0.2.1', '0.0.0.0/0', 'nowhere'].map((value) => ({ value }));
    engine.allowLists = [{ name: 'office', items }];
    await readAllowLists();
    expect(await said()).toMatch(/^1 entry , read \S+ s ago ; 2 more could not be read, or are too wide$/);
    expect(await saidOf(browser, 'paris')).toContain(`href="${page}?engine=paris"`);
    engine.fault = () => new Response('{}', { status: 500 });
    await roundTo('failing');
    expect(await said()).toMatch(/^failing 1 entry , read .*status 500: what was read last holds$/);
    expect(await said('default')).toBe('not read');
    expect(await saidOf(browser, 'drop')).toBeUndefined();
  }));

test('after a start the ones from before hold, and it is said that nothing was read yet', async () => {
  await opened(async () => readAllowLists());
  engine.fault = down;
  await opened(async (browser) => {
    await roundTo('failing');
    const said = wordsOf({ text: (await saidOf(browser, 'paris')) ?? '' });
    expect(said).toMatch(/failing 1 entry , not read since the last start; .*what was read last holds/);
  });
});

test('what they have is listed, and narrowed to an engine and a list', () =>
  opened(async (browser) => {
    const ends = new Date(Date.now() + 60 * minute).toISOString();
    engine.allowLists?.push({ name: 'part<ners', items: [{ value: '198.51.100.0/24', expiration: ends }] });
    await readAllowLists();
    const whole = await browser.get(page);
    expect(rowsOf(whole)).toBe(2);
    expect(wordsOf(whole)).toMatch(/paris 2 entries , read/);
    expect(wordsOf(whole)).toMatch(/192\.0\.2\.1 paris office never/);
    expect(wordsOf(whole)).toMatch(/198\.51\.100\.0\/24 paris part<ners in 5\d min/);
    expect(whole.text).toContain('>part&lt;ners<');
    const narrowed = await browser.get(`${page}?engine=paris&list=office`);
    expect(rowsOf(narrowed)).toBe(1);
    expect(wordsOf(narrowed)).toContain('The list office of paris.');
    expect(wordsOf(await browser.get(`${page}?list=<b>`))).toMatch(/The list <b> ?\. All There is none\./);
    expect((await browser.get(`${page}?engine=default`)).status).toBe(400);
    engine.fault = down;
    vi.setSystemTime(Date.now() + 61 * minute);
    expect(wordsOf(await browser.get(page))).toMatch(/part<ners \S+ min ago , so it does not hold/);
  }));

test('they are reached from the allow-list, and from a decision that one withholds', () =>
  opened(async (browser) => {
    first.add({ value: '192.0.2.1', untilMs: until() });
    await readAllowLists();
    await sync('default');
    expect((await browser.get('/console/allow-list')).text).toContain(`href="${page}"`);
    for (const path of ['/console/decisions', '/console/lookup?value=192.0.2.1']) {
      expect((await browser.get(path)).text).toContain(`href="${page}?engine=paris&amp;list=office"`);
    }
  }));

test('10,000 of them are paged, and each page is short', () =>
  opened(async (browser) => {
    const items = Array.from({ length: 10_000 }, (_, index) => ({
      value: `2001:db8:ffff:ffff:ffff:ffff:${(index >> 8).toString(16)}:${(index & 255).toString(16)}`,
    }));
    engine.allowLists = [{ name: 'a list of partners', items }];
    await readAllowLists();
    const start = await browser.get(page);
    expect(start.text).toContain('>2001:db8:ffff:ffff:ffff:ffff:0:1<');
    expect([rowsOf(start), start.text.length < 150_000]).toEqual([100, true]);
    const second = await browser.get(next(start) ?? '');
    expect(rowsOf(second)).toBe(100);
    expect(second.text).not.toContain('>2001:db8:ffff:ffff:ffff:ffff:0:1<');
    expect(second.text).toContain('← to the first');
    const last = await browser.get(`${page}?after=9900`);
    expect([rowsOf(last), rowsOf(await browser.get(next(last) ?? ''))]).toEqual([100, 0]);
  }));

test('a viewer reads them, and nobody changes them there', () =>
  opened(
    async (viewer) => {
      await readAllowLists();
      const shown = await viewer.get(page);
      expect([shown.status, rowsOf(shown)]).toEqual([200, 1]);
      expect(shown.text.match(/<form[^>]*method="post"[^>]*>/g)).toHaveLength(1);
      expect(formOf(shown, '/sign-out')).toBeDefined();
    },
    () => makeToken('ann', 'viewer'),
  ));

test('where nobody’s are read the page says so', () =>
  wake({ default: 'a.example' }, async () => {
    const browser = await signedIn(operatorToken, asked);
    expect(wordsOf(await browser.get(page))).toContain(
      'No engine’s allow-lists are read: set UPSTREAM_ALLOWLISTS',
    );
  }));
