// What has reached its age is removed, and what it was kept for still holds: the rest of the audit log can be verified,
// nobody cuts more of it off unseen, and no backup makes a key valid again whose revocation is forgotten.
import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { feed } from '../support/bouncer.ts';
import { addBouncer, asBouncer, operator } from '../support/http.ts';
import { startModelEngine } from '../support/model-engine.ts';

const hour = 3_600_000;
const day = 24 * hour;
let startMs = Date.now();

beforeEach(() => {
  startModelEngine();
  // Each test later than the one before: what an isolate saw in the future of the next one would count there.
  vi.useFakeTimers({ toFake: ['Date'], now: (startMs += 2000 * day) });
});

const pass = (ms: number): void => void vi.setSystemTime(Date.now() + ms);
/** A round of the feed's, an hour after whatever was before. */
const clean = async (): Promise<void> => {
  pass(hour);
  expect(await runDurableObjectAlarm(feed())).toBe(true);
};
const count = async (table: string): Promise<number> => {
  return (await env.DB.prepare(`SELECT COUNT(*) AS n FROM ${table}`).first<number>('n')) ?? 0;
};
const inObject = <T>(work: (sql: SqlStorage) => T): Promise<T> =>
  runInDurableObject(feed(), (_, { storage }) => work(storage.sql));
const countInObject = (table: string): Promise<number> =>
  inObject((sql) => Number(sql.exec(`SELECT COUNT(*) AS n FROM ${table}`).one()['n']));
const verify = async (query = ''): Promise<any> => (await operator('GET', `/audit/verify${query}`)).body;
const status = async (key: string): Promise<number> => (await asBouncer(key, '/v1/decisions/stream')).status;
const digestOf = async (secret: string): Promise<string> => {
  return new Uint8Array(await crypto.subtle.digest('SHA-512', new TextEncoder().encode(secret))).toHex();
};
/** Five rows, sealed, that are 401 days old; then one of today. */
const agedLog = async (): Promise<void> => {
  for (const name of ['a', 'b', 'c', 'd', 'e']) await addBouncer(name);
  pass(401 * day);
  await addBouncer('f');
  expect(await verify()).toMatchObject({ ok: true, rows: 6 });
};

describe('what has reached its age', () => {
  test('is looked for once an hour, where nothing is left to go', async () => {
    await addBouncer('a');
    await clean();
    await clean();
    await env.DB.exec('ALTER TABLE key_epoch RENAME TO away');
    const logged = vi.spyOn(console, 'error').mockReturnValue();
    pass(10_000);
    expect(await runDurableObjectAlarm(feed())).toBe(true);
    expect(logged).not.toHaveBeenCalled();
    await env.DB.exec('ALTER TABLE away RENAME TO key_epoch');
  });

  test('is forgotten after 400 days, and what is live is not', async () => {
    const gone = await addBouncer('gone');
    const kept = await addBouncer('kept');
    await operator('DELETE', '/bouncers/gone');
    await operator('POST', '/operator-tokens', { name: 'night', role: 'viewer', expires_in: '1h' });
    await operator('POST', '/enrolments', { hosts: 'web-*' });
    for (let at = 0; at < 2; at++) await operator('POST', '/rotations', { selector: { names: ['kept'] } });
    const counts = async () => [
      await count('revoked_digests'),
      await countInObject('ended_keys'),
      await count('operator_tokens'),
      await count('enrolments'),
      await count('rotations'),
      await count('rotation_members'),
    ];
    pass(399 * day);
    await addBouncer('later');
    await clean();
    expect(await counts()).toEqual([2, 2, 1, 1, 2, 2]);
    pass(2 * day);
    await clean();
    await clean();
    // The number of the newest rotation is what the next one counts from.
    expect(await counts()).toEqual([0, 0, 0, 0, 1, 1]);
    expect([await status(gone), await status(kept)]).toEqual([403, 200]);
    expect(
      (await operator('POST', '/bouncers', { name: 'again', key_sha512: await digestOf(gone) })).status,
    ).toBe(201);
  });

  test('is removed by the thousand, and with each round while there is more', async () => {
    await addBouncer('fw');
    const numbers = JSON.stringify(Array.from({ length: 2500 }, (_, index) => index));
    await env.DB.prepare(
      `INSERT INTO revoked_digests SELECT printf('%0128x', value), ${Date.now()} FROM json_each(?)`,
    )
      .bind(numbers)
      .run();
    pass(401 * day);
    await clean();
    expect(await count('revoked_digests')).toBe(1500);
    for (const left of [500, 0]) {
      await runDurableObjectAlarm(feed());
      expect(await count('revoked_digests')).toBe(left);
    }
  });

  test('an operator’s token keeps its name for as long as the audit log speaks of it', async () => {
    await operator('POST', '/operator-tokens', { name: 'night', role: 'viewer', expires_in: '365d' });
    pass(300 * day);
    await operator('DELETE', '/operator-tokens/night');
    pass(350 * day);
    await addBouncer('a');
    await clean();
    expect(await count('operator_tokens')).toBe(1);
    pass(51 * day);
    await addBouncer('b');
    await clean();
    await clean();
    expect(await count('operator_tokens')).toBe(0);
  });

  test('a host that was removed is forgotten, unless its instance could come back', async () => {
    for (const [name, instance] of [
      ['plain', null],
      ['cloud', 'aws:i-1'],
    ]) {
      await env.DB.prepare(
        `INSERT INTO hosts (name, public_key, fingerprint, created_ms, removed_ms, instance) VALUES (?, ?, '', 0, 1, ?)`,
      )
        .bind(name, name, instance)
        .run();
    }
    await addBouncer('fw');
    await clean();
    const { results } = await env.DB.prepare('SELECT name FROM hosts').all();
    expect(results).toEqual([{ name: 'cloud' }]);
  });
});

