// Keys over their lives: rotation, revocation, expiry, and that mutations are safe to repeat.
import { evictDurableObject, runInDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { planStatements, saveFirstUse, versionsOf } from '../../src/bouncers/keys.sql.ts';
import { statementBuilder } from '../../src/store/ask.ts';
import { hashOf, statementOf, textOf, type AuditRow } from '../../src/store/audit.sql.ts';
import { feed } from '../support/bouncer.ts';
import { type ModelEngine } from '../support/model-engine.ts';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';
import { startEdge } from '../support/edge.ts';

const minute = 60_000;
let engine: ModelEngine;
let key: string;

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  ({ engine, key } = await startEdge());
});

const pass = (ms: number): void => void vi.setSystemTime(Date.now() + ms);
const status = async (secret: string): Promise<number> => {
  return (await asBouncer(secret, '/v1/decisions/stream')).status;
};
const rotate = async (body: object = {}) => (await operator('POST', '/bouncers/fw/rotate', body)).body;
const versions = async (): Promise<{ number: number; state: string; valid_until: string | null }[]> => {
  return (await operator('GET', '/bouncers/fw')).body.key_versions;
};
const states = async (): Promise<[number, string][]> =>
  (await versions()).map(({ number, state }) => [number, state]);
const digestOf = async (secret: string): Promise<string> => {
  return new Uint8Array(await crypto.subtle.digest('SHA-512', new TextEncoder().encode(secret))).toHex();
};

