// Decisions by what they are about: each value once, whatever spelling, engine and number of decisions, in every order.
import { beforeEach, expect, test } from 'vitest';
import { operator } from '../support/http.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';

const untilMs = Date.now() + 3_600_000;

let engine: ModelEngine;
beforeEach(() => {
  engine = startModelEngine();
});

async function values(query = ''): Promise<any> {
  const { status, body } = await operator('GET', `/decisions/values${query}`);
  expect([query, status]).toEqual([query, 200]);
  return body;
}

test('an address is there once, what was made here beside what others decided', async () => {
  engine.add({ value: '192.0.2.1', origin: 'CAPI', scenario: 'scan', untilMs });
  engine.add({ value: '192.0.2.1', origin: 'lists', scenario: 'a list', untilMs: untilMs + 60_000 });
  engine.add({ value: '192.0.2.1', origin: 'lists', scenario: 'another', type: 'captcha', untilMs });
  engine.add({ value: '198.51.100.7', origin: 'crowdsec', untilMs });
  await operator('POST', '/feed/sync?full=true');
  await operator('POST', '/decisions', { value: '192.0.2.1', duration: '30m', scenario: 'by hand' });
  const body = await values();
  expect(body.totals).toEqual({ values: 2, decisions: 5, made_here: 1 });
  expect(body.next).toBeNull();
  expect(body.values.map(({ value, total }: any) => [value, total])).toEqual([
    ['192.0.2.1', 4],
    ['198.51.100.7', 1],
  ]);
  const [first] = body.values;
  expect(first.origins).toEqual([
    { origin: 'lapidary', engine: null, decisions: 1 },
    { origin: 'lists', engine: 'default', decisions: 2 },
    { origin: 'CAPI', engine: 'default', decisions: 1 },
  ]);
  expect(first.decisions.map(({ scenario }: any) => scenario)).toEqual([
    'by hand',
    'a list',
    expect.any(String),
    expect.any(String),
  ]);
  expect((await values('?type=captcha')).values).toMatchObject([{ value: '192.0.2.1', total: 1 }]);
});

test('spellings of one network are one value; equal texts of other scopes are not', async () => {
  engine.add({ value: '2001:DB8:0::/48', scope: 'Range', scenario: 'a', untilMs });
  engine.add({ value: '2001:db8::/48', scope: 'Range', scenario: 'b', untilMs });
  engine.add({ value: '192.0.2.9/32', scope: 'Range', scenario: 'a', untilMs });
  engine.add({ value: '192.0.2.9', scenario: 'b', untilMs });
  engine.add({ value: 'FR', scope: 'Country', untilMs });
  engine.add({ value: 'FR', scope: 'team', untilMs });
  await operator('POST', '/feed/sync?full=true');
  const { values: all, totals } = await values();
  expect(totals).toMatchObject({ values: 4, decisions: 6 });
  expect(all.map(({ total }: any) => total).sort()).toEqual([1, 1, 2, 2]);
  expect((await values('?value=fr&scope=country')).values).toMatchObject([{ scope: 'Country', total: 1 }]);
});

test('a value narrows the list to what covers it', async () => {
  engine.add({ value: '192.0.2.0/24', scope: 'Range', untilMs });
  engine.add({ value: '192.0.2.1', untilMs });
  engine.add({ value: '192.0.2.2', untilMs });
  await operator('POST', '/feed/sync?full=true');
  const { values: found } = await values('?value=192.0.2.1&order=ends-first');
  expect(found.map(({ value }: any) => value).sort()).toEqual(['192.0.2.0/24', '192.0.2.1']);
});

test.each(['newest', 'ends-first', 'ends-last', 'most-decisions'])(
  'pages in the order %s go through every value once',
  async (order) => {
    for (let at = 0; at < 23; at++) {
      // Many end at one moment, and several addresses have several decisions.
      for (let n = 0; n <= at % 3; n++) {
        engine.add({ value: `203.0.113.${at}`, scenario: `s-${n}`, untilMs: untilMs + (at % 4) * 60_000 });
      }
    }
    await operator('POST', '/feed/sync?full=true');
    const seen: any[] = [];
    let next: string | null = '';
    while (next !== null) {
      const body: any = await values(`?order=${order}&limit=5${next === '' ? '' : `&after=${next}`}`);
      expect(body.totals.values).toBe(23);
      seen.push(...body.values);
      next = body.next;
    }
    expect(new Set(seen.map(({ value }) => value)).size).toBe(23);
    expect(seen.length).toBe(23);
    const keys = seen.map(({ total, decisions }) => {
      const ends = Math.max(...decisions.map(({ until }: any) => Date.parse(until)));
      const ids = Math.max(...decisions.map(({ id }: any) => id));
      return { newest: -ids, 'ends-first': ends, 'ends-last': -ends, 'most-decisions': -total }[order]!;
    });
    expect(keys).toEqual(keys.toSorted((a, b) => a - b));
  },
);

test('a value has at most 10 of its decisions, and says how many there are', async () => {
  for (let at = 0; at < 30; at++) engine.add({ value: '192.0.2.1', scenario: `s-${at}`, untilMs });
  await operator('POST', '/feed/sync?full=true');
  const [first] = (await values()).values;
  expect([first.total, first.decisions.length, first.origins[0].decisions]).toEqual([30, 10, 30]);
});

test.each([
  ['order', '?order=oldest'],
  ['after', '?after=5'],
  ['after', '?after=1.2.3'],
  ['after', `?after=${'9'.repeat(20)}.1`],
  ['limit', '?limit=0'],
  ['value', '?value=192.0.2.300'],
  ['engine', '?engine=london'],
  ['sort', '?sort=value'],
])('refuses %s (%s)', async (field, query) => {
  const { status, body } = await operator('GET', `/decisions/values${query}`);
  expect([status, body.errors[0].field]).toEqual([400, field]);
});
