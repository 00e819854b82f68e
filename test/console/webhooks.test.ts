// Webhooks in the console: who is told of what, what became of the last message, and a test of it.
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { formOf, plain, signedIn, type Browser, type Page, wordsOf } from '../support/console.ts';
import { operator } from '../support/http.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { makeToken } from '../support/operators.ts';
import { isSigned, startReceiver, type Receiver } from '../support/receiver.ts';
import { makeWebhook, quiet } from '../support/webhooks.ts';

let engine: ModelEngine;
let receiver: Receiver;
let browser: Browser;
beforeEach(async () => {
  engine = startModelEngine();
  receiver = startReceiver('ops.example');
  browser = await signedIn();
});

const url = 'https://ops.example/hooks/1';
const webhooks = (): Promise<Page> => browser.get('/console/webhooks');
const make = async (values: Record<string, string> = {}): Promise<Page> =>
  browser.submit(await webhooks(), '/webhooks', { name: 'ops', url, ...values });

describe('a webhook', () => {
  test('is made with a secret that is shown once, tested, and deleted', async () => {
    expect(wordsOf(await webhooks())).toContain('Nobody is told when a bouncer falls silent');
    const made = await make();
    expect(made.status).toBe(201);
    const secret = /whsec_[A-Za-z0-9+/]{43}=/.exec(plain(made.text))![0];
    const page = await webhooks();
    expect(page.text).not.toContain('whsec_');
    expect(wordsOf(page)).toContain(`ops ${url} all`);
    const tested = await browser.submit(page, '/webhooks/ops/test');
    expect(wordsOf(tested)).toContain('ops took the test message: it answered 204.');
    expect(receiver.taken()).toEqual(['webhook.test']);
    expect(isSigned(receiver.tries[0]!, secret)).toBe(true);
    const done = await browser.submit(await webhooks(), '/webhooks/ops/delete');
    expect(done.headers.get('location')).toBe('/console/webhooks?done=deleted');
    expect((await operator('GET', '/webhooks')).body.webhooks).toEqual([]);
    const { audit } = (await operator('GET', '/audit?target=ops')).body;
    expect(audit.map(({ action }: any) => action)).toEqual([
      'webhook.delete',
      'webhook.test',
      'webhook.create',
    ]);
  });

  test('that does not take the test says why', async () => {
    await make();
    for (const [answer, why] of [
      [() => new Response('no', { status: 500 }), 'it answered 500'],
      [
        () => Response.redirect('https://elsewhere.example/', 307),
        'it redirects (307), which is not followed',
      ],
      [() => Promise.reject(new Error('no route')), 'it can not be reached'],
    ] as const) {
      receiver.answer = answer;
      const tested = await browser.submit(await webhooks(), '/webhooks/ops/test');
      expect([tested.status, wordsOf(tested).includes(`ops did not take the test message: ${why}`)]).toEqual([
        200,
        true,
      ]);
    }
  });

  test('gets the events that are ticked', async () => {
    const form = { ...formOf(await webhooks(), '/webhooks'), name: 'ops', url };
    expect((await browser.post('/console/webhooks', { ...form, events: 'engine.stale' })).status).toBe(201);
    expect((await operator('GET', '/webhooks/ops')).body.events).toEqual(['engine.stale']);
    expect(wordsOf(await webhooks())).toContain('engine.stale');
  });

  test.each([
    ['url', 'http://ops.example/', 'must begin with https://'],
    ['url', 'https://user:pass@ops.example/', 'must not have a user or a password'],
    ['url', '<img src=x>', 'must be an address'],
    ['name', '../x', 'must be 1 to 64 letters'],
    ['events', 'bouncer.exploded', 'must be null or a list'],
  ])('is refused beside the field that is wrong: %s %s', async (field, value, why) => {
    const wrong = await make({ [field]: value });
    expect([wrong.status, plain(wrong.text).includes(why)]).toEqual([400, true]);
    expect(wrong.text).not.toContain('<img');
  });

  test('that is sent twice is made once', async () => {
    const page = await webhooks();
    const values = { name: 'ops', url };
    await browser.submit(page, '/webhooks', values);
    const again = await browser.submit(page, '/webhooks', values);
    expect([again.status, again.text.includes('whsec_')]).toEqual([201, false]);
    expect(wordsOf(again)).toContain('This form was sent before');
  });
});

test('viewers see no webhook, and which role it takes; they change none', async () => {
  await make();
  const viewer = await signedIn(await makeToken('ann', 'viewer'));
  const page = await viewer.get('/console/webhooks');
  expect([page.status, page.text.includes('ops.example')]).toEqual([403, false]);
  expect(page.text).toContain('this needs the role operator; yours is viewer');
  const form = { ...formOf(page, '/sign-out'), name: 'evil', url };
  for (const path of ['webhooks', 'webhooks/ops/test', 'webhooks/ops/delete']) {
    expect([path, (await viewer.post(`/console/${path}`, form)).status]).toEqual([path, 403]);
  }
  expect((await operator('GET', '/webhooks')).body.webhooks).toHaveLength(1);
  expect(receiver.tries).toEqual([]);
});

test('what one that fails answered, when it is tried again, and what waits is said', async () => {
  vi.spyOn(console, 'error').mockReturnValue();
  vi.useFakeTimers({ toFake: ['Date'] });
  engine.fault = () => new Response('out of order', { status: 500 });
  receiver.answer = () => new Response('no', { status: 500 });
  await makeWebhook('ops');
  await quiet(3);
  await receiver.reaches(1);
  const page = wordsOf(await webhooks());
  expect(page).toMatch(
    /fails it answered 500, \d+ s ago ; next try (in \d+ s|with the next round) 1 message waits/,
  );
  expect(page).toContain('1 of 1 webhook does not take its messages.');
  expect(wordsOf(await browser.get('/console/'))).toContain(
    'fails Webhook ops does not take its messages: it answered 500.',
  );
  const viewer = await signedIn(await makeToken('ann', 'viewer'));
  expect(wordsOf(await viewer.get('/console/'))).not.toContain('Webhook ops');
});
