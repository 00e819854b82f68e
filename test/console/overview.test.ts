// The overview: what is served, what needs somebody, and what an empty installation is to do.
import { beforeEach, expect, test } from 'vitest';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';
import { pass } from '../support/operators.ts';
import { signedIn, wordsOf as allWordsOf, type Page } from '../support/console.ts';

let engine: ModelEngine;
beforeEach(() => {
  engine = startModelEngine();
});

const overview = async (): Promise<Page> => (await signedIn()).get('/console/');
/** The text of its middle. */
const wordsOf = ({ text }: Page): string =>
  allWordsOf({ text: text.replace(/^[\s\S]*<main[^>]*>|<\/main>[\s\S]*$/g, '') });

test('an empty installation says what to do first', async () => {
  const words = wordsOf(await overview());
  expect(words).toContain('Not everything is served. 1 thing needs attention.');
  expect(words).toContain('Connect a bouncer');
  expect(words).toContain('Engine default: No full list of it was ever accepted');
});

test('what is served is counted, and nothing needs attention', async () => {
  const untilMs = Date.now() + 3_600_000;
  engine.add({ value: '192.0.2.1', origin: 'CAPI', untilMs });
  engine.add({ value: '192.0.2.2', origin: 'CAPI', untilMs });
  await operator('POST', '/feed/sync?full=true');
  await operator('POST', '/decisions', { value: '192.0.2.3', duration: '4h' });
  await asBouncer(await addBouncer('web-1'), '/v1/decisions/stream?startup=true');
  const words = wordsOf(await overview());
  expect(words).toContain('Everything is served. Nothing needs attention.');
  expect(words).not.toContain('Connect');
  expect(words).toContain('3 decisions , 1 of them made here');
  expect(words).toContain('1 of 1 bouncer seen in the last hour');
  expect(words).toMatch(/default engine fresh 2 \d s ago \d s ago/);
  expect(words).toMatch(/CAPI default ban 2 lapidary decided here ban 1/);
});

test('what needs somebody is named, with why and since when', async () => {
  await operator('POST', '/feed/sync?full=true');
  await asBouncer(await addBouncer('web-7'), '/v1/decisions/stream');
  await operator('POST', '/bouncers', { name: 'edge-1', expires_in: '3d' });
  await operator('POST', '/bouncers', { name: 'edge-2', expires_in: '30m' });
  engine.fault = () => new Response('out of order', { status: 500 });
  await operator('POST', '/feed/sync');
  pass(2 * 3_600_000);
  const words = wordsOf(await overview());
  expect(words).toContain('Everything is served. 4 things need attention.');
  expect(words).toMatch(
    /stale Engine default: It has not answered in time\. The last good list is served\. .*500/,
  );
  expect(words).toContain('silent web-7 : last seen 2 h ago.');
  expect(words).toContain('no key edge-2 : its key ended 1 h ago.');
  expect(words).toContain('key ends The key of edge-1 ends in 2 d 21 h.');
});

test('the last day is drawn, with words and a table beside it', async () => {
  await operator('POST', '/feed/sync?full=true');
  const browser = await signedIn();
  await browser.get('/console/');
  await asBouncer(await addBouncer('web-1'), '/v1/decisions/stream?startup=true');
  await asBouncer('a-key-of-nobody', '/v1/decisions/stream');
  await asBouncer('a-key-of-nobody', '/v1/decisions/stream');
  await operator('POST', '/decisions', { value: '192.0.2.3', duration: '4h' });
  await browser.get('/console/');
  pass(300_000);
  const page = await browser.get('/console/');
  const words = wordsOf(page);
  expect(words).toMatch(
    /Polls and look-ups 1 in all, at most 1 in five minutes\. Nothing is known of 23 h 50 min\./,
  );
  expect(words).toMatch(/Refused attempts 2 in all, at most 2 in five minutes/);
  expect(words).toMatch(/Decisions 1 now, between 0 and 1|Decisions 1 now, always 1/);
  expect(words).toContain('A bouncer sent a key that is none, or is none any more 2');
  // What is known is drawn, and the rest is grey.
  expect(page.text).toMatch(/<path class="curve" d="M286 100H286V0H287V100Z"/);
  expect(page.text).toMatch(/<rect class="unknown" x="0" y="0" width="286"/);
  expect(page.text).toMatch(/aria-labelledby="plot-polls words-polls"><title id="plot-polls">/);
  expect(page.text).not.toMatch(/ style="/);
});

test('bouncers that were not seen are counted by why, and keys by their age', async () => {
  await operator('POST', '/feed/sync?full=true');
  await asBouncer(await addBouncer('web-1'), '/v1/decisions/stream?startup=true');
  pass(100 * 86_400_000);
  await operator('POST', '/feed/sync?full=true');
  await asBouncer(await addBouncer('web-2'), '/v1/decisions/stream?startup=true');
  await addBouncer('web-3');
  await call('/api/v1/bouncers/web-3', {
    method: 'PATCH',
    headers: { authorization: `Bearer ${operatorToken}`, 'if-match': '*' },
    body: '{"paused":true}',
  });
  const words = wordsOf(await overview());
  expect(words).toContain('1 of 3 bouncers seen in the last hour · 1 silent · 1 paused');
  expect(words).toContain('up to 30 d ago 2 30 to 90 d ago 0 90 to 365 d ago 1 over 365 d ago 0');
  expect(words).toContain('No key that is good now has an end.');
});

test('a viewer who looks is no refusal', async () => {
  const { body } = await operator('POST', '/operator-tokens', {
    name: 'eve',
    role: 'viewer',
    expires_in: '1d',
  });
  expect((await (await signedIn(body.token)).get('/console/')).status).toBe(200);
  const scrape = await (
    await call('/metrics', { headers: { authorization: `Bearer ${operatorToken}` } })
  ).text();
  expect(scrape).not.toMatch(/lapidary_auth_failures_total\{.*reason="role"/);
});
