// One address in several spellings. Kernel sets compare networks, most other bouncers texts: the end of a text waits
// while its network is banned under another. After the last removal all are delivered, each in its own answer.
import { evictDurableObject, runDurableObjectAlarm } from 'cloudflare:test';
import fc from 'fast-check';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { canonicalValue } from '../../src/formats/canonical.ts';
import { formatNetwork, parseNetwork } from '../../src/formats/ip.ts';
import type { View } from '../../src/mirror/view.ts';
import { letIsolatesFollow } from '../support/following.ts';
import { bouncer, everything, feed, limitsOf, type Pulled } from '../support/bouncer.ts';
import { startModelEngine, type ModelDecision, type ModelEngine } from '../support/model-engine.ts';

const hour = 3_600_000;
let engine: ModelEngine;

beforeEach(() => {
  engine = startModelEngine();
});

const sync = () => feed().sync({ full: true, force: false });
const valuesOf = (decisions: Pulled['ended']) => decisions.map(({ value }) => value).sort();
const banHere = (value: string, scope = value.includes('/') ? 'Range' : 'Ip', hours = 4) =>
  feed().addLocal({ value, scope, type: 'ban', scenario: 'by hand', untilMs: Date.now() + hours * hour });
/** Only what was decided here and has this text. */
const endHere = async (value: string) => {
  const { removed } = await feed().removeLocal({ value });
  expect(removed).toBe(1);
};
const add = (value: string, more: Partial<ModelDecision> = {}) =>
  engine.add({ value, untilMs: Date.now() + 2 * hour, ...more });

test.each([
  ['Ip', '2001:DB8::A1', '2001:db8::a1'],
  ['Ip', '2001:0db8:0:0:0:0:0:a1', '2001:db8::a1'],
  ['Range', '2001:db8::a1/128', '2001:db8::a1'],
  ['Range', '2001:DB8::7/48', '2001:db8::/48'],
  ['Ip', '192.0.2.9', '192.0.2.9'],
  ['Range', '192.0.2.9/32', '192.0.2.9'],
  ['Range', '192.0.2.9/24', '192.0.2.0/24'],
  ['Ip', '::ffff:192.0.2.50', '192.0.2.50'],
  ['Ip', '::FFFF:c000:0232', '192.0.2.50'],
  ['Range', '::ffff:192.0.2.50/120', '192.0.2.0/24'],
  ['Ip', '192.0.2.09', '192.0.2.09'],
  ['Ip', 'fe80::1%eth0', 'fe80::1%eth0'],
  ['Country', 'fr', 'FR'],
  ['AS', 'AS64500', '64500'],
  ['AS', 'as064500', '64500'],
  ['username', 'fr', 'fr'],
])('%s %s is %s in one spelling', (scope, value, canonical) => {
  expect(canonicalValue(scope, value)).toBe(canonical);
});

test('whatever IPv6 is written like, and whether it had to be parsed or not', () => {
  const group = fc.nat(0xffff).map((value) => value.toString(16));
  const gap = fc.constantFrom('::', ':');
  const parts = fc.tuple(fc.array(group, { maxLength: 8 }), gap, fc.array(group, { maxLength: 8 }));
  const grouped = parts.map(([left, between, right]) => left.join(':') + between + right.join(':'));
  const zeros = grouped.map((text) =>
    text.replaceAll(/[1-9a-f][0-9a-f]*/g, (each) => (each < '7' ? '0' : each)),
  );
  const mapped = grouped.map((text) => `::ffff:${text}`);
  fc.assert(
    fc.property(fc.oneof(fc.ipV6(), grouped, zeros, mapped), (text) => {
      const network = parseNetwork(text);
      expect(canonicalValue('Ip', text)).toBe(network ? formatNetwork(network) : text);
    }),
    { numRuns: 5_000 },
  );
});

const pairs: [theirs: string, scope: string, ours: string, ourScope: string][] = [
  ['2001:DB8::A1', 'Ip', '2001:db8::a1', 'Ip'],
  ['192.0.2.9/32', 'Range', '192.0.2.9', 'Ip'],
  ['::ffff:192.0.2.50', 'Ip', '192.0.2.50', 'Ip'],
  ['192.0.2.77/24', 'Range', '192.0.2.0/24', 'Range'],
  // As one agent or another writes it.
  ['192.0.2.0/24', 'Ip', '192.0.2.0/24', 'Range'],
  ['fr', 'Country', 'FR', 'Country'],
  ['AS64500', 'AS', '64500', 'AS'],
];
const views: [string, Partial<View>][] = [
  ['', {}],
  [', dedup=false', { dedup: false }],
  [', with a cap', { limits: limitsOf({ maxDecisions: 10 }) }],
  [', with limits', { limits: limitsOf({ origins: ['cscli', 'lapidary'] }) }],
];

