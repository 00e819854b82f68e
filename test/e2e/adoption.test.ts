// Moving away from a real engine's LAPI without touching a bouncer: its rows imported with the documented line, its
// keys adopted at their first use.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { versionOf } from '../conformance/case.ts';
import { lockDatabase, openDatabase } from '../lab/database.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';

/** The statement of the line for SQLite in docs/migration.md. */
async function sqliteExport(): Promise<string> {
  const document = await readFile(new URL('../../docs/migration.md', import.meta.url), 'utf8');
  const statement = /^sqlite3 -readonly \S+ "(SELECT [^"]+)" > bouncers\.json$/m.exec(document)?.[1];
  if (statement === undefined) throw new Error('docs/migration.md has no line for SQLite any more');
  return statement;
}

const startOf = (key: string): string => createHash('sha512').update(key).digest('hex').slice(0, 8);

async function get(url: string, key: string, path = '/v1/decisions/stream?startup=true'): Promise<Response> {
  return fetch(url + path, {
    headers: { 'x-api-key': key, 'user-agent': 'crowdsec-firewall-bouncer/v0.0.25' },
  });
}

describeWith('moving from LAPI', ['lab'], () => {
  let engine: Engine;
  let upstream: { url: string; key: string };

  beforeAll(async () => {
    engine = await startEngine();
    upstream = { url: engine.url, key: await engine.addBouncer('lapidary') };
    await engine.ban('192.0.2.1');
  });
  afterAll(() => engine?.close());

  const opened: Lapidary[] = [];
  async function lapidary(settings: Record<string, string>): Promise<Lapidary> {
    const one = await startLapidary({ upstream, settings });
    opened.push(one);
    return one;
  }
  afterAll(() => Promise.all(opened.map((one) => one.close())));

  test('adoption is off: a key of the engine is refused', async () => {
    const key = await engine.addBouncer('off');
    expect((await get((await lapidary({})).url, key)).status).toBe(403);
  });

  test('on, a key of the engine works at its first use, and its place at the engine is not moved', async () => {
    const key = await engine.addBouncer('fw');
    expect((await get(engine.url, key)).status).toBe(200);
    const pulledAt = (): unknown => {
      const database = openDatabase(engine);
      try {
        return database.prepare(`SELECT last_pull, type, version FROM bouncers WHERE name = 'fw'`).get();
      } finally {
        database.close();
      }
    };
    const before = pulledAt();
    const edge = await lapidary({ ADOPT_ENGINE_KEYS: 'true' });
    const answer = await get(edge.url, key);
    expect(answer.status).toBe(200);
    expect(((await answer.json()) as any).new.map(({ value }: any) => value)).toEqual(['192.0.2.1']);
    expect(pulledAt()).toEqual(before);
    const { status, body } = await edge.operator('GET', `/bouncers/adopted-${startOf(key)}`);
    expect([status, body.key_versions[0].digest_prefix]).toEqual([200, startOf(key)]);

    // From now on it is a key of Lapidary: neither the engine's word nor its absence changes that.
    await engine.deleteBouncer('fw');
    expect((await get(edge.url, key)).status).toBe(200);
    await edge.operator('DELETE', `/bouncers/adopted-${startOf(key)}`);
    expect((await get(edge.url, key)).status).toBe(403);
  });

  test('a guess is refused, and the feed’s own key too', async () => {
    const edge = await lapidary({ ADOPT_ENGINE_KEYS: 'true' });
    for (const key of ['f'.repeat(32), upstream.key]) expect((await get(edge.url, key)).status).toBe(403);
    expect((await edge.operator('GET', '/bouncers')).body.bouncers).toEqual([]);
  });

  test('an engine that can not write, or is away, adopts nobody', async () => {
    const [locked, away] = [await engine.addBouncer('locked'), await engine.addBouncer('away')];
    const edge = await lapidary({ ADOPT_ENGINE_KEYS: 'true', UPSTREAM_TIMEOUT_SECONDS: '2' });
    // A HEAD writes nothing from 1.6.4 on, and is answered all the same.
    const writes = !versionOf(engine.version).since('1.6.4');
    const lock = await lockDatabase(engine);
    try {
      expect((await get(edge.url, locked)).status).toBe(writes ? 403 : 200);
    } finally {
      await lock.release();
    }
    await engine.stop();
    try {
      expect((await get(edge.url, away)).status).toBe(403);
    } finally {
      await engine.start();
    }
    expect((await edge.operator('GET', '/bouncers')).body.bouncers).toHaveLength(writes ? 0 : 1);
  });

  test('the documented export is what the import takes, and every key goes on working', async () => {
    const names = ['web-1', 'web-2', 'nginx bouncer', 'Ünï-✓', 'x'.repeat(80)];
    const keys = [];
    for (const name of names) keys.push(await engine.addBouncer(name));
    for (const key of keys) await get(engine.url, key);
    const database = openDatabase(engine);
    const [rows] = Object.values(database.prepare(await sqliteExport()).get() ?? {}) as [string];
    database.close();
    const edge = await lapidary({});
    const { status, body } = await edge.operator('POST', '/bouncers/import', JSON.parse(rows));
    // The engine's own row of Lapidary is no bouncer's.
    expect([status, body.skipped]).toEqual([200, [{ name: 'lapidary', why: expect.any(String) }]]);
    expect(body.renamed).toHaveLength(3);
    for (const key of keys) expect((await get(edge.url, key)).status).toBe(200);
    const { bouncers } = (await edge.operator('GET', '/bouncers')).body;
    expect(bouncers.map(({ lapi_name }: any) => lapi_name)).toEqual(expect.arrayContaining(names));
    const { body: web } = await edge.operator('GET', '/bouncers/web-1');
    expect(web).toMatchObject({
      type: 'crowdsec-firewall-bouncer',
      version: 'v0.0.25',
      address: '127.0.0.1',
    });
    const again = await edge.operator('POST', '/bouncers/import', JSON.parse(rows));
    expect(again.body.imported).toBe(0);
  });
});
