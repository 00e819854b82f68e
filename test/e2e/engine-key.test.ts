// The feed's key from the engine's host, with a real engine, its cscli and a real ssh-keygen: no person ever holds it, a
// rotation costs no pull and no ban, and it is readable nowhere.
import { randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { openDatabase } from '../lab/database.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { startPoller } from '../lab/poller.ts';
import { createSshHost, type SshHost } from '../lab/ssh-host.ts';
import { until } from '../lab/wait.ts';

const hostName = 'engine-1';
const used = { state: 'ok', key: 'host', keyPending: false, lastError: null };

describeWith('the key of an engine, from its host', ['lab', 'hostTools'], () => {
  let engine: Engine;
  let lapidary: Lapidary;
  let host: SshHost;
  let generation = 0;
  /** Every key and every answer that there was. */
  const keys: string[] = [];
  const answers: string[] = [];

  beforeAll(async () => {
    engine = await startEngine();
    await engine.ban('192.0.2.1');
    host = createSshHost(hostName);
    lapidary = await startLapidary({ settings: { UPSTREAM_URL: engine.url } });
  });
  afterAll(async () => {
    await lapidary?.close();
    await engine?.close();
    host?.close();
  });

  function makeKey(): string {
    const key = randomBytes(24).toString('hex');
    keys.push(key);
    return key;
  }

  async function register(name: string, key: string): Promise<void> {
    await engine.cscli('bouncers', 'add', name, '-k', key);
  }

  /** What the host does with a key of its own. */
  async function send(key: string): Promise<void> {
    const request = await host.request(lapidary.url, 'engine-key', { engine_key: key, generation });
    const init = { method: 'POST', body: JSON.stringify(request) };
    const response = await fetch(`${lapidary.url}/bootstrap/v1/engine-key`, init);
    const text = await response.text();
    answers.push(text);
    const answer = JSON.parse(text);
    expect(answer).toEqual({ generation: ++generation, state: 'registered' });
  }

  async function upstream(): Promise<any> {
    const feed = await lapidary.feed();
    answers.push(JSON.stringify(feed));
    const { state, key, key_pending: keyPending, last_error: lastError } = feed.engines[0];
    return { state, key, keyPending, lastError };
  }

  const untilUsed = () =>
    until('the feed uses the key that was sent last', async (saw) => {
      const now = await upstream();
      saw(now);
      return now.state === 'ok' && now.key === 'host' && !now.keyPending;
    });

  test('is waited for; bouncers are told what is known meanwhile, and of the rest that nothing is', async () => {
    await lapidary.ban('203.0.113.1');
    const headers = { 'x-api-key': await lapidary.addBouncer('early') };
    const lookUp = (ip: string) => fetch(`${lapidary.url}/v1/decisions?ip=${ip}`, { headers });
    expect(await (await lookUp('203.0.113.1')).json()).toMatchObject([{ value: '203.0.113.1' }]);
    expect((await lookUp('192.0.2.1')).status).toBe(503);
    expect(await lapidary.health()).toMatchObject({ status: 'up', upstream: 'waiting-for-key' });
    expect(await upstream()).toMatchObject({ state: 'waiting-for-key', key: null, keyPending: false });
    expect(await lapidary.sync()).toMatchObject({ ok: false, error: expect.stringContaining('no key') });
  });

  test('comes in a signed request, and the feed syncs', async () => {
    const known = await lapidary.operator('PUT', `/hosts/${hostName}`, {
      public_key: host.publicKey,
      bouncers: [],
      engine: true,
    });
    expect(known.status, JSON.stringify(known.body)).toBe(201);
    const key = makeKey();
    await register('lapidary-1', key);
    await send(key);
    await untilUsed();
    const poller = startPoller({ url: lapidary.url, key: await lapidary.addBouncer('first') });
    await poller.untilHas({ banned: ['192.0.2.1', '203.0.113.1'] });
    await poller.stop();
    expect(await lapidary.health()).not.toHaveProperty('upstream');
  });

  /** Everything that is seen of the feed while something is done. */
  async function watched(act: () => Promise<void>): Promise<unknown[]> {
    const seen: any[] = [];
    const ended = new AbortController();
    const watching = (async () => {
      while (!ended.signal.aborted) {
        seen.push(await upstream(), await lapidary.sync());
        await delay(20);
      }
    })();
    await act();
    ended.abort();
    await watching;
    expect(seen.length).toBeGreaterThan(10);
    return seen.filter(({ ok = true, error = null, lastError = null }) => !ok || error || lastError);
  }

  test('is replaced without a failed pull or a lost ban, sent before the engine knows it or after', async () => {
    const poller = startPoller({ url: lapidary.url, key: await lapidary.addBouncer('second') });
    await poller.untilHas({ banned: ['192.0.2.1'] });
    const failed = await watched(async () => {
      for (const [number, early] of [true, false, true, false].entries()) {
        const key = makeKey();
        if (early) await send(key);
        else await register(`lapidary-${number + 2}`, key);
        await engine.ban(`198.51.100.${number}`);
        if (early) {
          await until('it is tried', async () => (await upstream()).keyPending);
          await register(`lapidary-${number + 2}`, key);
        } else await send(key);
        await engine.ban(`198.51.100.${number + 100}`);
        await untilUsed();
        await engine.deleteBouncer(`lapidary-${number + 1}`);
        await engine.ban(`198.51.100.${number + 200}`);
        await poller.untilHas({ banned: [0, 100, 200].map((more) => `198.51.100.${number + more}`) });
      }
    });
    expect(failed).toEqual([]);
    await poller.stop();
    expect(poller.failures()).toEqual([]);
    expect(poller.ended()).toEqual(new Set());
    const database = openDatabase(engine);
    const bouncers = database.prepare('SELECT name, type, last_pull FROM bouncers').all();
    database.close();
    expect(bouncers).toMatchObject([{ name: 'lapidary-5', type: 'lapidary', last_pull: expect.anything() }]);
  });

  test('outlives a crash', async () => {
    await lapidary.kill();
    await lapidary.start();
    await engine.ban('192.0.2.9');
    expect(await lapidary.sync()).toMatchObject({ ok: true });
    expect(await upstream()).toEqual(used);
  });

  test('is in no answer, no line of the log and no file', async () => {
    await lapidary.stop();
    const names = await readdir(lapidary.stateDir, { recursive: true, withFileTypes: true });
    const paths = names.filter((each) => each.isFile()).map((each) => join(each.parentPath, each.name));
    const files = await Promise.all(paths.map((path) => readFile(path)));
    // The names around the key are found, so it would be.
    for (const text of [hostName, 'engine_keys'])
      expect(files.some((file) => file.includes(text))).toBe(true);
    expect(keys).toHaveLength(5);
    for (const key of keys) {
      expect(paths.filter((_, index) => files[index]?.includes(key))).toEqual([]);
      expect(answers.join('\n') + lapidary.log()).not.toContain(key);
    }
    await lapidary.start();
    for (const path of ['/audit?limit=1000', '/hosts', '/bouncers']) {
      const { status, body } = await lapidary.operator('GET', path);
      expect(status).toBe(200);
      for (const key of keys) expect(JSON.stringify(body)).not.toContain(key);
    }
  });
});
