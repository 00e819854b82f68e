// Engines, hosts, rotations, the audit log and operators in the console.
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { addBouncer, asBouncer, operator } from '../support/http.ts';
import { enrolmentToken, knownHost } from '../support/hosts.ts';
import { makeToken } from '../support/operators.ts';
import { formOf, openBrowser, plain, signedIn, type Browser } from '../support/console.ts';

let engine: ModelEngine;
let browser: Browser;
beforeEach(async () => {
  engine = startModelEngine();
  browser = await signedIn();
});

const untilMs = Date.now() + 3_600_000;

describe('engines', () => {
  test('are asked now, and what came of it is said', async () => {
    engine.add({ value: '192.0.2.1', untilMs });
    const page = await browser.get('/console/engines');
    expect(page.text).toContain('0 of 1 engine fresh.');
    const done = await browser.submit(page, '/engines/sync', { engine: '', mode: 'full' });
    expect(done.status).toBe(200);
    expect(done.text).toContain('1 decision added, 0 removed.');
    expect(done.text).toContain('1 of 1 engine fresh.');
    engine.fault = () => new Response('out of order', { status: 500 });
    const failed = await browser.submit(await browser.get('/console/engines'), '/engines/sync', {
      engine: 'default',
      mode: '',
    });
    expect(failed.status).toBe(502);
    expect(failed.text).toMatch(/role="alert"><p>0 decisions added, 0 removed\. .*500/);
  });
});

describe('hosts', () => {
  test('are listed with their bouncers and enrolment tokens', async () => {
    expect((await browser.get('/console/hosts')).text).toContain('There is none.');
    await knownHost('db-1', { bouncers: ['db-1-fw'] });
    await enrolmentToken({ hosts: 'web-*' });
    const { text } = await browser.get('/console/hosts');
    expect(text).toContain('<span class="tag off">waiting</span>');
    expect(text).toContain('href="/console/bouncers/db-1-fw"');
    expect(text).toMatch(
      /<code>web-\*<\/code>.*<span class="tag ok">live<\/span><\/td><td class="wrap">0 of 1/,
    );
    expect(text).not.toMatch(/cse_[0-9A-Za-z]/);
  });

  test('are narrowed to those in a state', async () => {
    await knownHost('db-1');
    const waiting = await browser.get('/console/hosts?state=waiting');
    expect(waiting.text).toContain('>db-1<');
    const suspected = await browser.get('/console/hosts?state=clone-suspected');
    expect(suspected.text).not.toContain('>db-1<');
    expect(suspected.text).toContain('None is in that state.');
    expect((await browser.get('/console/hosts?state=<b>')).status).toBe(400);
  });
});

describe('enrolment tokens', () => {
  const make = async (by: Browser, values: Record<string, string>) =>
    by.submit(await by.get('/console/enrolments'), '/enrolments', { hosts: 'web-*', ...values });

  test('are made with the token shown once and the lines for a host, and revoked', async () => {
    const made = await make(browser, { max_hosts: '3', expires_in: '2h' });
    expect(made.status).toBe(201);
    const token = /cse_[0-9A-Za-z]{49}/.exec(made.text)![0];
    expect(plain(made.text)).toContain('brokerUrl = "http');
    expect(plain(made.text)).toContain('enrolTokenFile = "/run/secrets/lapidary-enrolment";');
    expect(made.text).not.toContain('machine.enable');
    const list = await browser.get('/console/enrolments');
    expect(list.text).not.toContain(token);
    expect(list.text).toContain('0 of 3');
    const [{ id }] = (await operator('GET', '/enrolments')).body.enrolments;
    const done = await browser.submit(list, `/enrolments/${id}/revoke`);
    expect(done.headers.get('location')).toBe('/console/enrolments?done=revoked');
    expect((await operator('GET', '/enrolments')).body.enrolments[0].state).toBe('revoked');
    // The page was open twice.
    const again = await browser.submit(list, `/enrolments/${id}/revoke`, { request: 'another' });
    expect([again.status, again.text.includes('is revoked already')]).toEqual([409, true]);
  });

  test('give an account for a log processor where that is asked for', async () => {
    const made = await make(browser, { machine: 'default' });
    expect(made.text).toContain('machine.enable = true;');
  });

  test('are refused beside the field that is wrong', async () => {
    for (const [field, value, why] of [
      ['max_hosts', 'many', 'must be a whole number'],
      ['max_hosts', '2', 'must have {host} in it'],
      ['expires_in', '48h', 'must be'],
      ['hosts', '../x', 'must be a name in which'],
    ] as const) {
      const wrong = await make(browser, { bouncer: 'one', [field]: value });
      expect([field, wrong.status]).toEqual([field, 400]);
      expect(plain(wrong.text)).toContain(why);
    }
  });

  test('are all there, the newest first, page by page', async () => {
    for (let at = 0; at < 53; at++) await enrolmentToken({ hosts: `web-${at}` });
    const hostsIn = (text: string) =>
      [...text.matchAll(/<th scope="row"><code>([^<]*)/g)].map(([, name]) => name);
    const newest = await browser.get('/console/hosts');
    expect(hostsIn(newest.text)).toEqual(['web-52', 'web-51', 'web-50', 'web-49', 'web-48']);
    const first = await browser.get('/console/enrolments');
    expect(hostsIn(first.text)).toHaveLength(50);
    const next = /<a href="([^"]*)">next/.exec(first.text)![1]!.replaceAll('&amp;', '&');
    expect(hostsIn((await browser.get(next)).text)).toEqual(['web-2', 'web-1', 'web-0']);
  });

  test('are made by no viewer', async () => {
    const viewer = await signedIn(await makeToken('ann', 'viewer'));
    const page = await viewer.get('/console/enrolments');
    expect(page.text).toContain('Making one takes the role operator; yours is viewer.');
    const form = { ...formOf(page, '/sign-out'), hosts: 'web-*' };
    expect((await viewer.post('/console/enrolments', form)).status).toBe(403);
  });
});