describe('rotation', () => {
  test('both keys work until the new one is used; then the old one has its grace, to the millisecond', async () => {
    const { key: next } = await rotate({ grace: '10m' });
    expect(await states()).toEqual([
      [1, 'current'],
      [2, 'next'],
    ]);
    pass(3 * 86_400_000);
    expect(await status(key)).toBe(200);
    expect(await status(next)).toBe(200);
    expect(await states()).toEqual([
      [1, 'previous'],
      [2, 'current'],
    ]);
    pass(10 * minute - 1);
    expect(await status(key)).toBe(200);
    pass(1);
    expect([await status(key), await status(next)]).toEqual([403, 200]);
  });

  test('a first use that is noted while a rotation is decided stays noted', async () => {
    const bouncer = { id: 1, revision: 1, versionCount: 1 };
    const [version] = await versionsOf(env.DB, [bouncer.id]);
    if (!version) throw new Error('no version');
    await saveFirstUse(env.DB, version.id, 1000);
    const plan = { revoke: [], change: [{ version, to: { deadlineMs: 2000 } }] };
    const statements = planStatements(statementBuilder(env.DB), [{ bouncer, plan, digest: null }], 1500);
    const built = statements.map(statementOf);
    await env.DB.batch(built.map(({ sql, params }) => env.DB.prepare(sql).bind(...params)));
    expect(await versionsOf(env.DB, [bouncer.id])).toEqual([
      { ...version, firstUsedMs: 1000, deadlineMs: 2000 },
    ]);
  });

  test.each(['0s', '10m'])('a digest that the bouncer has already is refused (grace %s)', async (grace) => {
    const digest = await digestOf('a-key-that-the-caller-made-by-itself');
    await rotate({ key_sha512: digest });
    const again = await operator('POST', '/bouncers/fw/rotate', { key_sha512: digest, grace });
    expect([again.status, again.body.detail]).toEqual([409, expect.stringContaining('key_sha512')]);
    expect(await status('a-key-that-the-caller-made-by-itself')).toBe(200);
  });

  test('a question whether the new key is good (HEAD) does not start the grace', async () => {
    const { key: next } = await rotate();
    expect((await asBouncer(next, '/v1/decisions', { method: 'HEAD' })).status).toBe(200);
    expect(await states()).toEqual([
      [1, 'current'],
      [2, 'next'],
    ]);
  });

  test('a second rotation takes the place of an unused new key: there are never three', async () => {
    const { key: unused } = await rotate();
    const { key: next } = await rotate();
    expect(await states()).toEqual([
      [1, 'current'],
      [3, 'next'],
    ]);
    expect([await status(key), await status(unused), await status(next)]).toEqual([200, 403, 200]);
  });

  test('a rotation within a grace revokes the version in its grace', async () => {
    const { key: second } = await rotate();
    await status(second);
    const { key: third } = await rotate();
    pass(5_001);
    expect([await status(key), await status(second), await status(third)]).toEqual([403, 200, 200]);
  });

  test('grace 0s revokes the old key with the rotation', async () => {
    const { key: next } = await rotate({ grace: '0s' });
    expect(await states()).toEqual([[2, 'current']]);
    pass(5_001);
    expect([await status(key), await status(next)]).toEqual([403, 200]);
  });

  test('an unused new key dies with the overlap, the old one lives on', async () => {
    const { key: next } = await rotate({ max_overlap: '1h' });
    pass(60 * minute);
    expect([await status(next), await status(key)]).toEqual([403, 200]);
  });

  test('the grace ends with the overlap', async () => {
    await operator('POST', '/bouncers', {
      name: 'short',
      key_sha512: await digestOf('s'.repeat(32)),
    });
    const { key: next } = (
      await operator('POST', '/bouncers/short/rotate', { grace: '2h', max_overlap: '20m' })
    ).body;
    pass(19 * minute);
    await status(next);
    pass(minute - 1);
    expect(await status('s'.repeat(32))).toBe(200);
    pass(1);
    expect(await status('s'.repeat(32))).toBe(403);
  });

  test('a grace never outlives the old key’s own expiry', async () => {
    const { body } = await operator('POST', '/bouncers', { name: 'short', expires_in: '30m' });
    const { key: next } = (await operator('POST', '/bouncers/short/rotate', { grace: '2h' })).body;
    pass(10 * minute);
    await status(next);
    const [old] = (await operator('GET', '/bouncers/short')).body.key_versions;
    expect([old.state, Date.parse(old.valid_until) - Date.now()]).toEqual(['previous', 20 * minute]);
    pass(20 * minute - 1);
    expect(await status(body.key)).toBe(200);
    pass(1);
    expect([await status(body.key), await status(next)]).toEqual([403, 200]);
  });

  test('a digest of the caller’s own is registered without a key in the answer', async () => {
    const answer = await rotate({ key_sha512: await digestOf('n'.repeat(40)) });
    expect('key' in answer).toBe(false);
    expect(await status('n'.repeat(40))).toBe(200);
  });

  test('the cursor survives: no full list again', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + 100 * minute });
    await operator('POST', '/feed/sync?full=true');
    await asBouncer(key, '/v1/decisions/stream?startup=true');
    const { key: next } = await rotate();
    const { new: added } = await (await asBouncer(next, '/v1/decisions/stream')).json<{ new: unknown[] }>();
    expect(added).toEqual([]);
  });

  test('first and last use of both versions are shown', async () => {
    const uses = async () => {
      const shown = (await operator('GET', '/bouncers/fw')).body.key_versions;
      return shown.map((version: { first_used: string | null; last_used: string | null }) => {
        return [version.first_used, version.last_used];
      });
    };
    const now = () => new Date().toISOString();
    await asBouncer(key, '/v1/decisions', { method: 'HEAD' });
    expect((await uses())[0][0]).toBeNull();
    const first = now();
    await status(key);
    pass(minute);
    await status(key);
    const last = now();
    const { key: next } = await rotate();
    pass(minute);
    await status(next);
    expect(await uses()).toEqual([
      [first, last],
      [now(), now()],
    ]);
  });

  test.each([
    [{ grace: 'soon' }, 'grace'],
    [{ grace: '-1s' }, 'grace'],
    [{ grace: '8d' }, 'grace'],
    [{ max_overlap: '0s' }, 'max_overlap'],
    [{ key_sha512: 'abc' }, 'key_sha512'],
    [{ expires_in: '1' }, 'expires_in'],
    [{ name: 'x' }, 'name'],
  ])('%j is a 400 that names the field, and changes nothing', async (body, field) => {
    const answer = await operator('POST', '/bouncers/fw/rotate', body);
    expect([answer.status, answer.body.errors[0].field]).toEqual([400, field]);
    expect(await states()).toEqual([[1, 'current']]);
  });
});

