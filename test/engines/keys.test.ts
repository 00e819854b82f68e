// The key that the feed pulls with: sent by the engine's host, tried before the old one is given up, kept sealed.
import { evictDurableObject, runInDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import type { EngineSettings } from '../../src/config/engines.ts';
import { createEngineKeys } from '../../src/engines/keys.ts';
import { seal } from '../../src/crypto/seal.ts';
import { readSettings } from '../../src/config/settings.ts';
import { bouncer, feed } from '../support/bouncer.ts';
import { addBouncer, call, operator } from '../support/http.ts';
import { actions, kindsOf, knownHost, makeHost } from '../support/hosts.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { makeSshKey } from '../support/ssh.ts';

const hour = 3_600_000;
const setting = 'feed-key-of-the-tests';
const secrets = { current: 'bootstrap-secret-of-the-tests-0123', previous: null };
const [first, second, third] = ['first-key-of-the-host', 'second-key-of-the-host', 'third-key-of-the-host'];

let engine: ModelEngine;
beforeEach(() => {
  engine = startModelEngine();
  engine.keys = [setting];
});

async function send(key: string, host = 'engine-1') {
  return feed().offerEngineKey(host, await seal(secrets, host, key));
}

const sync = () => feed().sync({ full: false, force: false });

async function used() {
  const {
    state,
    key,
    key_pending: keyPending,
    last_error: lastError,
  } = (await operator('GET', '/feed')).body.engines[0];
  return { state, key, keyPending, lastError };
}

function keyIn(init: RequestInit | undefined): string | null {
  return new Headers(init?.headers).get('x-api-key');
}

const byHost = { state: 'ok', key: 'host', keyPending: false, lastError: null };
const bySetting = { state: 'ok', key: 'setting', keyPending: false, lastError: null };

/** The feed uses a key that its host sent, the engine knows no other. */
async function usesFirst() {
  engine.keys = [first];
  await send(first);
  expect((await sync()).ok).toBe(true);
}

describe('a key that a host sends', () => {
  test('waits until the engine knows it, and takes over then', async () => {
    expect(await send(first)).toEqual({ ok: true, value: 'registered' });
    expect((await sync()).ok).toBe(true);
    expect(await used()).toEqual({ ...bySetting, keyPending: true });
    // It is asked about, nothing is pulled with it.
    const asked = vi.mocked(fetch).mock.calls.filter(([, init]) => keyIn(init) === first);
    expect(asked.map(([, init]) => init?.method)).toEqual(['HEAD']);
    engine.keys = [setting, first];
    expect((await sync()).ok).toBe(true);
    expect(await used()).toEqual(byHost);
    engine.keys = [first];
    expect((await sync()).ok).toBe(true);
  });

  test('is the same when it is sent again, before and after it is used', async () => {
    await send(first);
    expect(await send(first)).toEqual({ ok: true, value: 'unchanged' });
    engine.keys = [first];
    await sync();
    expect(await send(first)).toEqual({ ok: true, value: 'unchanged' });
    expect(await used()).toEqual(byHost);
  });

  test('outlives the object, and is in its storage under seal only', async () => {
    await usesFirst();
    await send(second);
    const kept = await runInDurableObject(feed(), (_, { storage }) =>
      storage.sql.exec('SELECT * FROM engine_keys ORDER BY state').toArray(),
    );
    expect(kept.map(({ state }) => state)).toEqual(['pending', 'used']);
    expect(JSON.stringify(kept)).not.toMatch(/key-of-the-host/);
    await evictDurableObject(feed());
    expect((await sync()).ok).toBe(true);
    expect(await used()).toEqual({ ...byHost, keyPending: true });
  });

  test('that can’t be opened is refused, and nothing is kept', async () => {
    const other = { current: 'a-secret-that-is-not-ours-01234567', previous: null };
    vi.spyOn(console, 'error').mockReturnValue();
    const sealed = [await seal(other, 'engine-1', first), await seal(secrets, 'engine-2', first), 'v1'];
    for (const each of sealed) {
      expect(await feed().offerEngineKey('engine-1', each)).toMatchObject({ ok: false });
    }
    expect(await used()).toMatchObject({ key: 'setting', keyPending: false });
  });
});

describe('a host with an engine', () => {
  const engineHost = () => knownHost('engine-1', { engine: true });

  test('sends its key in a signed request, may repeat it, and replaces it', async () => {
    const host = await engineHost();
    engine.keys = [first];
    expect(await host.sendEngineKey(first)).toMatchObject({
      status: 200,
      body: { generation: 1, state: 'registered' },
    });
    expect((await sync()).ok).toBe(true);
    expect(await used()).toEqual(byHost);
    const unchanged = { generation: 1, state: 'unchanged' };
    expect((await host.sendEngineKey(first)).body).toEqual(unchanged);
    expect((await host.sendEngineKey(first, { generation: 0 })).body).toEqual(unchanged);
    expect((await host.sendEngineKey(second)).body).toEqual({ generation: 2, state: 'registered' });
    engine.keys = [second];
    expect((await sync()).ok).toBe(true);
    expect(await actions()).toEqual(['host.create', 'host.engine-key', 'host.engine-key']);
  });

  test('is refused if it counts wrong, replays, has no engine, or sends a key that is not for the feed alone', async () => {
    const host = await engineHost();
    const nonce = (await (await call('/bootstrap/v1/challenge')).json<{ nonce: string }>()).nonce;
    expect((await host.sendEngineKey(first, { nonce })).status).toBe(200);
    const bad = [
      await host.sendEngineKey(first, { nonce }),
      await host.sendEngineKey(second, { generation: 0, nonce }),
      await (await knownHost('web-1')).sendEngineKey(second),
      await (await makeHost('web-9')).sendEngineKey(second),
      await host.sendEngineKey(await addBouncer('fw')),
      await host.sendEngineKey('short'),
      await host.sendEngineKey(second, { generation: 7 }),
    ];
    expect(kindsOf(bad)).toEqual([
      '400 bad-input',
      '403 forbidden',
      '403 forbidden',
      '409 conflict',
      '409 generation-mismatch',
      '409 replayed',
      '409 replayed',
    ]);
    engine.keys = [first];
    expect((await sync()).ok).toBe(true);
  });

  test('that lost an answer, or whose feed lost its storage, mends it by sending the same again', async () => {
    const host = await engineHost();
    engine.keys = [first];
    await host.sendEngineKey(first);
    await runInDurableObject(feed(), (_, { storage }) => void storage.sql.exec('DELETE FROM engine_keys'));
    expect((await host.sendEngineKey(first)).body).toEqual({ generation: 1, state: 'unchanged' });
    expect((await sync()).ok).toBe(true);
    expect(await used()).toEqual(byHost);
  });

  test('that is removed, or has no engine any more, takes its key along', async () => {
    const host = await engineHost();
    engine.keys = [setting, first];
    await host.sendEngineKey(first);
    await sync();
    await knownHost('web-1');
    await operator('DELETE', '/hosts/web-1');
    await sync();
    expect(await used()).toEqual(byHost);
    const { publicKey } = host.key;
    const change = { public_key: publicKey, bouncers: ['engine-1'], engine: false };
    expect((await operator('PUT', '/hosts/engine-1', change)).status).toBe(200);
    await sync();
    expect(await used()).toEqual(bySetting);
    const other = await knownHost('engine-2', { engine: true });
    await other.sendEngineKey(second);
    engine.keys = [setting, second];
    await sync();
    expect(await used()).toEqual(byHost);
    await operator('DELETE', '/hosts/engine-2');
    await sync();
    expect(await used()).toEqual(bySetting);
  });

  test('leaves its key in no table of D1 and in no answer', async () => {
    const host = await engineHost();
    engine.keys = [first];
    const answer = await host.sendEngineKey(first);
    await sync();
    const kept = await env.DB.prepare('SELECT * FROM engine_keys').first();
    expect(kept).toMatchObject({ host: 'engine-1' });
    for (const path of ['/audit', '/hosts', '/hosts/engine-1', '/feed']) {
      expect(JSON.stringify([answer.body, kept, await operator('GET', path)])).not.toContain(first);
    }
  });
});

describe('a rotation of the engine’s key', () => {
  test('has no gap: what came between the last pull with the old key and the first with the new', async () => {
    await usesFirst();
    const client = bouncer();
    // A list that misses one of a few is accepted at once.
    for (const value of ['198.51.100.1', '198.51.100.2', '198.51.100.3']) {
      engine.add({ value, untilMs: Date.now() + hour });
    }
    const gone = engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    await sync();
    await client.pull(true);
    await send(second);
    engine.keys = [first, second];
    engine.add({ value: '192.0.2.2', untilMs: Date.now() + hour, createdMs: Date.now() - 1 });
    engine.drop(gone.id);
    expect((await sync()).ok).toBe(true);
    await client.pull(false);
    expect(client.banned()).toContain('192.0.2.2');
    expect(client.banned()).not.toContain('192.0.2.1');
    engine.keys = [second];
    expect((await sync()).ok).toBe(true);
    expect(await used()).toEqual(byHost);
  });

  test('keeps the old key as long as the engine refuses the new one, and takes the newest of several', async () => {
    await usesFirst();
    await send(second);
    await send(third);
    for (let round = 0; round < 3; round++) expect((await sync()).ok).toBe(true);
    expect(await used()).toEqual({ ...byHost, keyPending: true });
    engine.keys = [first, second];
    await sync();
    expect(await used()).toEqual({ ...byHost, keyPending: true });
    engine.keys = [third];
    expect((await sync()).ok).toBe(true);
    expect(await used()).toEqual(byHost);
  });

  test('is taken back when the host sends the old key again', async () => {
    await usesFirst();
    await send(second);
    expect(await send(first)).toEqual({ ok: true, value: 'unchanged' });
    engine.keys = [first, second];
    await sync();
    engine.keys = [first];
    expect((await sync()).ok).toBe(true);
    expect(await used()).toEqual(byHost);
  });

  test('that the engine’s host did in the wrong order costs no round: the old key gone, the new one there', async () => {
    await usesFirst();
    engine.keys = [second];
    expect((await sync()).ok).toBe(false);
    expect(await used()).toMatchObject({ state: 'refused', key: 'host' });
    expect((await used()).lastError).toContain(
      'it does not know the key of host engine-1, or its database is down',
    );
    await send(second);
    expect((await sync()).ok).toBe(true);
    expect(await used()).toEqual(byHost);
  });
});

describe('the setting’s key', () => {
  test('is used while the engine refuses the host’s, in the same round, and no longer than that', async () => {
    await usesFirst();
    engine.keys = [setting];
    engine.add({ value: '192.0.2.3', untilMs: Date.now() + hour });
    expect(await sync()).toMatchObject({ ok: true, error: null, added: 1 });
    expect(await used()).toEqual({ ...bySetting, keyPending: true });
    engine.keys = [setting, first];
    expect((await sync()).ok).toBe(true);
    expect(await used()).toEqual(byHost);
  });

  const hasNoEngine = async (name: string): Promise<void> => {
    const { publicKey } = await makeSshKey();
    const body = { public_key: publicKey, bouncers: [name] };
    expect((await operator('PUT', `/hosts/${name}`, body)).status).toBe(201);
  };

  test('is used again when the host has no engine any more', async () => {
    await usesFirst();
    engine.keys = [setting, first];
    await hasNoEngine('engine-2');
    await sync();
    expect(await used()).toEqual(byHost);
    await hasNoEngine('engine-1');
    await sync();
    expect(await used()).toEqual(bySetting);
    engine.keys = [setting];
    expect((await sync()).ok).toBe(true);
  });
});

describe('without the setting', () => {
  const now = { UPSTREAM_URL: 'http://engine.example', BOOTSTRAP_SECRET: secrets.current };
  const next = { ...now, BOOTSTRAP_SECRET: 'the-secret-that-comes-after-it-0123' };
  const changing = { ...next, BOOTSTRAP_SECRET_PREVIOUS: secrets.current };

  /** Its keys as an object sees them that wakes with these settings. */
  function within<T>(settings: object, ask: (keys: ReturnType<typeof createEngineKeys>) => T): Promise<T> {
    const read = readSettings({ ...settings });
    return runInDurableObject(feed(), (_, { storage }) =>
      ask(createEngineKeys(storage, read, read.engines[0] as EngineSettings, 'default')),
    );
  }
  const never = async () => false;

  test('there is no key until a host sends one, and that one is used from the first', async () => {
    expect(await within(now, (keys) => keys.state())).toEqual({ source: null, pending: false });
    expect(await within(now, (keys) => keys.choose(never, false))).toBeNull();
    expect(await within(now, (keys) => keys.problem())).toContain('its host has sent none');
    await send(first);
    expect((await within(now, (keys) => keys.choose(never, false)))?.key).toBe(first);
  });

  test('a key under the secret before is used, and kept under the new one', async () => {
    await usesFirst();
    expect((await within(changing, (keys) => keys.choose(never, false)))?.key).toBe(first);
    expect((await within(next, (keys) => keys.choose(never, false)))?.key).toBe(first);
    vi.spyOn(console, 'error').mockReturnValue();
    expect(await within(now, (keys) => keys.choose(never, false))).toBeNull();
  });

  test('a key under a secret that is gone is said to be that', async () => {
    await usesFirst();
    const logged = vi.spyOn(console, 'error').mockReturnValue();
    expect(await within(next, (keys) => keys.choose(never, false))).toBeNull();
    expect(await within(next, (keys) => keys.problem())).toContain('BOOTSTRAP_SECRET_PREVIOUS');
    expect(logged.mock.calls.join()).toContain('engine-1');
    expect(logged.mock.calls.join()).not.toContain(first);
    const again = await seal({ current: next.BOOTSTRAP_SECRET, previous: null }, 'engine-1', first);
    const offered = within(next, async (keys) => {
      await keys.offer('engine-1', again);
      return keys.choose(never, false);
    });
    expect((await offered)?.key).toBe(first);
  });
});

test('no key of the feed’s is adopted or imported for a bouncer', async () => {
  await usesFirst();
  await send(second);
  const digestOf = async (key: string) =>
    new Uint8Array(await crypto.subtle.digest('SHA-512', new TextEncoder().encode(key))).toHex();
  const held = await feed().keyDigests();
  for (const key of [setting, first, second]) expect(held).toContain(await digestOf(key));
  expect(held).not.toContain(await digestOf(third));
  for (const key of [setting, first, second]) {
    const bouncers = [{ name: 'feeds', api_key: await digestOf(key) }];
    const { status, body } = await operator('POST', '/bouncers/import', { bouncers });
    if (status === 200) expect(body.skipped).toMatchObject([{ name: 'feeds' }]);
    else expect([status, body.errors[0].field]).toEqual([409, 'bouncers']);
  }
  expect((await operator('GET', '/bouncers')).body.bouncers).toEqual([]);
});

test('/health says nothing of a key that is merely on its way', async () => {
  await send(first);
  await sync();
  expect(await (await call('/health')).json()).toEqual({
    status: 'up',
    feed: 'fresh',
    age_seconds: 0,
    full_age_seconds: 0,
  });
});
