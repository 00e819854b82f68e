// The key under which the feed pulls, as a host sends it: never stored open, tried before the old one is given up, and
// readable after a change of the secret.
import { runInDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { seal, unseal } from '../src/broker/engine-key.ts';
import { createUpstreamKeys } from '../src/feed/upstream-key.ts';
import { readUpstreamKey } from '../src/feed/log.ts';
import { readSettings } from '../src/settings.ts';
import { feed } from './support/bouncer.ts';
import { operator } from './support/http.ts';
import { actions, kindsOf, knownHost, makeHost } from './support/hosts.ts';
import { startModelEngine, type ModelEngine } from './support/model-engine.ts';

const configured = 'feed-key-of-the-tests';
const [first, second] = ['engine-key-of-the-host-1', 'engine-key-of-the-host-2'];
const now = { current: 'bootstrap-secret-of-the-tests-0123', previous: null };
const next = { current: 'the-next-secret-of-the-tests-012345', previous: now.current };

let engine: ModelEngine;
/** Keys that the engine lets in, and those that it was asked with. */
let accepted: Set<string>;
let used: string[];

beforeEach(() => {
  engine = startModelEngine();
  accepted = new Set([configured]);
  used = [];
  const answer = vi.mocked(fetch).getMockImplementation() as typeof fetch;
  vi.mocked(fetch).mockImplementation(async (input, init) => {
    const key = new Headers(init?.headers).get('x-api-key') ?? '';
    used.push(key);
    return accepted.has(key) ? answer(input as RequestInfo, init) : new Response(null, { status: 403 });
  });
});
afterEach(() => {
  vi.restoreAllMocks();
});

const sync = async (): Promise<any> => (await operator('POST', '/feed/sync')).body;
const upstream = async (): Promise<any> => (await operator('GET', '/feed')).body.upstream;
const engineHost = () => knownHost('web-1', { engine: true });

describe('a host with an engine', () => {
  test('sends its key once; the feed pulls with it from when the engine takes it, without a gap', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + 3_600_000 });
    expect(await sync()).toMatchObject({ ok: true, added: 1 });
    const host = await engineHost();
    const { status, body } = await host.sendEngineKey(first);
    expect([status, body]).toEqual([200, { generation: 1, state: 'registered' }]);
    used.length = 0;
    expect((await sync()).ok).toBe(true);
    expect(new Set(used)).toEqual(new Set([first, configured]));
    expect(await upstream()).toMatchObject({ state: 'ok' });
    accepted.add(first);
    engine.addUnseen({ value: '192.0.2.2', untilMs: Date.now() + 3_600_000 });
    used.length = 0;
    expect(await sync()).toMatchObject({ ok: true, added: 1 });
    expect(new Set(used)).toEqual(new Set([first]));
    accepted.delete(configured);
    expect((await sync()).ok).toBe(true);
  });

  test('replaces it the same way, and may repeat itself', async () => {
    const host = await engineHost();
    accepted.add(first);
    await host.sendEngineKey(first);
    await sync();
    expect((await host.sendEngineKey(first)).body).toEqual({ generation: 1, state: 'unchanged' });
    expect((await host.sendEngineKey(first, { generation: 0 })).body).toEqual({
      generation: 1,
      state: 'unchanged',
    });
    await host.sendEngineKey(second);
    used.length = 0;
    await sync();
    expect(new Set(used)).toEqual(new Set([second, first]));
    accepted.add(second);
    await sync();
    accepted.delete(first);
    expect((await sync()).ok).toBe(true);
    const sent = (await actions()).filter((action) => action.startsWith('host.'));
    expect(sent).toEqual(['host.create', 'host.engine-key', 'host.engine-key']);
  });

  test('that comes with an old count is a copy', async () => {
    const host = await engineHost();
    await host.sendEngineKey(first);
    await host.sendEngineKey(second);
    expect(kindsOf([await host.sendEngineKey(first, { generation: 1 })])).toEqual([
      '409 generation-mismatch',
    ]);
  });

  test('and one without `engine` may not', async () => {
    const host = await knownHost('web-1');
    expect(kindsOf([await host.sendEngineKey(first)])).toEqual(['403 forbidden']);
    expect(kindsOf([await (await makeHost('web-9')).sendEngineKey(first)])).toEqual(['403 forbidden']);
    expect((await host.sendEngineKey('short')).body.errors[0].field).toBe('engine_key');
  });

  test('that is removed takes its key along', async () => {
    const host = await engineHost();
    accepted.add(first);
    await host.sendEngineKey(first);
    await sync();
    await operator('DELETE', '/hosts/web-1');
    used.length = 0;
    await sync();
    expect(new Set(used)).toEqual(new Set([configured]));
  });

  test('leaves its key open in no table, and in no answer', async () => {
    const host = await engineHost();
    await host.sendEngineKey(first);
    accepted.add(first);
    await sync();
    const kept = await env.DB.prepare('SELECT * FROM engine_keys').first();
    const inFeed = await runInDurableObject(feed(), (_, { storage }) =>
      readUpstreamKey(storage.sql, 'current'),
    );
    for (const text of [kept, inFeed, await operator('GET', '/audit'), await operator('GET', '/hosts')]) {
      expect(JSON.stringify(text)).not.toContain(first);
      expect(text).not.toBeNull();
    }
    expect(await operator('GET', '/hosts/web-1')).toMatchObject({ body: { host: { engine: true } } });
  });
});