describe('the audit log', () => {
  test('loses rows older than AUDIT_RETENTION_DAYS, and the rest is verified from there', async () => {
    await agedLog();
    const { hash } = (await env.DB.prepare('SELECT hash FROM audit WHERE seq = 5').first<any>()) ?? {};
    await clean();
    expect((await operator('GET', '/audit')).body.audit.map(({ seq }: any) => seq)).toEqual([6]);
    expect(await verify()).toMatchObject({ ok: true, rows: 1, head: { seq: 6 }, removed: { seq: 5, hash } });
    await addBouncer('g');
    expect(await verify('?after=3')).toMatchObject({
      ok: true,
      rows: 2,
      head: { seq: 7 },
      removed: { seq: 5 },
    });
  });

  test('keeps its newest row, however old', async () => {
    await addBouncer('a');
    await addBouncer('b');
    await verify();
    pass(900 * day);
    await clean();
    expect(await verify()).toMatchObject({ ok: true, rows: 1, head: { seq: 2 }, removed: { seq: 1 } });
    expect((await operator('POST', '/bouncers', { name: 'c' })).status).toBe(201);
    expect(await verify()).toMatchObject({ ok: true, rows: 2, head: { seq: 3 } });
  });

  test('shows that more of its beginning was cut off, whatever D1 says of it', async () => {
    await agedLog();
    await clean();
    await addBouncer('g');
    await addBouncer('h');
    const { hash } = (await env.DB.prepare('SELECT hash FROM audit WHERE seq = 7').first<any>()) ?? {};
    expect(await verify()).toMatchObject({ ok: true });
    await env.DB.batch([
      env.DB.prepare('DELETE FROM audit WHERE seq <= 7'),
      env.DB.prepare('UPDATE audit_start SET seq = 7, hash = ?').bind(hash),
    ]);
    expect(await verify()).toEqual({ ok: false, seq: 6, problem: 'a row is missing' });
  });

  test('does not lose rows that do not fit the chain: they stay for an operator to look at', async () => {
    await agedLog();
    await env.DB.exec(`UPDATE audit SET actor = 'nobody' WHERE seq = 3`);
    const said = vi.spyOn(console, 'error').mockReturnValue();
    await clean();
    expect(await count('audit')).toBe(4);
    expect(await verify()).toMatchObject({ ok: false, seq: 3, problem: 'a row was changed' });
    expect(said.mock.calls.join()).toContain('from row 3 on');
  });

  test('a crash before D1 removed them: what is left is whole, and they go an hour later', async () => {
    await agedLog();
    await env.DB.exec('ALTER TABLE audit_start RENAME TO away');
    vi.spyOn(console, 'error').mockReturnValue();
    await clean();
    expect(await count('audit')).toBe(6);
    expect(await verify()).toMatchObject({ ok: true, rows: 1, removed: { seq: 5 } });
    await env.DB.exec('ALTER TABLE away RENAME TO audit_start');
    await evictDurableObject(feed());
    await clean();
    expect(await count('audit')).toBe(1);
    expect(await verify()).toMatchObject({ ok: true, rows: 1, removed: { seq: 5 } });
  });

  test('an object that lost its memory takes the beginning from D1, and seals nothing anew', async () => {
    await agedLog();
    await clean();
    await addBouncer('g');
    const whole = await verify();
    const loseMemory = async (): Promise<void> => {
      await inObject((sql) => {
        for (const table of ['audit_start', 'audit_anchor', 'unsealed_rows'])
          sql.exec(`DELETE FROM ${table}`);
      });
      await evictDurableObject(feed());
    };
    await loseMemory();
    expect(await verify()).toEqual(whole);
    await env.DB.exec(`UPDATE audit SET actor = 'nobody' WHERE seq = 6`);
    await loseMemory();
    expect(await verify()).toMatchObject({ ok: false, seq: 6 });
  });

  test('an acknowledged break is named for as long as the log reaches back to it', async () => {
    await addBouncer('a');
    await addBouncer('b');
    await verify();
    vi.spyOn(console, 'warn').mockReturnValue();
    await env.DB.exec('DELETE FROM audit WHERE seq = 2');
    await operator('GET', '/bouncers/a');
    await operator('POST', '/audit/acknowledge');
    expect((await verify()).lost).toHaveLength(1);
    pass(401 * day);
    await addBouncer('c');
    await verify();
    await clean();
    expect(await verify()).toMatchObject({ ok: true, rows: 1 });
    expect(await countInObject('lost_tails')).toBe(0);
  });

  test('is verified from a head that the caller kept, whose hash must still be the same', async () => {
    await addBouncer('a');
    await addBouncer('b');
    const { head } = await verify();
    await addBouncer('c');
    expect(await verify(`?after=${head.seq}&hash=${head.hash}`)).toMatchObject({
      ok: true,
      head: { seq: 3 },
    });
    const other = '0'.repeat(64);
    expect(await verify(`?after=${head.seq}&hash=${other}`)).toMatchObject({ ok: false, seq: head.seq });
    expect(await verify('?after=9')).toMatchObject({ ok: false, seq: 9, problem: 'a row is missing' });
    expect((await operator('GET', `/audit/verify?hash=${other}`)).body.errors).toMatchObject([
      { field: 'after' },
    ]);
  });
});

