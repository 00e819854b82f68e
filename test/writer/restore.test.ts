// An older backup of D1 is put back while the feed's object stays as it is: what was revoked since stays revoked, and
// what was good stays good.
import {
  createExecutionContext,
  evictDurableObject,
  runInDurableObject,
  waitOnExecutionContext,
} from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { serve } from '../../src/app.ts';
import { backUp, putBack } from '../support/backup.ts';
import { feed } from '../support/bouncer.ts';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';
import { startModelEngine } from '../support/model-engine.ts';

const minute = 60_000;
let startMs = Date.now();

/** From here on the Worker and its object load modules of their own. */
beforeAll(async () => {
  vi.resetModules();
  await feed()
    .status()
    .catch(() => undefined);
});
beforeEach(() => {
  startModelEngine();
  // Each test later than the one before: what an isolate saw in the future of the next one would count there.
  vi.useFakeTimers({ toFake: ['Date'], now: (startMs += 60 * minute) });
});

const inObject = (sql: string): Promise<unknown> =>
  runInDurableObject(feed(), (_, state) => void state.storage.sql.exec(sql));
const pass = (ms: number): void => void vi.setSystemTime(Date.now() + ms);
const status = async (key: string): Promise<number> => (await asBouncer(key, '/v1/decisions/stream')).status;
const statuses = (...keys: string[]): Promise<number[]> => Promise.all(keys.map(status));
const rotate = async (name: string, body: object = {}): Promise<string> => {
  return (await operator('POST', `/bouncers/${name}/rotate`, body)).body.key;
};
const digestOf = async (secret: string): Promise<string> => {
  return new Uint8Array(await crypto.subtle.digest('SHA-512', new TextEncoder().encode(secret))).toHex();
};
const reconciliations = async (): Promise<any[]> => {
  return (await operator('GET', '/audit?action=restore.reconcile')).body.audit;
};
const withToken = (token: string, method: string, path: string, body?: object): Promise<Response> =>
  call(`/api/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${token}` },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });

/** A poll in another isolate: in the modules of this file, whose memory the Worker does not share (see `beforeAll`). */
async function elsewhere(key: string): Promise<number> {
  const ctx = createExecutionContext();
  const request = new Request('http://edge.example/v1/decisions/stream', { headers: { 'x-api-key': key } });
  const answer = await serve(request, env, ctx);
  await answer.text();
  await waitOnExecutionContext(ctx);
  return answer.status;
}

/** Five bouncers, one for each fate. */
async function someKeys() {
  const names = ['kept', 'rotated', 'graced', 'revoked', 'deleted'] as const;
  const keys = Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, await addBouncer(name)] as const)),
  ) as Record<(typeof names)[number], string>;
  const makeToken = async (name: string): Promise<string> => {
    const { body } = await operator('POST', '/operator-tokens', { name, role: 'admin', expires_in: '30d' });
    return body.token;
  };
  return { keys, kept: await makeToken('kept'), stolen: await makeToken('stolen') };
}

async function revokeSome({ graced }: Record<string, string>) {
  const rotated = await rotate('rotated', { grace: '0s' });
  const next = await rotate('graced', { grace: '10m' });
  expect(await statuses(next, graced as string)).toEqual([200, 200]);
  expect((await operator('POST', '/bouncers/revoked/versions/1/revoke')).status).toBe(200);
  expect((await operator('DELETE', '/bouncers/deleted')).status).toBe(204);
  expect((await operator('DELETE', '/operator-tokens/stolen')).status).toBe(200);
  return { rotated, graced: next };
}