test('a rotation shows how far each bouncer has come', async () => {
  expect((await browser.get('/console/rotations')).text).toContain('There is none.');
  await addBouncer('fw-1');
  await addBouncer('fw-2');
  const { body } = await operator('POST', '/rotations', { selector: { names: ['fw-*'] } });
  await asBouncer(body.keys['fw-1'], '/v1/decisions/stream');
  expect((await browser.get('/console/rotations')).text).toContain('href="/console/rotations/1"');
  const { text } = await browser.get('/console/rotations/1');
  expect(text).toContain('1 of 2 bouncers on the new key. Of fw-*, by operator-token.');
  expect((await browser.get('/console/rotations/1?state=waiting')).text).not.toContain('/bouncers/fw-1"');
  expect((await browser.get('/console/rotations/7')).status).toBe(404);
  expect(text).not.toContain('less often than');
});

test('a rotation names those that pull less often than its grace', async () => {
  await asBouncer(await addBouncer('fw-1'), '/v1/decisions/stream');
  vi.useFakeTimers({ toFake: ['Date'] });
  vi.setSystemTime(Date.now() + 3 * 3_600_000);
  await operator('POST', '/rotations', { selector: { names: ['fw-*'] } });
  const { text } = await browser.get('/console/rotations/1');
  expect(text).toMatch(/1 bouncer<\/span> pulls less often than the grace of 15 min.*>fw-1<\/a> \(3 h\)\./);
});

describe('the audit log', () => {
  test('is read, narrowed and verified', async () => {
    await addBouncer('fw-1');
    await addBouncer('fw-2');
    const { text } = await browser.get('/console/audit');
    expect(text).toContain('bouncer.create');
    const of = await browser.get('/console/audit?target=fw-2');
    expect([of.text.includes('>fw-2</a>'), of.text.includes('>fw-1</a>')]).toEqual([true, false]);
    const whole = await browser.get('/console/audit/verify');
    expect([whole.status, whole.text.includes('It is whole: no row is changed')]).toEqual([200, true]);
  });

  test('is paged', async () => {
    const bans = Array.from({ length: 105 }, (_, at) => `203.0.113.${at}`);
    for (const value of bans) await operator('POST', '/decisions', { value, duration: '4h' });
    const first = await browser.get('/console/audit?action=decision.ban');
    const next = /<a href="([^"]*)">next/.exec(first.text)![1]!.replaceAll('&amp;', '&');
    const second = await browser.get(next);
    expect(second.text.match(/>decision\.ban<\/a>/g)!.length).toBe(5);
  });
});

describe('operators', () => {
  test('are made with a token that is shown once, and revoked', async () => {
    const page = await browser.get('/console/operators');
    const made = await browser.submit(page, '/operators', { name: 'ann', role: 'viewer', expires_in: '90d' });
    expect(made.status).toBe(201);
    const token = /cso_[0-9A-Za-z]{49}/.exec(made.text)![0];
    const ann = await signedIn(token);
    expect((await ann.get('/console/')).status).toBe(200);
    const list = await browser.get('/console/operators');
    expect(list.text).not.toContain(token);
    const done = await browser.submit(list, '/operators/ann/revoke');
    expect(done.headers.get('location')).toBe('/console/operators?done=revoked');
    expect((await ann.get('/console/')).status).toBe(401);
    expect((await openBrowser().post('/console/sign-in', { token })).status).toBe(401);
  });

  test('are for admins', async () => {
    const other = await signedIn(await makeToken('bob', 'operator'));
    const page = await other.get('/console/operators');
    expect(page.status).toBe(403);
    expect(page.text).toContain('this needs the role admin; yours is operator');
    const form = { ...formOf(page, '/sign-out'), name: 'eve', role: 'admin', expires_in: '1h' };
    expect((await other.post('/console/operators', form)).status).toBe(403);
  });
});

test('a viewer changes nothing on any page', async () => {
  const viewer = await signedIn(await makeToken('ann', 'viewer'));
  const form = formOf(await viewer.get('/console/'), '/sign-out');
  for (const path of [
    'engines/sync',
    'enrolments/1/revoke',
    'hosts/db-1/recover',
    'operators',
    'operators/ann/revoke',
  ]) {
    expect((await viewer.post(`/console/${path}`, form)).status, path).toBe(403);
  }
});

test('markup in what engines, hosts and operators say is shown as text', async () => {
  const markup = '<script>alert(1)</script>"\'<img src=x>';
  engine.fault = () => Response.json({ new: [{ id: 1, value: markup, scenario: markup, duration: markup }] });
  await operator('POST', '/feed/sync?full=true');
  await operator('POST', '/decisions', { value: markup, scope: 'Session', duration: '4h', scenario: markup });
  for (const path of ['', 'engines', 'decisions', 'hosts', 'enrolments', 'rotations', 'audit', 'operators']) {
    const { status, text } = await browser.get(`/console/${path}`);
    expect(status, path).toBe(200);
    expect(text).not.toContain('<script>alert');
    expect(text).not.toContain('<img');
  }
  expect((await browser.get('/console/audit')).text).toContain('&lt;script&gt;alert(1)');
  for (const query of [`actor=${markup}`, `target=${markup}`, `before=${markup}`]) {
    expect((await browser.get(`/console/audit?${query}`)).text).not.toContain('<img');
  }
});
