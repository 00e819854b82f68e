// Operators' bans, unbans and syncs: each has its audit row before it is done, and a ban that is sent twice is one.
import { env } from 'cloudflare:workers';
import { runInDurableObject } from 'cloudflare:test';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { feed } from '../support/bouncer.ts';
import { call, operator, operatorToken } from '../support/http.ts';
import { startModelEngine } from '../support/model-engine.ts';

beforeEach(() => void startModelEngine());

async function ban(body: object, headers: Record<string, string> = {}) {
  const answer = await call('/api/v1/decisions', {
    method: 'POST',
    headers: { authorization: `Bearer ${operatorToken}`, ...headers },
    body: JSON.stringify(body),
  });
  return { status: answer.status, body: await answer.json<any>(), headers: answer.headers };
}
const active = async (): Promise<string[]> => {
  return (await operator('GET', '/decisions')).body.decisions.map(({ value }: any) => value);
};
const rows = async (): Promise<any[]> => (await operator('GET', '/audit')).body.audit;
const inObject = (sql: string): Promise<unknown> =>
  runInDurableObject(feed(), (_, state) => void state.storage.sql.exec(sql));

describe('the audit log', () => {
  test('says who banned whom, for what, until when; who took it back, and who synced', async () => {
    const token = (
      await operator('POST', '/operator-tokens', { name: 'ci', role: 'operator', expires_in: '1d' })
    ).body.token;
    const as = { headers: { authorization: `Bearer ${token}` } };
    const { decision } = (await ban({ value: '192.0.2.1', duration: '1h', scenario: 'by hand' }, as.headers))
      .body;
    await call('/api/v1/decisions?value=192.0.2.1&type=ban', { method: 'DELETE', ...as });
    await call('/api/v1/feed/sync?full=true', { method: 'POST', ...as });
    const told = (await (await call('/api/v1/audit?actor=token:ci', as)).json<any>()).audit;
    expect(told.map(({ actor }: any) => actor)).toEqual(['token:ci', 'token:ci', 'token:ci']);
    expect(told.map(({ action, target, detail }: any) => [action, target, detail])).toEqual([
      ['feed.sync', 'feed', { full: true, believe: false }],
      ['decision.unban', '192.0.2.1', { type: 'ban' }],
      ['decision.ban', '192.0.2.1', { type: 'ban', scope: 'Ip', scenario: 'by hand', until: decision.until }],
    ]);
    expect((await operator('GET', '/audit/verify')).body.ok).toBe(true);
  });

  test('that can not be written keeps everybody from banning, unbanning and syncing', async () => {
    await ban({ value: '192.0.2.1', duration: '1h' });
    vi.spyOn(console, 'error').mockReturnValue();
    await env.DB.exec('ALTER TABLE audit RENAME TO away');
    expect((await ban({ value: '192.0.2.2', duration: '1h' })).status).toBe(503);
    expect((await operator('DELETE', '/decisions?value=192.0.2.1')).status).toBe(503);
    expect((await operator('POST', '/feed/sync')).status).toBe(503);
    await env.DB.exec('ALTER TABLE away RENAME TO audit');
    expect(await active()).toEqual(['192.0.2.1']);
  });
});

describe('a ban with an Idempotency-Key', () => {
  const key = { 'idempotency-key': 'ban-1' };

  test('is made once, and answered again as it was', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    const first = await ban({ value: '192.0.2.1', duration: '1h' }, key);
    const again = await ban({ value: '192.0.2.1', duration: '1h' }, key);
    expect([again.status, again.body, again.headers.get('idempotent-replayed')]).toEqual([
      201,
      first.body,
      'true',
    ]);
    expect(await active()).toEqual(['192.0.2.1']);
    expect(await rows()).toHaveLength(1);
    const other = await ban({ value: '192.0.2.2', duration: '1h' }, key);
    expect([other.status, other.body.errors[0].field]).toEqual([422, 'Idempotency-Key']);
  });

  test('does not come back by a repetition when it was taken back', async () => {
    await ban({ value: '192.0.2.1', duration: '1h' }, key);
    await operator('DELETE', '/decisions?value=192.0.2.1');
    expect((await ban({ value: '192.0.2.1', duration: '1h' }, key)).status).toBe(201);
    expect(await active()).toEqual([]);
  });

  test('20 copies at once ban once', async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => ban({ value: '192.0.2.1', duration: '1h' }, key)),
    );
    expect(new Set(answers.map(({ status, body }) => `${status} ${body.decision.id}`)).size).toBe(1);
    expect(await active()).toEqual(['192.0.2.1']);
  });

  test('that stopped half-way is made by the repetition, to the same end', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    const untilMs = Date.now() + 3_600_000;
    vi.spyOn(console, 'error').mockReturnValue();
    await inObject('ALTER TABLE once RENAME TO away');
    expect((await ban({ value: '192.0.2.1', duration: '1h' }, key)).status).toBe(500);
    await inObject('ALTER TABLE away RENAME TO once');
    expect(await active()).toEqual([]);
    vi.setSystemTime(Date.now() + 60_000);
    const again = await ban({ value: '192.0.2.1', duration: '1h' }, key);
    expect(again.body.decision.until).toBe(new Date(untilMs).toISOString());
    expect(await active()).toEqual(['192.0.2.1']);
  });
});