describe('after an older backup of D1 was put back', () => {
  test('revoked keys stay refused, good ones go on, and the audit log says so', async () => {
    const { keys, kept, stolen } = await someKeys();
    const backup = await backUp();
    const since = await revokeSome(keys);
    const late = await addBouncer('late');
    await putBack(backup);
    pass(5_000);

    // The old key of `graced` has what was left of its grace; keys made since the backup are not there any more.
    expect(await statuses(keys.kept, keys.graced)).toEqual([200, 200]);
    expect(await statuses(keys.rotated, keys.revoked, keys.deleted)).toEqual([403, 403, 403]);
    expect(await statuses(since.rotated, since.graced, late)).toEqual([403, 403, 403]);
    expect((await withToken(stolen, 'GET', '/feed')).status).toBe(401);
    expect((await withToken(kept, 'GET', '/feed')).status).toBe(200);
    pass(10 * minute - 5_000);
    expect(await statuses(keys.kept, keys.graced)).toEqual([200, 403]);

    expect(await reconciliations()).toMatchObject([
      { actor: 'lapidary', detail: { log_ended_at: 7, keys_revoked: 3, tokens_revoked: 1 } },
    ]);
    const bodies = await Promise.all(
      [keys.rotated, keys.revoked, keys.deleted].map(async (key, index) => {
        return operator('POST', '/bouncers', { name: `again-${index}`, key_sha512: await digestOf(key) });
      }),
    );
    expect(bodies.map((answer) => answer.status)).toEqual([409, 409, 409]);
    expect(await status(await rotate('rotated'))).toBe(200);
  });

  test('a revoked token is the first to ask: refused, for reading and for changing', async () => {
    const { keys, stolen } = await someKeys();
    const backup = await backUp();
    await revokeSome(keys);
    await putBack(backup);
    expect((await withToken(stolen, 'HEAD', '/feed')).status).toBe(401);
    await putBack(backup);
    const evil = () => withToken(stolen, 'POST', '/bouncers', { name: 'evil' });
    const first = await evil();
    expect([first.status, first.headers.get('retry-after')]).toEqual([503, '1']);
    expect((await evil()).status).toBe(401);
    expect((await operator('GET', '/bouncers/evil')).status).toBe(404);
  });

  test('50 polls at once, in two isolates, with the object restarted: one reconciliation, and none of them is wrong', async () => {
    const { keys } = await someKeys();
    const backup = await backUp();
    await revokeSome(keys);
    expect([await elsewhere(keys.kept), await elsewhere(keys.revoked)]).toEqual([200, 403]);
    await putBack(backup);
    await evictDurableObject(feed());
    pass(5_000);
    const polls = Array.from({ length: 50 }, (_, index) => {
      const key = index % 4 < 2 ? keys.kept : keys.revoked;
      return index % 2 ? elsewhere(key) : status(key);
    });
    const expected = polls.map((_, index) => (index % 4 < 2 ? 200 : 403));
    expect(await Promise.all(polls)).toEqual(expected);
    expect(await reconciliations()).toHaveLength(1);
  });

  test('an isolate never meets an epoch again that it remembers with another content', async () => {
    const fw = await addBouncer('fw');
    const backup = await backUp();
    await operator('POST', '/bouncers/fw/rotate');
    // It remembers the key in the epoch after the rotation; then the restored D1 gets there by a revocation.
    expect(await elsewhere(fw)).toBe(200);
    await putBack(backup);
    expect((await operator('GET', '/bouncers/fw')).status).toBe(200);
    expect((await operator('POST', '/bouncers/fw/versions/1/revoke')).status).toBe(200);
    pass(5_000);
    expect(await elsewhere(fw)).toBe(403);
  });

  test('a second restore, and one that takes back the first, bring nothing back either', async () => {
    const { keys, stolen } = await someKeys();
    const early = await backUp();
    await revokeSome(keys);
    const late = await backUp();
    const twice = [keys.rotated, keys.revoked, keys.deleted] as const;
    for (const backup of [early, early, late, early]) {
      await putBack(backup);
      pass(5_000);
      expect(await statuses(...twice)).toEqual([403, 403, 403]);
      expect(await status(keys.kept)).toBe(200);
      expect((await withToken(stolen, 'GET', '/feed')).status).toBe(401);
    }
  });

  test('an ETag from before it does not match what is there now', async () => {
    await addBouncer('fw');
    const backup = await backUp();
    await operator('POST', '/bouncers/fw/rotate');
    const etag = (await operator('GET', '/bouncers/fw')).headers.get('etag') as string;
    await putBack(backup);
    const headers = { authorization: `Bearer ${operatorToken}`, 'if-match': etag };
    const remove = async () => (await call('/api/v1/bouncers/fw', { method: 'DELETE', headers })).status;
    expect([await remove(), await remove()]).toEqual([412, 412]);
  });

  test('while the object can not say what it remembers, keys that are not known yet wait', async () => {
    const { keys } = await someKeys();
    const backup = await backUp();
    await revokeSome(keys);
    await putBack(backup);
    vi.spyOn(console, 'error').mockReturnValue();
    await inObject('ALTER TABLE audit_anchor RENAME TO away');
    expect([await elsewhere(keys.revoked), await elsewhere(keys.kept)]).toEqual([503, 503]);
    await inObject('ALTER TABLE away RENAME TO audit_anchor');
    expect([await elsewhere(keys.revoked), await elsewhere(keys.kept)]).toEqual([403, 200]);
  });
});

