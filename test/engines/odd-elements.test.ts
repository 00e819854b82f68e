// An engine's answer with something odd in it, in workerd: what can't be read costs itself, and nothing beside it.
import { beforeEach, describe, expect, test } from 'vitest';
import { bouncer, feed } from '../support/bouncer.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { operator } from '../support/http.ts';

const hour = 3_600_000;
let engine: ModelEngine;

beforeEach(() => {
  engine = startModelEngine();
});

type Wire = Record<string, unknown>;

/** The engine's answers, with each element put through `change`; where that says undefined it stays. */
function spoil(change: (element: Wire) => unknown): void {
  const changed = (list: Wire[] | null): unknown => {
    return (
      list &&
      list.map((element) => {
        const made = change(element);
        return made === undefined ? element : made;
      })
    );
  };
  engine.fault = async (_, target) => {
    const body = (await engine.answer(target).json()) as Wire[] | { new: Wire[]; deleted: Wire[] } | null;
    if (body === null || Array.isArray(body)) return Response.json(changed(body));
    return Response.json({ new: changed(body.new), deleted: changed(body.deleted) });
  };
}

const ban = (value: string) => engine.add({ value, untilMs: Date.now() + hour });
const sync = (full = true) => feed().sync({ full, force: false });

function without(element: Wire, name: string): Wire {
  return Object.fromEntries(Object.entries(element).filter(([field]) => field !== name));
}

type Oddity = readonly [what: string, change: (element: Wire) => unknown, says: string];

const texts = ['origin', 'scenario', 'scope', 'type', 'value', 'duration'].flatMap((name): Oddity[] => [
  [`without ${name}`, (element) => without(element, name), `has no ${name}`],
  [`whose ${name} is null`, (element) => ({ ...element, [name]: null }), `has no ${name}`],
  [`whose ${name} is a number`, (element) => ({ ...element, [name]: 5 }), `has no ${name}`],
]);
/** What is wrong with an element, by what is done to it. */
const odd: Oddity[] = [
  ...texts,
  ['without an id', (element) => without(element, 'id'), 'has no numeric id'],
  ['whose id is a text', (element) => ({ ...element, id: '1' }), 'has no numeric id'],
  ['whose id is 0', (element) => ({ ...element, id: 0 }), 'out of range'],
  ['whose id no number can hold', (element) => ({ ...element, id: 2 ** 60 }), 'out of range'],
  [
    'whose duration is none',
    (element) => ({ ...element, duration: 'soon' }),
    'has a duration that can not be read',
  ],
  ['that is null', () => null, 'is not an object'],
  ['that is a list', () => [[]], 'has no numeric id'],
  ['that is 10 MB long', (element) => ({ ...element, scenario: 'x'.repeat(10_000_000) }), 'is longer than'],
];

test.each(odd)('an element %s is left out, named, and costs nothing else', async (_, change, says) => {
  const gone = ban('192.0.2.9');
  const client = bouncer();
  await client.pull(true);
  spoil((element) => (element['value'] === '192.0.2.66' ? change(element) : undefined));
  ban('192.0.2.66');
  ban('192.0.2.1');
  ban('192.0.2.2');
  engine.drop(gone.id);
  await sync();
  // What is missing may be what could not be read: a second list decides.
  await sync();
  await client.pull(false);
  expect(client.banned()).toEqual(['192.0.2.1', '192.0.2.2']);
  const [shown] = (await operator('GET', '/feed')).body.engines;
  expect(shown).toMatchObject({ state: 'ok', skipped: 1, skipped_sample: expect.stringContaining(says) });
});

describe('a ban that was mirrored and can not be read any more', () => {
  test('is there as long as its id is', async () => {
    ban('192.0.2.1');
    ban('192.0.2.2');
    const client = bouncer();
    await client.pull(true);
    spoil((element) => (element['value'] === '192.0.2.1' ? { ...element, duration: 'soon' } : undefined));
    for (let list = 0; list < 3; list++) await sync();
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.1', '192.0.2.2']);
  });

  test('without an id it is kept until a second list has none for it either', async () => {
    for (const host of [1, 2, 3, 4]) ban(`192.0.2.${host}`);
    const client = bouncer();
    await client.pull(true);
    spoil((element) => (element['value'] === '192.0.2.1' ? { ...element, id: null } : undefined));
    expect((await sync()).warning).toMatch(/1 missing decision.* can't be read/);
    await client.pull(false);
    expect(client.banned()).toContain('192.0.2.1');
    expect((await sync()).warning).toBeNull();
    await client.pull(false);
    expect(client.banned()).toEqual(['192.0.2.2', '192.0.2.3', '192.0.2.4']);
  });
});

test('the longest and the shortest duration that Go has are a ban and an end', async () => {
  const client = bouncer();
  await client.pull(true);
  ban('192.0.2.1');
  ban('192.0.2.2');
  spoil((element) =>
    element['value'] === '192.0.2.1' ? { ...element, duration: '2562047h47m16.854775807s' } : undefined,
  );
  await sync(false);
  const { added } = await client.pull(false);
  expect(added.map(({ value, duration }) => [value, duration.slice(0, 8)])).toEqual([
    ['192.0.2.1', '2562047h'],
    ['192.0.2.2', expect.stringContaining('59m')],
  ]);
  // It is the same one in each list: nothing is written, nothing is delivered again.
  const { sequence } = await feed().status();
  await sync();
  expect((await feed().status()).sequence).toBe(sequence);
});

describe('an engine whose ids have come to 2^30', () => {
  const high = 2 ** 30;

  test('gets ids of ours for them, the same in every list, below 2^31', async () => {
    engine.add({ value: '192.0.2.1', untilMs: Date.now() + hour });
    engine.add({ id: high, value: '192.0.2.2', untilMs: Date.now() + hour });
    engine.add({ id: 2 ** 40, value: '192.0.2.3', untilMs: Date.now() + hour });
    const client = bouncer();
    const ids = async () => (await client.pull(true)).added.map(({ value, id }) => [value, id]);
    const before = await ids();
    expect(before).toEqual([
      ['192.0.2.1', 1],
      ['192.0.2.2', high],
      ['192.0.2.3', high + 1],
    ]);
    await sync();
    expect(await ids()).toEqual(before);
  });

  test('is followed in what it removes', async () => {
    const row = engine.add({ id: high + 7, value: '192.0.2.2', untilMs: Date.now() + hour });
    const client = bouncer();
    await client.pull(true);
    engine.expire(row.id);
    await sync(false);
    await client.pull(false);
    expect(client.banned()).toEqual([]);
  });
});
