// What engines' own allow-lists have, as operators read it: by the API of a Worker whose feed reads them.
import { beforeEach, expect, test, vi } from 'vitest';
import { call, operator, operatorToken } from '../support/http.ts';
import { startModelEngines, type ModelEngine } from '../support/model-engine.ts';
import { makeToken } from '../support/operators.ts';
import { asked, engineStatus, readAllowLists, wake } from '../support/several.ts';

const minute = 60_000;
const account = { machine: 'lapidary', password: 'pass' };
const office = { name: 'office', url: 'http://b.example', key: 'k', allowlists: account };
const plant = { name: 'plant', url: 'http://c.example', key: 'k', allowlists: account };
let engine: ModelEngine;
let other: ModelEngine;

beforeEach(() => {
  ({ 'b.example': engine, 'c.example': other } = startModelEngines('a.example', 'b.example', 'c.example'));
  vi.useFakeTimers({ toFake: ['Date'] });
  engine.allowLists = [
    { name: 'monitoring', items: [{ value: '192.0.2.1' }, { value: '2001:DB8::/48' }] },
    { name: 'partners', items: [{ value: '198.51.100.0/24', expiration: at(60 * minute) }] },
  ];
  other.allowLists = [{ name: 'partners', items: [{ value: '192.0.2.1' }] }];
});

const at = (fromNowMs: number) => new Date(Date.now() + fromNowMs).toISOString();
const both = <T>(use: () => Promise<T>, first: object = office) =>
  wake({ default: 'a.example' }, use, [first, plant]);

async function read(query = '', token = operatorToken): Promise<{ status: number; body: any }> {
  const headers = { authorization: `Bearer ${token}` };
  const response = await asked(`/api/v1/allowlist/engines${query}`, { headers });
  return { status: response.status, body: await response.json() };
}

const placesIn = ({ body }: { body: any }): string[] =>
  body.entries.map(({ engine, list, value }: any) => `${engine} ${list} ${value}`).sort();

test('all are listed with engine, list and end, and narrowed to those of one engine or list', () =>
  both(async () => {
    const ends = at(60 * minute);
    await readAllowLists();
    const all = await read();
    expect(placesIn(all)).toEqual([
      'office monitoring 192.0.2.1',
      'office monitoring 2001:db8::/48',
      'office partners 198.51.100.0/24',
      'plant partners 192.0.2.1',
    ]);
    const entry = { value: '198.51.100.0/24', engine: 'office', list: 'partners', expires_at: ends };
    expect(all.body.entries).toContainEqual({ ...entry, holds: true });
    expect(all.body.entries.filter(({ expires_at }: any) => expires_at === null)).toHaveLength(3);
    expect(placesIn(await read('?engine=plant'))).toEqual(['plant partners 192.0.2.1']);
    expect(placesIn(await read('?list=partners'))).toHaveLength(2);
    expect((await read('?engine=office&list=partners')).body.entries).toEqual([{ ...entry, holds: true }]);
    expect((await read('?engine=plant&list=monitoring')).body).toEqual({ entries: [], next: null });
  }));

test('pages go through every entry once, while some go and others come', () =>
  both(async () => {
    const items = (from: number, to: number) =>
      Array.from({ length: to - from }, (_, index) => ({
        value: `203.0.${(from + index) >> 8}.${(from + index) & 255}`,
      }));
    engine.allowLists = [{ name: 'many', items: items(0, 2_500) }];
    await readAllowLists();
    const first = await read('?engine=office&limit=1000');
    expect(first.body.entries).toHaveLength(1_000);
    engine.allowLists = [{ name: 'many', items: [...items(10, 2_500), ...items(3_000, 3_001)] }];
    await readAllowLists();
    const found: string[] = first.body.entries.map(({ value }: any) => value);
    for (let { next } = first.body; next !== null;) {
      const { body } = await read(`?engine=office&limit=1000&after=${next}`);
      found.push(...body.entries.map(({ value }: any) => value));
      next = body.next;
    }
    expect(found).toHaveLength(2_501);
    expect(new Set(found)).toEqual(
      new Set([...items(0, 2_500), ...items(3_000, 3_001)].map(({ value }) => value)),
    );
  }));

test('one that has ended while its engine is silent is still there, and does not hold', () =>
  both(async () => {
    vi.spyOn(console, 'error').mockReturnValue();
    await readAllowLists();
    engine.fault = () => new Response('{}', { status: 500 });
    vi.setSystemTime(Date.now() + 61 * minute);
    const { body } = await read('?engine=office');
    expect(body.entries.map(({ value, holds }: any) => [value, holds]).sort()).toEqual([
      ['192.0.2.1', true],
      ['198.51.100.0/24', false],
      ['2001:db8::/48', true],
    ]);
    expect(engineStatus('office')?.allowLists?.entries).toBe(2);
  }));

test('they keep their places over a restart, and bear their engine’s new name', async () => {
  const before = await both(async () => {
    await readAllowLists();
    return (await read('?limit=1000')).body.entries;
  });
  await both(
    async () => {
      const now = (await read()).body.entries;
      expect(now).toEqual(
        before.map((entry: any) => ({
          ...entry,
          engine: entry.engine === 'office' ? 'bureau' : entry.engine,
        })),
      );
      expect(placesIn(await read('?engine=bureau'))).toHaveLength(3);
    },
    { ...office, name: 'bureau' },
  );
});

test('an engine whose lists nobody reads is refused by the field’s name, and so is a bad page', () =>
  both(async () => {
    for (const [query, field] of [
      ['engine=default', 'engine'],
      ['engine=nobody', 'engine'],
      ['engine=', 'engine'],
      ['after=-1', 'after'],
      ['limit=1001', 'limit'],
      ['value=192.0.2.1', 'value'],
    ]) {
      const { status, body } = await read(`?${query}`);
      expect([query, status, body.errors]).toEqual([query, 400, [{ field, detail: expect.any(String) }]]);
    }
    expect((await read('?engine=default')).body.detail).toContain('office, plant');
  }));

test('a viewer reads them; a scraper and a stranger do not', () =>
  both(async () => {
    await readAllowLists();
    expect(placesIn(await read('', await makeToken('ann', 'viewer')))).toHaveLength(4);
    expect((await read('', await makeToken('prometheus', 'metrics'))).status).toBe(403);
    expect((await read('', 'nobody')).status).toBe(401);
  }));

test('without such an engine there is none, and no entry made here is among them', async () => {
  await operator('POST', '/allowlist', { value: '192.0.2.1', comment: 'office' });
  expect(await operator('GET', '/allowlist/engines')).toMatchObject({
    status: 200,
    body: { entries: [], next: null },
  });
  const { body } = await operator('GET', '/allowlist/engines?engine=default');
  expect(body.errors).toEqual([{ field: 'engine', detail: expect.stringContaining('none') }]);
  const headers = { authorization: `Bearer ${operatorToken}` };
  expect((await call('/api/v1/allowlist/engines', { method: 'DELETE', headers })).status).toBe(404);
});
