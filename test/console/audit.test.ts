// An audit log that is not whole, in the console: what is wrong, who may say that it is known why, and that it is said.
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test } from 'vitest';
import { backUp, putBack } from '../support/backup.ts';
import { formOf, openBrowser, signedIn, wordsOf } from '../support/console.ts';
import { addBouncer, operator } from '../support/http.ts';
import { startModelEngine } from '../support/model-engine.ts';
import { makeToken } from '../support/operators.ts';

beforeEach(() => {
  startModelEngine();
});

const verdict = async (): Promise<[number, any]> => {
  const { status, body } = await operator('GET', '/audit/verify');
  return [status, body];
};

describe('after a restored backup', () => {
  let admin: string;
  let others: Record<string, string>;
  beforeEach(async () => {
    admin = await makeToken('eve', 'admin');
    others = { viewer: await makeToken('ann', 'viewer'), operator: await makeToken('bob', 'operator') };
    const backup = await backUp();
    for (const name of ['a', 'b', 'c']) await addBouncer(name);
    await putBack(backup);
    // Rows 4 to 6 are lost; the reconciliation is row 4.
    expect((await verdict())[0]).toBe(409);
  });

  test('each page that tells of the log says what is lost', async () => {
    const browser = await signedIn(admin);
    for (const path of ['audit', 'audit/verify']) {
      const words = wordsOf(await browser.get(`/console/${path}`));
      expect(words, path).toContain('The log had come to row 6, and goes on at row 4');
      expect(words, path).toContain(
        'A restored backup of D1 looks like that, and so does a log that somebody cut',
      );
    }
    expect((await browser.get('/console/audit/verify')).status).toBe(409);
    const words = wordsOf(await browser.get('/console/'));
    expect(words).toContain('broken The audit log had come to row 6, and goes on at row 4.');
  });

  test.each(['viewer', 'operator'])('a %s reads who may acknowledge it, and may not', async (role) => {
    const browser = await signedIn(others[role]!);
    const page = await browser.get('/console/audit');
    expect(wordsOf(page)).toContain(`Acknowledging it takes the role admin; yours is ${role}.`);
    expect(() => formOf(page, '/audit/acknowledge')).toThrow('no form');
    const forged = await browser.post('/console/audit/acknowledge', formOf(page, '/sign-out'));
    expect(forged.status).toBe(403);
    expect((await verdict())[0]).toBe(409);
  });

  test('an admin acknowledges it, once; it stays listed', async () => {
    const browser = await signedIn(admin);
    const page = await browser.get('/console/audit');
    const done = await browser.submit(page, '/audit/acknowledge');
    expect([done.status, done.headers.get('location')]).toEqual([303, '/console/audit?done=acknowledged']);
    const shown = await browser.get(done.headers.get('location')!);
    expect(wordsOf(shown)).toContain('Acknowledged.');
    expect(() => formOf(shown, '/audit/acknowledge')).toThrow('no form');
    const whole = wordsOf(await browser.get('/console/audit/verify'));
    expect(whole).toContain('It is whole');
    expect(whole).toMatch(/Had come to row Goes on at row Found Acknowledged 6 4 \d+ s ago \d+ s ago/);
    expect(wordsOf(await browser.get('/console/'))).not.toContain('The audit log');
    // The page was open twice.
    expect((await browser.submit(page, '/audit/acknowledge')).status).toBe(303);
    const { audit } = (await operator('GET', '/audit?action=audit.acknowledge')).body;
    expect(audit).toMatchObject([{ actor: 'token:eve', detail: { rows: [{ ended_at: 6, goes_on_at: 4 }] } }]);
  });

  test('nobody acknowledges it without the form of a page of theirs', async () => {
    const browser = await signedIn(admin);
    const page = await browser.get('/console/audit');
    const form = formOf(page, '/audit/acknowledge');
    const path = '/console/audit/acknowledge';
    const from = { 'sec-fetch-site': 'cross-site', origin: 'https://evil.example' };
    expect((await browser.post(path, form, from)).status).toBe(403);
    expect((await browser.post(path, { ...form, 'form-token': 'x' })).status).toBe(403);
    expect((await openBrowser().post(path, form)).status).toBe(401);
    expect((await verdict())[0]).toBe(409);
  });

  test('a row that was changed is told apart: no acknowledgement ends that', async () => {
    await env.DB.exec(`UPDATE audit SET target = 'x' WHERE seq = 2`);
    const browser = await signedIn(admin);
    const page = await browser.get('/console/audit/verify');
    expect(wordsOf(page)).toContain('At row 2: ');
    expect(wordsOf(page)).toContain('No acknowledgement ends that');
    await browser.submit(page, '/audit/acknowledge');
    const after = await browser.get('/console/audit/verify');
    expect([after.status, wordsOf(after).includes('At row 2: ')]).toEqual([409, true]);
    expect(() => formOf(after, '/audit/acknowledge')).toThrow('no form');
  });
});

test('what is lost is in the API’s answer, acknowledged or not', async () => {
  await addBouncer('a');
  const backup = await backUp();
  await addBouncer('b');
  await putBack(backup);
  const lost = { ended_at: 2, goes_on_at: 2, found_at: expect.any(String) };
  expect(await verdict()).toMatchObject([409, { ok: false, lost: [{ ...lost, acknowledged_at: null }] }]);
  await operator('POST', '/audit/acknowledge');
  const at = expect.any(String);
  expect(await verdict()).toMatchObject([200, { ok: true, lost: [{ ...lost, acknowledged_at: at }] }]);
});
