// Operators over HTTP: tokens of ours, what each role may do, and how OPERATOR_TOKEN is marked.
import { env } from 'cloudflare:workers';
import { describe, expect, test, vi } from 'vitest';
import { addBouncer, call, operator, operatorToken } from '../support/http.ts';
import {
  auditRows,
  bearer,
  entryOf,
  freshIssuer,
  makeToken,
  network,
  output,
  request,
  secrets,
  watchOperators,
} from '../support/operators.ts';

watchOperators();

describe('tokens of ours', () => {
  test('are shown once, have the format that scanners know, and open what their role may', async () => {
    const answer = await operator('POST', '/operator-tokens', {
      name: 'ci',
      role: 'viewer',
      expires_in: '7d',
    });
    const { token, operator_token: described } = answer.body;
    secrets.add(token);
    expect(token).toMatch(/^cso_[0-9A-Za-z]{49}$/);
    expect(described).toMatchObject({ name: 'ci', role: 'viewer', state: 'live', revoked_at: null });
    expect(described.digest_prefix).toMatch(/^[0-9a-f]{8}$/);
    expect(Date.parse(described.expires_at) - Date.parse(described.created_at)).toBe(7 * 86_400_000);
    expect((await request('/feed', { headers: bearer(token) })).status).toBe(200);
    const { body } = await request('/operator-tokens', { headers: bearer(operatorToken) });
    expect(body).toEqual({ operator_tokens: [described], next: null });
    expect(JSON.stringify(body)).not.toMatch(/[0-9a-f]{9,}/);
    const { results } = await env.DB.prepare('SELECT * FROM operator_tokens, audit').all();
    expect(JSON.stringify(results)).not.toContain(token);
  });

  test.each([
    ['no name', { role: 'viewer', expires_in: '1h' }, 'name'],
    ['a name with a slash', { name: 'a/b', role: 'viewer', expires_in: '1h' }, 'name'],
    ['no role', { name: 'a', expires_in: '1h' }, 'role'],
    ['an unknown role', { name: 'a', role: 'root', expires_in: '1h' }, 'role'],
    ['no end', { name: 'a', role: 'viewer' }, 'expires_in'],
    ['an end in more than a year', { name: 'a', role: 'viewer', expires_in: '366d' }, 'expires_in'],
    ['an end that has come', { name: 'a', role: 'viewer', expires_in: '0s' }, 'expires_in'],
    ['a token of one’s own', { name: 'a', role: 'viewer', expires_in: '1h', token: 'x' }, 'token'],
  ])('%s is a 400 that names the field, and nothing is made', async (_, body, field) => {
    const answer = await operator('POST', '/operator-tokens', body);
    expect([answer.status, answer.body.errors[0].field]).toEqual([400, field]);
    expect((await operator('GET', '/operator-tokens')).body.operator_tokens).toEqual([]);
  });

  test('a year is the longest', async () => {
    await makeToken('year', 'viewer', '365d');
  });

  test('end to the millisecond', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    const token = await makeToken('ci', 'viewer', '1h');
    vi.setSystemTime(Date.now() + 3_599_999);
    expect((await request('/feed', { headers: bearer(token) })).status).toBe(200);
    vi.setSystemTime(Date.now() + 1);
    const { status, body } = await request('/feed', { headers: bearer(token) });
    expect([status, body.detail]).toEqual([401, 'this operator token is expired']);
    expect((await operator('GET', '/operator-tokens')).body.operator_tokens[0].state).toBe('expired');
  });

  test('a revoked one is refused from the next request on: nothing is cached', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    const token = await makeToken('ci', 'operator');
    expect((await request('/feed', { headers: bearer(token) })).status).toBe(200);
    // As another isolate would do it: nothing in this one is told.
    await env.DB.prepare('UPDATE operator_tokens SET revoked_ms = ?').bind(Date.now()).run();
    expect((await request('/feed', { headers: bearer(token) })).status).toBe(401);
    vi.setSystemTime(Date.now() + 5_000);
    expect((await request('/feed', { headers: bearer(token) })).status).toBe(401);
  });

  test('DELETE revokes; the row stays, and so does the name', async () => {
    const token = await makeToken('ci', 'operator');
    const revoked = await operator('DELETE', '/operator-tokens/ci');
    expect([revoked.status, revoked.body.operator_token.state]).toEqual([200, 'revoked']);
    expect((await request('/feed', { headers: bearer(token) })).status).toBe(401);
    expect((await operator('DELETE', '/operator-tokens/ci')).status).toBe(409);
    expect((await operator('DELETE', '/operator-tokens/nobody')).status).toBe(404);
    const again = await operator('POST', '/operator-tokens', {
      name: 'ci',
      role: 'viewer',
      expires_in: '1h',
    });
    expect([again.status, again.body.detail]).toEqual([409, expect.stringContaining('name')]);
    expect((await auditRows()).map(([, action, target]) => [action, target])).toEqual([
      ['operator-token.revoke', 'ci'],
      ['operator-token.create', 'ci'],
    ]);
  });

  test('20 revocations at once leave one row', async () => {
    await makeToken('ci', 'operator');
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => operator('DELETE', '/operator-tokens/ci')),
    );
    expect(answers.map(({ status }) => status).sort()).toEqual([200, ...Array(19).fill(409)]);
    expect(await auditRows()).toHaveLength(2);
  });

  test('a repeated creation answers again, without the token', async () => {
    const headers = { ...bearer(operatorToken), 'idempotency-key': 'k' };
    const body = { name: 'ci', role: 'viewer', expires_in: '1h' };
    const first = await request('/operator-tokens', { method: 'POST', headers, body });
    secrets.add(first.body.token);
    const second = await request('/operator-tokens', { method: 'POST', headers, body });
    expect([first.status, second.status]).toEqual([201, 201]);
    expect(second.headers.get('idempotent-replayed')).toBe('true');
    expect(second.body).toEqual({ operator_token: first.body.operator_token });
    const { results } = await env.DB.prepare('SELECT * FROM idempotent_answers').all();
    expect(JSON.stringify(results)).not.toContain(first.body.token);
  });

  test('20 copies of a creation at once make one, and all are answered', async () => {
    const headers = { ...bearer(operatorToken), 'idempotency-key': 'k' };
    const call = { method: 'POST', headers, body: { name: 'ci', role: 'viewer', expires_in: '1h' } };
    const answers = await Promise.all(Array.from({ length: 20 }, () => request('/operator-tokens', call)));
    expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(201));
    expect(answers.filter(({ body }) => 'token' in body)).toHaveLength(1);
    expect(await auditRows()).toHaveLength(1);
  });

  test('are listed in pages', async () => {
    for (const name of ['a', 'b', 'c']) await makeToken(name, 'viewer');
    const first = (await operator('GET', '/operator-tokens?limit=2')).body;
    const second = (await operator('GET', `/operator-tokens?limit=2&after=${first.next}`)).body;
    expect([...first.operator_tokens, ...second.operator_tokens].map(({ name }: any) => name)).toEqual([
      'a',
      'b',
      'c',
    ]);
  });

  test('with D1 out of reach nobody is let in by one: 503', async () => {
    const token = await makeToken('ci', 'admin');
    await env.DB.exec('ALTER TABLE operator_tokens RENAME TO away');
    const { status, body } = await request('/feed', { headers: bearer(token) });
    expect([status, body.detail]).toEqual([503, expect.stringContaining('try again')]);
    expect(output.join('\n')).not.toMatch(/[0-9a-f]{9,}/);
  });

  test('still open when OPERATOR_TOKEN is unset, which then opens nothing', async () => {
    const token = await makeToken('ci', 'admin');
    const settings = { OPERATOR_TOKEN: '' };
    expect((await request('/operator-tokens', { headers: bearer(token), settings })).status).toBe(200);
    expect((await request('/feed', { headers: bearer(operatorToken), settings })).status).toBe(401);
    expect((await request('/feed', { settings })).body.detail).toContain('OPERATOR_TOKEN is not set');
  });

  test.each([
    ['one that was never made', `cso_${'x'.repeat(49)}`],
    ['one that is too short', 'cso_x'],
    ['a text', 'just-a-text'],
  ])('%s is a 401', async (_, token) => {
    expect((await request('/feed', { headers: bearer(token) })).status).toBe(401);
  });
});