describe('revocation and expiry', () => {
  test('a revoked version is refused within 5 s, the other goes on', async () => {
    const { key: next } = await rotate();
    expect([await status(key), await status(next)]).toEqual([200, 200]);
    expect((await operator('POST', '/bouncers/fw/versions/1/revoke')).status).toBe(200);
    pass(5_000);
    expect([await status(key), await status(next)]).toEqual([403, 200]);
    expect((await operator('POST', '/bouncers/fw/versions/1/revoke')).status).toBe(404);
  });

  test('a key that was revoked can’t be registered again, under any name', async () => {
    const digest = await digestOf(key);
    await operator('DELETE', '/bouncers/fw');
    const answer = await operator('POST', '/bouncers', { name: 'again', key_sha512: digest });
    expect([answer.status, answer.body.detail]).toEqual([409, expect.stringContaining('key_sha512')]);
    await addBouncer('other');
    expect((await operator('POST', '/bouncers/other/rotate', { key_sha512: digest })).status).toBe(409);
  });

  test('an expired key is 403, at its moment', async () => {
    const { body } = await operator('POST', '/bouncers', { name: 'day', expires_in: '1d' });
    expect(body.bouncer.key_versions[0].valid_until).toBe(new Date(Date.now() + 86_400_000).toISOString());
    pass(86_399_999);
    expect(await status(body.key)).toBe(200);
    pass(1);
    expect(await status(body.key)).toBe(403);
  });
});

describe('mutations are safe to repeat', () => {
  const send = (method: string, path: string, headers: Record<string, string>, body?: object) =>
    call(`/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${operatorToken}`, ...headers },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });

  test('the same request with the same Idempotency-Key is done once, and answered again without the secret', async () => {
    const headers = { 'idempotency-key': 'k-1' };
    const first = await send('POST', '/bouncers/fw/rotate', headers, { grace: '1h' });
    const again = await send('POST', '/bouncers/fw/rotate', headers, { grace: '1h' });
    const [one, two] = [await first.json<any>(), await again.json<any>()];
    expect([first.status, again.status, again.headers.get('idempotent-replayed')]).toEqual([
      200,
      200,
      'true',
    ]);
    expect(one.key).toMatch(/^csb_/);
    expect(two).toEqual({ bouncer: one.bouncer });
    expect(await states()).toEqual([
      [1, 'current'],
      [2, 'next'],
    ]);
  });

  test('another body under the same key is 422; after a day the key is free', async () => {
    const headers = { 'idempotency-key': 'k-1' };
    await send('POST', '/bouncers', headers, { name: 'a' });
    const other = await send('POST', '/bouncers', headers, { name: 'b' });
    expect(other.status).toBe(422);
    pass(86_400_001);
    expect((await send('POST', '/bouncers', headers, { name: 'b' })).status).toBe(201);
  });

  test('20 copies at once do it once', async () => {
    const headers = { 'idempotency-key': 'k-2' };
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => send('POST', '/bouncers', headers, { name: 'once' })),
    );
    expect(answers.map((answer) => answer.status)).toEqual(Array(20).fill(201));
    expect(answers.filter((answer) => answer.headers.get('idempotent-replayed') === null)).toHaveLength(1);
  });

  test('a revocation and a deletion that are repeated are answered like the first', async () => {
    await rotate();
    for (const [method, path, status] of [
      ['POST', '/bouncers/fw/versions/1/revoke', 200],
      ['DELETE', '/bouncers/fw', 204],
    ] as const) {
      const headers = { 'idempotency-key': path };
      const answers = [await send(method, path, headers), await send(method, path, headers)];
      expect(answers.map((answer) => answer.status)).toEqual([status, status]);
      expect(await answers[1]?.text()).toBe(await answers[0]?.text());
    }
    const { audit } = (await operator('GET', '/audit?target=fw')).body;
    expect(audit.map(({ action }: { action: string }) => action)).toEqual([
      'bouncer.delete',
      'bouncer.revoke',
      'bouncer.rotate',
      'bouncer.create',
    ]);
  });

  test('If-Match: an ETag that a proxy made weak, since it packs what it passes on, is the one that was answered', async () => {
    const weak = async (revision: number) =>
      (await send('POST', '/bouncers/fw/rotate', { 'if-match': `W/"${revision}"` })).status;
    const { revision } = (await operator('GET', '/bouncers/fw')).body;
    expect([await weak(revision + 1), await weak(revision), await weak(revision)]).toEqual([412, 200, 412]);
    for (const bad of ['W/3', 'w/"3"', 'W/ "3"', 'W/"x"']) {
      expect((await send('POST', '/bouncers/fw/rotate', { 'if-match': bad })).status).toBe(400);
    }
  });

  test('If-Match: what was seen is what is changed, else 412', async () => {
    const etag = (await send('GET', '/bouncers/fw', {})).headers.get('etag') as string;
    const changed = await send('POST', '/bouncers/fw/rotate', { 'if-match': etag });
    expect(changed.status).toBe(200);
    expect(changed.headers.get('etag')).not.toBe(etag);
    expect((await send('POST', '/bouncers/fw/rotate', { 'if-match': etag })).status).toBe(412);
    expect((await send('POST', '/bouncers/fw/versions/1/revoke', { 'if-match': etag })).status).toBe(412);
    expect((await send('DELETE', '/bouncers/fw', { 'if-match': etag })).status).toBe(412);
    expect((await send('POST', '/bouncers/fw/rotate', { 'if-match': 'x' })).status).toBe(400);
    expect((await send('DELETE', '/bouncers/fw', { 'if-match': '*' })).status).toBe(204);
  });

  test('25 rotations, revocations and uses at once leave a state that the rules allow', async () => {
    const keys = new Map([[1, key]]);
    const doRotate = async () => {
      const { bouncer, key: made } = await rotate();
      keys.set(bouncer.key_versions.at(-1).number, made);
    };
    await doRotate();
    await Promise.all(
      Array.from({ length: 25 }, async (_, index) => {
        if (index % 3 === 0) await doRotate();
        else if (index % 3 === 1) await operator('POST', `/bouncers/fw/versions/${(index % 5) + 1}/revoke`);
        else for (const each of [...keys.values()]) expect([200, 403]).toContain(await status(each));
      }),
    );
    const left = await states();
    const found = left.map(([, state]) => state).join(' ');
    expect(['', 'next', 'current', 'previous', 'current next', 'previous current']).toContain(found);
    // What is shown opens, nothing else does, and each mutation has its row.
    pass(5_000);
    const live = left.map(([number]) => number);
    for (const [number, each] of keys) expect(await status(each)).toBe(live.includes(number) ? 200 : 403);
    const { revision } = (await operator('GET', '/bouncers/fw')).body;
    expect((await operator('GET', '/audit/verify')).body).toMatchObject({ ok: true, rows: revision });
  });
});

