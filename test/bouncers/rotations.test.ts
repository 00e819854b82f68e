// Rotations of many bouncers: who is chosen, when each is due, what each key does meanwhile, how far it has come.
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { dueTimes } from '../../src/bouncers/rotations.ts';
import { matchesGlob } from '../../src/formats/glob.ts';
import { knownHost, makeKey } from '../support/hosts.ts';
import { startModelEngine } from '../support/model-engine.ts';
import { addBouncer, asBouncer, call, operator, operatorToken } from '../support/http.ts';
import { serveWith } from '../support/edge.ts';

const minute = 60_000;
const hour = 60 * minute;
const old: Record<string, string> = {};

beforeEach(async () => {
  startModelEngine();
  vi.useFakeTimers({ toFake: ['Date'] });
  for (const name of ['web-1', 'web-2', 'web-3', 'db-1']) old[name] = await addBouncer(name);
});

const pass = (ms: number): void => void vi.setSystemTime(Date.now() + ms);
const use = async (key: string | undefined): Promise<number> =>
  (await asBouncer(key ?? '', '/v1/decisions/stream')).status;
const rotate = (body: object) => operator('POST', '/rotations', body);
const web = { names: ['web-*'] };
const digestOf = async (key: string): Promise<string> => {
  return new Uint8Array(await crypto.subtle.digest('SHA-512', new TextEncoder().encode(key))).toHex();
};
const progress = async (id: number): Promise<[string, string][]> => {
  const { body } = await operator('GET', `/rotations/${id}`);
  return body.members.map(({ name, state }: any) => [name, state]);
};

test.each([
  ['web-*', 'web-1', true],
  ['web-*', 'web-', true],
  ['web-*', 'db-web-1', false],
  ['*', 'anything', true],
  ['*-1', 'web-1', true],
  ['w*b*1', 'web-1', true],
  ['w*b*1', 'wb1', true],
  ['a*a', 'a', false],
  ['a*b*b', 'ab', false],
  ['web-1', 'web-1', true],
  ['web-1', 'web-10', false],
  ['web.1', 'web-1', false],
])('%s fits %s: %s', (pattern, name, expected) => expect(matchesGlob(pattern, name)).toBe(expected));

test('moments are spread evenly, the first at once', () => {
  expect(dueTimes(4, 4000, 100)).toEqual([100, 1100, 2100, 3100]);
  expect(dueTimes(3, 0, 100)).toEqual([100, 100, 100]);
});

async function importMany(count: number): Promise<void> {
  const bouncers = Array.from({ length: count }, (_, index) => ({
    name: `many-${index}`,
    api_key: index.toString(16).padStart(128, '0'),
  }));
  await operator('POST', '/bouncers/import', { bouncers });
}