describe.each(pairs)('%s (%s) of an engine and %s (%s) decided here', (theirs, scope, ours, ourScope) => {
  describe.each(views)('are one%s', (_, view) => {
    test.each([
      ['theirs', false],
      ['ours', true],
    ])(
      'when %s ends first, both are delivered after the last removal (a restart between: %j)',
      async (first, restart) => {
        const client = bouncer({ view: { ...everything, ...view } });
        const { id } = add(theirs, { scope });
        await sync();
        await banHere(ours, ourScope);
        expect(valuesOf((await client.pull(true)).added)).toEqual([theirs, ours].sort());
        const endTheirs = async () => {
          engine.expire(id);
          await sync();
        };
        const ends = [endTheirs, async () => void (await feed().removeLocal({ value: ours }))];
        if (first === 'ours') ends.reverse();
        await ends[0]?.();
        const left = first === 'ours' ? theirs : ours;
        const before = await client.pull(false);
        // Announced again, since a kernel's set may have taken the other one's time.
        expect([valuesOf(before.ended), valuesOf(before.added)]).toEqual([[], [left]]);
        for (let poll = 0; poll < 2; poll++) await client.pull(false);
        if (restart) {
          // Writes the cursor.
          await runDurableObjectAlarm(feed());
          await evictDurableObject(feed());
        }
        // The end that was kept back is in no delta's reach any more.
        expect(await client.pull(false)).toEqual({ added: [], ended: [] });
        await ends[1]?.();
        await client.pull(false);
        expect([client.banned().length, client.elements()]).toEqual([1, []]);
        await client.pull(false);
        expect(client.banned()).toEqual([]);
      },
    );

    test('when both end at once, each is delivered twice', async () => {
      const client = bouncer({ view: { ...everything, ...view } });
      const { id } = add(theirs, { scope });
      await sync();
      await banHere(ours, ourScope);
      await client.pull(true);
      engine.expire(id);
      await sync();
      await feed().removeLocal({ value: ours });
      const delivered = new Map<string, number>();
      for (let poll = 0; poll < 9; poll++) {
        const { ended } = await client.pull(false);
        expect(ended.length).toBeLessThanOrEqual(1);
        for (const one of ended) {
          const text = `${one.scope} ${one.value}`;
          delivered.set(text, (delivered.get(text) ?? 0) + 1);
        }
      }
      expect([...delivered.keys()].sort()).toEqual([`${scope} ${theirs}`, `${ourScope} ${ours}`].sort());
      for (const times of delivered.values()) expect(times).toBeGreaterThanOrEqual(2);
      expect(await client.pull(false)).toEqual({ added: [], ended: [] });
    });
  });
});

test('a start-up, and a client without a cursor, get no removal while a sibling is active, and all after the last', async () => {
  const { id } = add('192.0.2.9/32');
  await sync();
  await banHere('192.0.2.9');
  engine.expire(id);
  await sync();
  for (const startup of [true, false]) {
    const { added, ended } = await bouncer({ address: `192.0.2.${startup ? 1 : 2}` }).pull(startup);
    expect([valuesOf(added), valuesOf(ended)]).toEqual([['192.0.2.9'], []]);
  }
  await endHere('192.0.2.9');
  for (const startup of [true, false]) {
    const client = bouncer({ address: `192.0.2.${startup ? 3 : 4}` });
    const delivered = new Set<string>();
    for (let poll = 0; poll < 6; poll++) {
      const { added, ended } = await client.pull(startup && poll === 0);
      expect([added.length, ended.length <= 1]).toEqual([0, true]);
      for (const { value } of ended) delivered.add(value);
    }
    expect([...delivered].sort()).toEqual(['192.0.2.9', '192.0.2.9/32']);
    expect(await client.pull(false)).toEqual({ added: [], ended: [] });
  }
});

test('a text that fell out with a change of limits is delivered with the last removal', async () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  const client = bouncer();
  add('192.0.2.9/32');
  await sync();
  await banHere('192.0.2.9');
  await client.pull(true);
  client.limit(limitsOf({ origins: ['lapidary'] }));
  expect(valuesOf((await client.pull(false)).ended)).toEqual([]);
  letIsolatesFollow();
  for (let poll = 0; poll < 2; poll++) await client.pull(false);
  await endHere('192.0.2.9');
  await client.pullAll();
  expect([client.banned(), client.elements()]).toEqual([[], []]);
});