describe('a backup of D1 that is older than what is remembered', () => {
  const tables = [
    'bouncers',
    'key_versions',
    'operator_tokens',
    'revoked_digests',
    'enrolments',
    'audit',
    'audit_start',
  ];
  type Dump = [table: string, row: Record<string, unknown>][];
  const backUp = async (): Promise<Dump> => {
    const dump: Dump = [];
    for (const table of tables) {
      const { results } = await env.DB.prepare(`SELECT * FROM ${table}`).all();
      dump.push(...results.map((row): Dump[number] => [table, row]));
    }
    return dump;
  };
  const putBack = (dump: Dump): Promise<unknown> =>
    env.DB.batch([
      ...tables.map((table) => env.DB.prepare(`DELETE FROM ${table}`)),
      ...dump.map(([table, row]) =>
        env.DB.prepare(
          `INSERT INTO ${table} (${Object.keys(row).join()}) VALUES (${Object.keys(row)
            .map(() => '?')
            .join()})`,
        ).bind(...Object.values(row)),
      ),
    ]);

  test('opens nothing; a newer one does, and so does its like without keys', async () => {
    const stolen = await addBouncer('stolen');
    const ancient = await backUp();
    await operator('DELETE', '/bouncers/stolen');
    pass(200 * day);
    const kept = await addBouncer('kept');
    const newer = await backUp();
    pass(201 * day);
    await addBouncer('late');
    await clean();
    await clean();
    expect(await countInObject('ended_keys')).toBe(0);

    const said = vi.spyOn(console, 'error').mockReturnValue();
    const warned = vi.spyOn(console, 'warn').mockReturnValue();
    await putBack(ancient);
    pass(hour);
    expect([await status(stolen), await status(kept)]).toEqual([503, 503]);
    expect((await operator('POST', '/bouncers', { name: 'x' })).status).toBe(503);
    expect(said.mock.calls.join()).toContain('more than 400 days old');
    await clean();
    expect(await count('key_versions')).toBe(1);

    await putBack(newer);
    pass(hour);
    expect([await status(stolen), await status(kept)]).toEqual([403, 200]);
    expect(warned).toHaveBeenCalledTimes(1);
    // Its log begins where it began.
    await operator('POST', '/audit/acknowledge');
    expect(await verify()).toMatchObject({ ok: true, rows: 5 });
    await clean();
    expect(await verify()).toMatchObject({ ok: true, rows: 3, removed: { seq: 2 } });

    await putBack(ancient);
    await env.DB.exec('DELETE FROM key_versions; DELETE FROM operator_tokens; DELETE FROM enrolments');
    pass(hour);
    expect([await status(stolen), await status(kept)]).toEqual([403, 403]);
    expect((await operator('POST', '/bouncers/stolen/rotate')).status).toBe(200);
  });
});