describe('a rotation of many', () => {
  test('gives each that fits a new key, once, and follows them one by one', async () => {
    const { status, body } = await rotate({ selector: web, grace: '10m' });
    expect([status, Object.keys(body.keys).sort()]).toEqual([201, ['web-1', 'web-2', 'web-3']]);
    const { id } = body.rotation;
    expect(await use(body.keys['web-1'])).toBe(200);
    expect(await progress(id)).toEqual([
      ['web-1', 'grace'],
      ['web-2', 'waiting'],
      ['web-3', 'waiting'],
    ]);
    pass(10 * minute);
    expect([await use(old['web-1']), await use(old['web-2']), await use(old['db-1'])]).toEqual([
      403, 200, 200,
    ]);
    const shown = (await operator('GET', `/rotations/${id}`)).body;
    expect(shown.counts).toMatchObject({ done: 1, waiting: 2, grace: 0 });
    expect(shown.members[1]).toMatchObject({ new_first_used: null, old_last_used: expect.any(String) });
    expect(JSON.stringify(shown)).not.toContain('csb_');
    await operator('DELETE', '/bouncers/web-2');
    await operator('POST', '/bouncers/web-3/versions/2/revoke');
    expect((await progress(id)).map(([, state]) => state)).toEqual(['done', 'gone', 'replaced']);
    const [listed] = (await operator('GET', '/rotations')).body.rotations;
    expect(listed).toMatchObject({ id, bouncers: 3, selector: web, grace_seconds: 600 });
  });

  test('whoever never takes its key keeps the old one', async () => {
    const { body } = await rotate({ selector: web, max_overlap: '1h', spread: '30m' });
    pass(1.5 * hour);
    expect((await progress(body.rotation.id)).map(([, state]) => state)).toEqual([
      'lapsed',
      'lapsed',
      'lapsed',
    ]);
    expect([await use(old['web-3']), await use(body.keys['web-3'])]).toEqual([200, 403]);
  });

  test('is spread: without a grace each old key expires at its own time, to the millisecond', async () => {
    const { body } = await rotate({ selector: web, grace: '0s', spread: '30m' });
    const dueAt = body.members.map(({ due_at }: any) => Date.parse(due_at) - Date.now());
    expect(dueAt).toEqual([0, 10 * minute, 20 * minute]);
    expect([await use(old['web-1']), await use(old['web-2'])]).toEqual([403, 200]);
    pass(10 * minute - 1);
    expect(await use(old['web-2'])).toBe(200);
    pass(1);
    expect([await use(old['web-2']), await use(old['web-3'])]).toEqual([403, 200]);
    // The first use of its new key ends an old one before its moment, and nothing prolongs it.
    expect(await use(body.keys['web-3'])).toBe(200);
    expect(await use(old['web-3'])).toBe(403);
    // A key that is taken late is as good as one that is taken in time.
    pass(30 * 24 * hour);
    expect([await use(body.keys['web-1']), await use(body.keys['web-2'])]).toEqual([200, 200]);
  });

  test('a deadline that was set is not put off by a later rotation', async () => {
    await rotate({ selector: { names: ['web-1', 'web-3'] }, grace: '0s', spread: '20m' });
    const { body } = await operator('POST', '/bouncers/web-3/rotate', { grace: '1h' });
    expect(await use(body.key)).toBe(200);
    expect(await use(old['web-3'])).toBe(200);
    pass(10 * minute);
    expect(await use(old['web-3'])).toBe(403);
  });

  test('asks the host of a bouncer whose keys a host makes, when it is due', async () => {
    const host = await knownHost('web-9');
    await host.register();
    pass(hour);
    const { body } = await rotate({ selector: web, spread: '40m' });
    expect(Object.keys(body.keys)).toEqual(['web-1', 'web-2', 'web-3']);
    const renew = async (): Promise<boolean> => (await host.register()).body.rotate;
    pass(30 * minute - 1);
    expect(await renew()).toBe(false);
    pass(1);
    expect(await renew()).toBe(true);
    expect((await progress(body.rotation.id)).at(-1)).toEqual(['web-9', 'waiting']);
    const key = makeKey();
    expect((await host.register({ key_sha512: await digestOf(key) })).status).toBe(200);
    expect(await use(key)).toBe(200);
    expect((await progress(body.rotation.id)).at(-1)).toEqual(['web-9', 'grace']);
  });

  test('takes digests of keys that were made elsewhere', async () => {
    const key = 'a-key-that-the-caller-made-by-itself';
    const digest = await digestOf(key);
    const { status, body } = await rotate({ selector: web, keys_sha512: { 'web-2': digest } });
    expect([status, Object.keys(body.keys)]).toEqual([201, ['web-1', 'web-3']]);
    expect(await use(key)).toBe(200);
    const again = await rotate({ selector: web, keys_sha512: { 'web-2': digest } });
    expect([again.status, again.body.detail]).toEqual([409, expect.stringContaining('keys_sha512')]);
    const taken = await rotate({ selector: web, keys_sha512: { 'web-1': digest } });
    expect(taken.status).toBe(409);
    expect((await operator('GET', '/rotations')).body.rotations).toHaveLength(1);
  });

  test('names those that pull less often than the grace, also where they pull lists', async () => {
    const basic = (key: string | undefined) => ({ authorization: `Basic ${btoa(`device:${key}`)}` });
    const pullList = async (key: string | undefined, method = 'GET') =>
      (await (await call('/lists/juniper.txt', { method, headers: basic(key) })).text()).length;
    await operator('POST', '/feed/sync?full=true');
    const dry = async (grace: string) => {
      const { body } = await rotate({ selector: { names: ['*'] }, grace, dry_run: true });
      return body.slower_than_grace;
    };
    expect(await dry('1h')).toEqual({ count: 0, bouncers: [] });
    await pullList(old['db-1']);
    await use(old['web-1']);
    pass(24 * hour);
    // A device asks whether it changed, and then for the list.
    await pullList(old['db-1'], 'HEAD');
    pass(200);
    await pullList(old['db-1']);
    for (let time = 0; time < 3; time++) {
      await use(old['web-1']);
      pass(10_000);
    }
    expect(await dry('1h')).toEqual({
      count: 1,
      bouncers: [{ name: 'db-1', interval_seconds: 86_400 }],
    });
    expect(await dry('2d')).toEqual({ count: 0, bouncers: [] });
    // Who has been away for longer than the grace is one of them, and `web-2` was never seen.
    pass(2 * hour);
    const { count, bouncers } = await dry('1h');
    expect([count, bouncers.map(({ name }: any) => name)]).toEqual([2, ['db-1', 'web-1']]);
    const made = await rotate({ selector: { names: ['*'] }, grace: '1h' });
    expect(made.body.slower_than_grace.count).toBe(2);
    expect((await operator('GET', `/rotations/${made.body.rotation.id}`)).body.slower_than_grace.count).toBe(
      2,
    );
  });

  test('says when D1 is out of reach, also to a dry run', async () => {
    vi.spyOn(console, 'error').mockImplementation(() => undefined);
    const outOfReach = (): never => {
      throw new Error('D1_ERROR: Network connection lost.');
    };
    const without = { ...env, DB: { prepare: outOfReach, batch: outOfReach } };
    for (const dry_run of [true, false]) {
      const response = await serveWith(without, '/api/v1/rotations', {
        method: 'POST',
        headers: { authorization: `Bearer ${operatorToken}` },
        body: JSON.stringify({ selector: web, dry_run }),
      });
      expect([response.status, await response.json()]).toEqual([
        503,
        expect.objectContaining({ type: 'urn:lapidary:unavailable' }),
      ]);
    }
  });

  test('chooses by age, and says who it would be before it does anything', async () => {
    pass(100 * 24 * hour);
    await addBouncer('young');
    const aged = { selector: { names: ['*'], older_than: '90d' }, dry_run: true };
    const { status, body } = await rotate(aged);
    expect([status, body.rotation.id, body.rotation.bouncers, 'keys' in body]).toEqual([200, null, 4, false]);
    expect(body.members.map(({ name }: any) => name)).not.toContain('young');
    expect((await operator('GET', '/rotations')).body.rotations).toEqual([]);
    expect((await operator('GET', '/bouncers/web-1')).body.key_versions).toHaveLength(1);
    expect((await operator('GET', '/audit?action=rotation.create')).body.audit).toEqual([]);
  });

  test.each([
    ['selector', {}],
    ['selector', { selector: {} }],
    ['selector', { selector: { names: ['nobody'] } }],
    ['selector.names', { selector: { names: [] } }],
    ['selector.names.0', { selector: { names: ['web[12]'] } }],
    ['selector.older_than', { selector: { older_than: 'ages' } }],
    ['selector.name', { selector: { name: 'web-1' } }],
    ['spread', { selector: web, spread: '8d' }],
    ['grace', { selector: web, grace: '8d' }],
    ['dry_run', { selector: web, dry_run: 'yes' }],
    ['keys_sha512.web-1', { selector: web, keys_sha512: { 'web-1': 'x' } }],
    ['keys_sha512.db-1', { selector: web, keys_sha512: { 'db-1': 'ab'.repeat(64) } }],
  ])('bad input names %s and rotates nobody', async (field, body) => {
    const answer = await rotate(body);
    expect([answer.status, answer.body.errors[0].field]).toEqual([400, field]);
    expect((await operator('GET', '/bouncers/web-1')).body.key_versions).toHaveLength(1);
  });

  test('is one audit row without a secret, and safe to repeat', async () => {
    const once = () => {
      return call('/api/v1/rotations', {
        method: 'POST',
        headers: { authorization: `Bearer ${operatorToken}`, 'idempotency-key': 'night' },
        body: JSON.stringify({ selector: web }),
      });
    };
    const first = (await (await once()).json()) as any;
    const second = await once();
    const again = (await second.json()) as any;
    expect([second.headers.get('idempotent-replayed'), again.keys]).toEqual(['true', undefined]);
    expect(again.rotation).toEqual(first.rotation);
    const { audit } = (await operator('GET', '/audit?action=rotation.create')).body;
    expect(audit).toHaveLength(1);
    expect(audit[0].detail.bouncers.map(({ name }: any) => name)).toEqual(['web-1', 'web-2', 'web-3']);
    for (const key of Object.values<string>(first.keys)) {
      expect(JSON.stringify(audit)).not.toContain(key);
      expect(JSON.stringify(audit)).not.toContain(await digestOf(key));
    }
    expect((await operator('GET', '/audit/verify')).body.ok).toBe(true);
  });

  test('two at once take turns: no bouncer has three keys, none is left without one', async () => {
    const answers = await Promise.all([rotate({ selector: web }), rotate({ selector: { names: ['*'] } })]);
    expect(answers.map(({ status }) => status)).toEqual([201, 201]);
    for (const name of ['web-1', 'web-2', 'web-3']) {
      expect((await operator('GET', `/bouncers/${name}`)).body.key_versions).toHaveLength(2);
      expect(await use(old[name])).toBe(200);
    }
  });

  test.each([
    ['0s', '0s'],
    ['0s', '1h'],
    ['1h', '0s'],
  ])('a thousand of them read few rows of D1 (grace %s, spread %s)', async (grace, spread) => {
    await importMany(996);
    // The next one at once also removes what the first one left.
    for (const before of spread === '0s' ? ['an import', 'a rotation'] : ['an import']) {
      const batch = vi.spyOn(Object.getPrototypeOf(env.DB), 'batch');
      const { status, body } = await rotate({ selector: { names: ['*'] }, grace, spread });
      const batches = (await Promise.all(batch.mock.results.map(({ value }) => value))) as D1Result[][];
      batch.mockRestore();
      expect([status, body.rotation.bouncers]).toEqual([201, 1000]);
      const read = batches.flat().map(({ meta }) => meta.rows_read);
      expect(
        read.reduce((sum, rows) => sum + rows, 0),
        `after ${before}`,
      ).toBeLessThanOrEqual(10_000);
    }
  });

  test('leaves those alone that were made between them', async () => {
    await importMany(20);
    const body = { selector: { names: ['web-1', 'many-19'] }, grace: '0s' };
    expect(Object.keys((await rotate(body)).body.keys)).toEqual(['web-1', 'many-19']);
    const { bouncers } = (await operator('GET', '/bouncers')).body;
    const rotated = bouncers.filter(({ key_versions: [version] }: any) => version.number === 2);
    expect(rotated.map(({ name }: any) => name)).toEqual(['web-1', 'many-19']);
    expect(bouncers.every(({ key_versions }: any) => key_versions.length === 1)).toBe(true);
    expect([await use(old['web-1']), await use(old['web-2']), await use(old['db-1'])]).toEqual([
      403, 200, 200,
    ]);
  });

  test('a thousand at once; more are refused', async () => {
    await importMany(999);
    await operator('POST', '/bouncers', { name: 'many-last' });
    const { status, body } = await rotate({ selector: { names: ['many-*'] }, spread: '1h' });
    expect([status, body.rotation.bouncers, Object.keys(body.keys).length]).toEqual([201, 1000, 1000]);
    expect(await use(body.keys['many-998'])).toBe(200);
    expect((await operator('GET', `/rotations/${body.rotation.id}`)).body.counts).toMatchObject({
      waiting: 999,
      grace: 1,
    });
    const all = await rotate({ selector: { names: ['*'] } });
    expect([all.status, all.body.detail]).toEqual([400, expect.stringContaining('more than 1000')]);
    expect((await operator('GET', '/bouncers?limit=1000')).body.bouncers).toHaveLength(1000);
  });
});