test('a pending removal is delivered after a restart, too, and not when the address is banned again', async () => {
  const client = bouncer();
  add('192.0.2.9/32');
  await sync();
  await banHere('192.0.2.9');
  await client.pull(true);
  await feed().removeLocal({ value: '192.0.2.9' });
  engine.rows.clear();
  await feed().sync({ full: true, force: true });
  await client.pull(false);
  expect([client.banned().length, client.elements()]).toEqual([1, []]);
  await banHere('192.0.2.9');
  for (let poll = 0; poll < 4; poll++) expect((await client.pull(false)).ended).toEqual([]);
  await endHere('192.0.2.9');
  await client.pull(false);
  await runDurableObjectAlarm(feed());
  await evictDurableObject(feed());
  await client.pullAll();
  expect(client.banned()).toEqual([]);
});

test('a removal from before its address was banned again in another spelling is delivered with the last one', async () => {
  const client = bouncer();
  await banHere('192.0.2.1');
  await client.pull(true);
  await endHere('192.0.2.1');
  await banHere('192.0.2.1/32');
  await client.pullAll();
  expect(client.banned()).toHaveLength(2);
  await endHere('192.0.2.1/32');
  await client.pullAll();
  expect(client.banned()).toEqual([]);
});

test('a cap that leaves one text of a network does not end it by the other', async () => {
  const client = bouncer({ view: { ...everything, limits: limitsOf({ maxDecisions: 2 }) } });
  add('192.0.2.9/32');
  await sync();
  await banHere('192.0.2.9');
  await client.pull(true);
  await banHere('198.51.100.1', 'Ip', 8);
  const { added, ended } = await client.pull(false);
  expect([valuesOf(added), valuesOf(ended)]).toEqual([['192.0.2.9', '198.51.100.1'], []]);
  await banHere('198.51.100.2', 'Ip', 8);
  await client.pullAll();
  expect([client.banned(), client.elements()]).toEqual([
    ['198.51.100.1', '198.51.100.2'],
    ['ban 198.51.100.1', 'ban 198.51.100.2'],
  ]);
});

test('a kernel that took the time of the shorter ban has the longer one again after it', async () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  const client = bouncer();
  await banHere('192.0.2.1', 'Ip', 4);
  await client.pull(true);
  add('::ffff:192.0.2.1', { untilMs: Date.now() + hour });
  await sync();
  for (let poll = 0; poll < 3; poll++) await client.pull(false);
  vi.setSystemTime(Date.now() + hour + 1000);
  expect(client.elements()).toEqual([]);
  await client.pull(false);
  expect(client.elements()).toEqual(['ban 192.0.2.1']);
  vi.setSystemTime(Date.now() + hour);
  expect(client.elements()).toEqual(['ban 192.0.2.1']);
});

test('another type of the same address keeps no end back, nor another scope of the same text', async () => {
  const client = bouncer();
  const { id } = add('192.0.2.9/32');
  add('192.0.2.9', { type: 'captcha' });
  const country = add('fr', { scope: 'Country' });
  add('FR', { scope: 'username' });
  await client.pull(true);
  engine.expire(id);
  engine.expire(country.id);
  await sync();
  expect(valuesOf((await client.pull(false)).ended)).toEqual(['192.0.2.9/32', 'fr']);
});

test('a removal that is kept back for longer than tombstones last is delivered, and forgotten after the last one', async () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  const client = bouncer();
  const { id } = add('192.0.2.9/32');
  await sync();
  await banHere('192.0.2.9', 'Ip', 24 * 30);
  await client.pull(true);
  engine.expire(id);
  const daysPass = async (days: number) => {
    for (let quarter = 0; quarter < 4 * days; quarter++) {
      vi.setSystemTime(Date.now() + 6 * hour);
      await runDurableObjectAlarm(feed());
      const delivered = valuesOf((await client.pull(false)).ended);
      expect(delivered.filter((value) => value.startsWith('192.0.2.'))).toEqual([]);
    }
  };
  await daysPass(8);
  // What moves the feed makes another end too old.
  await banHere('198.51.100.1');
  await daysPass(8);
  await evictDurableObject(feed());
  const { ended } = await bouncer({ address: '192.0.2.2' }).pull(true);
  expect(valuesOf(ended)).not.toContain('192.0.2.9/32');
  await endHere('192.0.2.9');
  await client.pullAll();
  expect(client.banned()).toEqual([]);
  vi.setSystemTime(Date.now() + 8 * 24 * hour);
  await runDurableObjectAlarm(feed());
  expect((await feed().status()).tombstones).toBe(0);
});