describe('roles', () => {
  const calls: [string, string, 'viewer' | 'operator' | 'admin', number, unknown?][] = [
    ['GET', '/bouncers', 'viewer', 200],
    ['GET', '/bouncers/fw', 'viewer', 200],
    ['GET', '/decisions', 'viewer', 200],
    ['GET', '/feed', 'viewer', 200],
    ['GET', '/audit', 'viewer', 200],
    ['GET', '/audit/verify', 'viewer', 200],
    ['POST', '/bouncers', 'operator', 201, { name: 'another' }],
    ['POST', '/bouncers/fw/rotate', 'operator', 200],
    ['POST', '/bouncers/fw/versions/1/revoke', 'operator', 200],
    ['DELETE', '/bouncers/fw', 'operator', 204],
    // Let through, these two miss an If-Match and a body.
    ['PATCH', '/bouncers/fw', 'operator', 428],
    ['POST', '/bouncers/import', 'operator', 400],
    ['POST', '/decisions', 'operator', 201, { value: '192.0.2.1', duration: '1h' }],
    ['DELETE', '/decisions?value=192.0.2.1', 'operator', 200],
    ['POST', '/feed/sync', 'operator', 502],
    ['GET', '/operator-tokens', 'admin', 200],
    ['POST', '/operator-tokens', 'admin', 201, { name: 'new', role: 'viewer', expires_in: '1h' }],
    ['DELETE', '/operator-tokens/viewer', 'admin', 200],
  ];
  const ranks = ['metrics', 'viewer', 'operator', 'admin'];

  test.each(
    calls.flatMap(([method, path, needed, status, body]) =>
      ranks.map((role) => ({ role, method, path, needed, status, body })),
    ),
  )('$role, $method $path', async ({ role, method, path, needed, status, body }) => {
    await addBouncer('fw');
    const tokens = { viewer: '', operator: '', admin: '' } as Record<string, string>;
    for (const rank of ranks) tokens[rank] = await makeToken(rank, rank);
    const before = await auditRows();
    // There is no engine: a round of sync that was let through fails with 502.
    network.fault = () => Promise.reject(new Error('down'));
    const answer = await request(path, { method, body, headers: bearer(tokens[role]) });
    if (ranks.indexOf(role) >= ranks.indexOf(needed)) return expect(answer.status).toBe(status);
    expect(answer.status).toBe(403);
    expect(answer.headers.get('content-type')).toBe('application/problem+json');
    expect(answer.body.detail).toBe(`this needs the role ${needed}; yours is ${role}`);
    expect(await auditRows()).toEqual(before);
  });

  test('the audit log names the token', async () => {
    const token = await makeToken('deploy', 'operator');
    await request('/bouncers', { method: 'POST', body: { name: 'x' }, headers: bearer(token) });
    expect((await auditRows())[0]).toEqual(['token:deploy', 'bouncer.create', 'x']);
  });

  test('an answer is not replayed to another operator with the same Idempotency-Key', async () => {
    const body = { name: 'x' };
    for (const [name, status] of [
      ['a', 201],
      ['b', 409],
    ] as const) {
      const headers = { ...bearer(await makeToken(name, 'operator')), 'idempotency-key': 'k' };
      expect((await request('/bouncers', { method: 'POST', body, headers })).status).toBe(status);
    }
  });
});