describe('the audit log after a restore', () => {
  test('says where it breaks off until an operator acknowledges it', async () => {
    await addBouncer('a');
    const backup = await backUp();
    await addBouncer('b');
    await addBouncer('c');
    await putBack(backup);
    const broken = await operator('GET', '/audit/verify');
    expect([broken.status, broken.body.ok, broken.body.seq]).toEqual([409, false, 2]);
    expect(broken.body.problem).toContain('the log ended at row 3 before, and goes on at row 2');
    expect((await operator('POST', '/audit/acknowledge')).body).toEqual({ acknowledged: 1 });
    const whole = await operator('GET', '/audit/verify');
    expect(whole.body).toMatchObject({ ok: true, rows: 3, lost: [{ ended_at: 3, goes_on_at: 2 }] });
    expect((await operator('GET', '/audit')).body.audit[0]).toMatchObject({
      actor: 'operator-token',
      action: 'audit.acknowledge',
      detail: { rows: [{ ended_at: 3, goes_on_at: 2 }] },
    });
    expect((await operator('POST', '/audit/acknowledge')).body).toEqual({ acknowledged: 0 });
  });

  test('a cut that comes after an acknowledged one is a fault again', async () => {
    await addBouncer('a');
    const backup = await backUp();
    await addBouncer('b');
    await putBack(backup);
    await operator('POST', '/audit/acknowledge');
    expect((await operator('GET', '/audit/verify')).body.ok).toBe(true);
    vi.spyOn(console, 'warn').mockReturnValue();
    await env.DB.exec('DELETE FROM audit WHERE seq = 3');
    expect((await operator('GET', '/audit/verify')).body).toMatchObject({ ok: false, seq: 3 });
  });
});

describe('a revocation that D1 has and the object has not recorded', () => {
  const kept = (): Promise<string[]> =>
    runInDurableObject(feed(), (_, { storage }) => {
      const rows = storage.sql.exec('SELECT digest FROM ended_keys ORDER BY row_id').toArray();
      return rows.map(({ digest }) => digest as string);
    });

  test('is not acknowledged, and is reported with the next request', async () => {
    const key = await addBouncer('fw');
    await operator('GET', '/feed');
    vi.spyOn(console, 'error').mockReturnValue();
    await inObject('ALTER TABLE ended_keys RENAME TO away');
    expect((await operator('POST', '/bouncers/fw/versions/1/revoke')).status).toBe(503);
    await inObject('ALTER TABLE away RENAME TO ended_keys');
    expect(await kept()).toEqual([]);
    pass(5_000);
    expect(await status(key)).toBe(403);
    expect(await kept()).toEqual([await digestOf(key)]);
    expect((await env.DB.prepare('SELECT * FROM ends_outbox').all()).results).toEqual([]);
  });

  test('more of them than are read at once are all recorded before one is acknowledged', async () => {
    await addBouncer('fw');
    const numbers = JSON.stringify(Array.from({ length: 2500 }, (_, index) => index));
    await env.DB.prepare(
      `INSERT INTO ends_outbox (digest, ends_ms) SELECT printf('%0128x', value), 1 FROM json_each(?)`,
    )
      .bind(numbers)
      .run();
    await operator('DELETE', '/bouncers/fw');
    expect(await kept()).toHaveLength(2501);
  });

  test('all of them are republished to an object that lost its storage', async () => {
    const { keys } = await someKeys();
    await revokeSome(keys);
    const before = await kept();
    expect(before).toHaveLength(5);
    await inObject('DELETE FROM ended_keys; DELETE FROM audit_anchor; DELETE FROM unsealed_rows');
    await evictDurableObject(feed());
    await addBouncer('other');
    expect((await kept()).sort()).toEqual(before.sort());
  });
});