describe('a sealed key', () => {
  test('is opened by the secret of now, by the one before for the last time, and by no other', async () => {
    const sealed = await seal(now, first);
    expect(await seal(now, first)).not.toBe(sealed);
    expect(await unseal(now, sealed)).toEqual({ key: first, resealed: null });
    const moved = await unseal(next, sealed);
    expect(moved?.key).toBe(first);
    expect(await unseal({ current: next.current, previous: null }, moved?.resealed ?? '')).toEqual({
      key: first,
      resealed: null,
    });
    expect(await unseal({ current: next.current, previous: null }, sealed)).toBeNull();
    for (let at = 0; at < sealed.length; at += 3) {
      const changed = sealed.slice(0, at) + (sealed[at] === 'A' ? 'B' : 'A') + sealed.slice(at + 1);
      expect(await unseal(now, changed)).toBeNull();
    }
  });

  test('is found in the database by a feed that has none, sealed anew, and waited for until it is there', async () => {
    const settings = readSettings({
      UPSTREAM_URL: 'http://engine.example',
      BOOTSTRAP_SECRET: next.current,
      BOOTSTRAP_SECRET_PREVIOUS: now.current,
    });
    const choose = () =>
      runInDurableObject(feed(), async (_, { storage }) => {
        const chosen = await createUpstreamKeys(storage, settings, env.DB).choose(async () => true);
        return { chosen, kept: readUpstreamKey(storage.sql, 'current') };
      });
    expect(await choose()).toEqual({ chosen: null, kept: null });
    await env.DB.prepare(`INSERT INTO engine_keys VALUES (0, 'web-1', ?, 'digest', 0)`)
      .bind(await seal(now, first))
      .run();
    const { chosen, kept } = await choose();
    expect(chosen).toMatchObject({ key: { text: first }, isNew: true });
    expect(await unseal({ current: next.current, previous: null }, kept ?? '')).toMatchObject({ key: first });
    expect((await choose()).chosen).toMatchObject({ key: { text: first }, isNew: false });
  });
});

test('UPSTREAM_API_KEY may be left out where a host can send one, and only there', () => {
  const UPSTREAM_URL = 'http://engine.example';
  expect(() => readSettings({ UPSTREAM_URL })).toThrow('UPSTREAM_API_KEY');
  expect(readSettings({ UPSTREAM_URL, BOOTSTRAP_SECRET: now.current }).upstream?.apiKey).toBeNull();
});