describe('OPERATOR_TOKEN', () => {
  test('marks the audit row of what it changes', async () => {
    await addBouncer('fw');
    const { audit } = (await operator('GET', '/audit')).body;
    expect(audit[0]).toMatchObject({ actor: 'operator-token', detail: { break_glass: true } });
  });

  test('marks the rows of bans, unbans and syncs', async () => {
    await operator('POST', '/decisions', { value: '192.0.2.1', duration: '1h' });
    await operator('DELETE', '/decisions?value=192.0.2.1');
    await operator('POST', '/feed/sync');
    expect(await auditRows()).toEqual([
      ['operator-token', 'feed.sync', 'feed'],
      ['operator-token', 'decision.unban', '192.0.2.1'],
      ['operator-token', 'decision.ban', '192.0.2.1'],
    ]);
    const { audit } = (await operator('GET', '/audit')).body;
    expect(audit.map(({ detail }: any) => detail.break_glass)).toEqual([true, true, true]);
    expect((await operator('GET', '/audit/verify')).body).toMatchObject({ ok: true, rows: 3 });
  });

  test('bans nobody while the audit log can not be written, nor does a token of ours; it reads', async () => {
    const token = await makeToken('ci', 'operator');
    vi.spyOn(console, 'error').mockReturnValue();
    await env.DB.exec('ALTER TABLE audit RENAME TO away');
    const ban = { method: 'POST', body: { value: '192.0.2.1', duration: '1h' } };
    expect((await request('/decisions', { ...ban, headers: bearer(operatorToken) })).status).toBe(503);
    expect((await request('/decisions', { ...ban, headers: bearer(token) })).status).toBe(503);
    expect((await request('/decisions', { headers: bearer(operatorToken) })).body.decisions).toEqual([]);
    await env.DB.exec('ALTER TABLE away RENAME TO audit');
  });

  test('every reading with it is noted where there is another way in', async () => {
    const issuers = [entryOf(await freshIssuer())];
    const read = () => request('/feed', { issuers, headers: bearer(operatorToken) });
    for (let use = 1; use <= 3; use++) expect((await read()).status).toBe(200);
    await Promise.all(Array.from({ length: 5 }, read));
    const { results } = await env.DB.prepare('SELECT actor, action, target FROM audit').all();
    expect(results).toHaveLength(8);
    for (const row of results) {
      expect(Object.values(row)).toEqual(['operator-token', 'operator.break-glass', 'GET /api/v1/feed']);
    }
  });

  test('reading with it is the ordinary way where there is no other', async () => {
    for (let poll = 0; poll < 3; poll++) await operator('GET', '/feed');
    expect(await auditRows()).toEqual([]);
    await makeToken('ci', 'viewer');
    await operator('GET', '/feed');
    await call('/api/v1/feed', { method: 'HEAD', headers: bearer(operatorToken) });
    expect((await auditRows()).map(([, action]) => action)).toEqual([
      'operator.break-glass',
      'operator.break-glass',
      'operator-token.create',
    ]);
  });
});