describe('the audit log', () => {
  test('has one row per mutation: who, what, to whom; and none of the secrets', async () => {
    const { key: next } = await rotate({ grace: '10m' });
    await status(next);
    await operator('POST', '/bouncers/fw/versions/1/revoke');
    await operator('DELETE', '/bouncers/fw');
    const { audit } = (await operator('GET', '/audit')).body;
    expect(audit.map(({ actor, action, target }: any) => [actor, action, target])).toEqual([
      ['operator-token', 'bouncer.delete', 'fw'],
      ['operator-token', 'bouncer.revoke', 'fw'],
      ['bouncer:fw', 'bouncer.first-use', 'fw'],
      ['operator-token', 'bouncer.rotate', 'fw'],
      ['operator-token', 'bouncer.create', 'fw'],
    ]);
    const text = JSON.stringify(audit);
    for (const secret of [key, next, await digestOf(key), await digestOf(next)])
      expect(text).not.toContain(secret);
  });

  test('is filtered and paged', async () => {
    await addBouncer('b');
    await operator('DELETE', '/bouncers/b');
    const found = async (filter: string) => (await operator('GET', `/audit?${filter}`)).body.audit.length;
    expect(await found('target=b&action=bouncer.delete')).toBe(1);
    expect([await found('actor=operator-token'), await found('actor=token:nobody')]).toEqual([3, 0]);
    const first = (await operator('GET', '/audit?limit=2')).body;
    const second = (await operator('GET', `/audit?limit=2&before=${first.next}`)).body;
    expect([...first.audit, ...second.audit].map(({ seq }: any) => seq)).toEqual([3, 2, 1]);
  });

  const sealed = (): Promise<unknown> => operator('GET', '/audit/verify');

  const problemAfter = async (sql: string): Promise<string> => {
    for (const name of ['b', 'c', 'd']) await addBouncer(name);
    expect((await operator('GET', '/audit/verify')).body).toMatchObject({ ok: true, rows: 4 });
    await env.DB.exec(sql);
    return (await operator('GET', '/audit/verify')).body.problem;
  };
  test.each([
    ['a changed row', `UPDATE audit SET actor = 'nobody' WHERE seq = 2`, 'changed'],
    ['a changed detail', `UPDATE audit SET detail_json = '{}' WHERE seq = 4`, 'changed'],
    ['a removed row', `DELETE FROM audit WHERE seq = 2`, 'missing'],
    ['a removed first row', `DELETE FROM audit WHERE seq = 1`, 'missing'],
    ['a cut tail', `DELETE FROM audit WHERE seq >= 3`, 'ended at row 4'],
    ['an emptied log', `DELETE FROM audit`, 'ended at row 4'],
  ])('shows %s', async (_, sql, expected) => expect(await problemAfter(sql)).toContain(expected));

  test('shows that a row which a bouncer wrote was cut off: the first use of its new key', async () => {
    const { key: next } = await rotate();
    await status(next);
    await env.DB.exec('DELETE FROM audit WHERE seq = 3');
    expect((await operator('GET', '/audit/verify')).body).toMatchObject({
      ok: false,
      problem: expect.stringContaining('ended at row 3'),
    });
  });

  test('shows that the chain was written anew from some row on', async () => {
    await addBouncer('b');
    expect((await operator('GET', '/audit/verify')).status).toBe(200);
    const { results } = await env.DB.prepare('SELECT * FROM audit ORDER BY seq').all<AuditRow>();
    const entry = { actor: 'nobody', action: 'bouncer.create', target: 'b', detail: {} };
    const forged = await textOf(entry, Date.now());
    const hash = await hashOf({ ...forged, seq: 2, previousHash: (results[0] as AuditRow).hash });
    await env.DB.prepare(
      'UPDATE audit SET at_ms = ?, actor = ?, detail_json = ?, digest = ?, hash = ? WHERE seq = 2',
    )
      .bind(forged.atMs, forged.actor, forged.detailJson, forged.digest, hash)
      .run();
    expect((await operator('GET', '/audit/verify')).body.problem).toContain('written anew');
  });

  test('shows that a row was changed before it was sealed', async () => {
    await sealed();
    // What was written is known apart from D1, from the moment on in which it is acknowledged.
    const forged = await textOf({ actor: 'nobody', action: 'x.y', target: 'b', detail: {} }, Date.now());
    await env.DB.exec(
      `CREATE TRIGGER forge AFTER INSERT ON audit BEGIN
      UPDATE audit SET actor = 'nobody', action = 'x.y', target = 'b', detail_json = '{}', at_ms = ${forged.atMs},
        digest = '${forged.digest}' WHERE seq = new.seq; END`.replaceAll('\n', ' '),
    );
    await addBouncer('b');
    expect((await operator('GET', '/audit/verify')).body).toMatchObject({ ok: false, seq: 2 });
  });

  test('shows a row that nothing sealed for more than a minute', async () => {
    await env.DB.exec(
      `CREATE TRIGGER unsealed BEFORE UPDATE OF hash ON audit BEGIN SELECT RAISE(ABORT, 'no'); END`,
    );
    vi.spyOn(console, 'error').mockReturnValue();
    await addBouncer('b');
    expect((await operator('GET', '/audit/verify')).status).toBe(200);
    pass(61_000);
    expect((await operator('GET', '/audit/verify')).body.problem).toContain('sealed');
  });

  test('has its rows of before there were digests in one chain with those of now', async () => {
    await sealed();
    await env.DB.exec('UPDATE audit SET digest = NULL');
    const { results } = await env.DB.prepare('SELECT * FROM audit').all<Record<string, never>>();
    const { at_ms: atMs, detail_json: detailJson, previous_hash: previousHash, ...rest } = results[0] as any;
    const hash = await hashOf({ ...rest, atMs, detailJson, previousHash, digest: null });
    await env.DB.prepare('UPDATE audit SET hash = ?').bind(hash).run();
    await runInDurableObject(feed(), (_, { storage }) => {
      storage.sql.exec('UPDATE audit_anchor SET hash = ?', hash);
    });
    await evictDurableObject(feed());
    await addBouncer('b');
    await addBouncer('c');
    expect((await operator('GET', '/audit/verify')).body).toMatchObject({ ok: true, rows: 3, next: null });
    await env.DB.exec(`UPDATE audit SET actor = 'nobody' WHERE seq = 1`);
    expect((await operator('GET', '/audit/verify')).body).toMatchObject({ ok: false, seq: 1 });
  });

  test('a mutation that can’t be written into it does not happen', async () => {
    await env.DB.exec('ALTER TABLE audit RENAME TO away');
    vi.spyOn(console, 'error').mockReturnValue();
    expect((await operator('POST', '/bouncers', { name: 'b' })).status).toBe(503);
    expect((await operator('POST', '/bouncers/fw/rotate')).status).toBe(503);
    await env.DB.exec('ALTER TABLE away RENAME TO audit');
    expect((await operator('GET', '/bouncers/b')).status).toBe(404);
    expect(await states()).toEqual([[1, 'current']]);
  });
});
