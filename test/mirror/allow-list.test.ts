// A change of the allow-list that takes many turns of the object: what each turn does at most, and what is answered between
// two of them, whatever else happens there.
import { runInDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { readSettings } from '../../src/config/settings.ts';
import { parseNetwork, type Network } from '../../src/formats/ip.ts';
import {
  effectOf,
  setAllowList,
  sliceChanges,
  sliceValues,
  sweepAllowList,
} from '../../src/mirror/allow-list.ts';
import { patternsOf, fromWhom, type AllowedEntry } from '../../src/mirror/allowed.ts';
import { openStore, remove, type Store } from '../../src/mirror/mirror.ts';
import { resolveNames } from '../../src/mirror/patterns.ts';
import { commitSync, type Sync } from '../../src/mirror/sync.ts';
import { matcher } from '../../src/mirror/view.ts';
import { changesSince } from '../../src/stream/delta.ts';
import { activeRows } from '../../src/stream/selection.ts';
import { everything, feed } from '../support/bouncer.ts';

const settings = readSettings({ ...env });
const entry = (
  id: number,
  value: string,
  expiresMs: number | null = null,
  bouncers?: readonly string[],
): AllowedEntry => ({ id, value, expiresMs, bouncers });
const decision = (id: number, value: string) => ({
  id,
  origin: 'CAPI',
  scenario: 'test',
  scope: 'Ip',
  type: 'ban',
  value,
  untilMs: Date.now() + 3_600_000,
});
/** Of 198.18.0.0/15. */
const addressOf = (id: number): string => `198.${18 + (id & 1)}.${(id >> 8) & 255}.${id & 255}`;

function sync(store: Store, { add = [], renew = [], remove = [] }: Partial<Sync>): void {
  const [engine] = store.engines.keys();
  const plan = { engine: engine as string, url: 'http://engine.example', held: null, orphan: [] };
  commitSync(store, { ...plan, add, renew, remove, progress: ({ progress }) => progress }, Date.now());
}

const fill = (store: Store, count: number): void => {
  const ids = Array.from({ length: count }, (_, at) => at + 1);
  sync(store, { add: ids.map((id) => decision(id, addressOf(id))) });
};

/** In the storage of an object that nobody asks meanwhile. */
const inStorage = (work: (storage: DurableObjectStorage) => Promise<void>) =>
  runInDurableObject(feed(), (_, { storage }) => work(storage));

/** A bouncer that has what it was sent, by text. */
function client(store: Store, name = 'web-1') {
  const has = new Set<string>();
  let { sequence } = store.mirror;
  const start = ({ mirror }: Store): void => {
    has.clear();
    for (const value of servedBy(mirror, name)) has.add(value);
    sequence = mirror.sequence;
  };
  start(store);
  return {
    has,
    start,
    poll({ mirror }: Store): void {
      const answer = changesSince(mirror, viewFor(mirror, name), sequence);
      for (const { value } of answer.removed) has.delete(value);
      for (const { value } of answer.added) has.add(value);
      sequence = answer.sequence;
      expect([...has].sort()).toEqual(servedBy(mirror, name));
    },
  };
}
const viewFor = ({ patterns }: Store['mirror'], bouncer: string) =>
  resolveNames({ ...everything, bouncer }, new Map(), patterns);
const servedBy = (mirror: Store['mirror'], name = 'web-1'): string[] => {
  const matches = matcher(viewFor(mirror, name));
  const rows = [...mirror.byId.values()].filter(matches);
  return rows.map(({ value }) => value).sort();
};

test('each turn changes a few hundred decisions, and polls and look-ups between them are right', () =>
  inStorage(async (storage) => {
    const store = openStore(storage, settings);
    const count = 2_000;
    fill(store, count);
    const bouncer = client(store);
    const lookUp = (value: string) =>
      activeRows(store.mirror, {
        ...everything,
        within: { network: parseNetwork(value) as Network, covering: true },
      });
    expect(lookUp(addressOf(1))).toHaveLength(1);
    let before = store.mirror.sequence;
    let pauses = 0;
    const clock = {
      now: () => Date.now(),
      pause: async () => {
        // A withheld decision has a tombstone and another row.
        expect(store.mirror.sequence - before).toBeLessThanOrEqual(2 * sliceChanges + 100);
        before = store.mirror.sequence;
        bouncer.poll(store);
        expect(lookUp(addressOf(1))).toEqual([]);
        pauses++;
      },
    };
    await setAllowList(store, [entry(1, '198.18.0.0/15')], clock);
    bouncer.poll(store);
    expect(bouncer.has.size).toBe(0);
    expect(pauses).toBeGreaterThanOrEqual(count / sliceChanges - 1);
    // Ended by the clock, too: what a poll does itself is one slice.
    before = store.mirror.sequence;
    await setAllowList(store, [entry(1, '198.18.0.0/15', Date.now() + 60_000)], clock);
    before = store.mirror.sequence;
    const later = { ...clock, now: () => Date.now() + 120_000, pause: () => scheduler.wait(0) };
    sweepAllowList(store, later);
    expect(store.mirror.sequence - before).toBeLessThanOrEqual(sliceChanges + 100);
    bouncer.poll(store);
    await store.unjudged.judging;
    bouncer.poll(store);
    expect(bouncer.has.size).toBe(count);
  }));

test('entries are read, and looked for, in slices', () =>
  inStorage(async (storage) => {
    const store = openStore(storage, settings);
    fill(store, 1);
    const entries = Array.from({ length: 10_000 }, (_, id) => entry(id + 1, addressOf(2 * id)));
    let pauses = 0;
    const clock = { now: () => Date.now(), pause: async () => void pauses++ };
    await setAllowList(store, entries, clock);
    expect(pauses).toBeGreaterThanOrEqual(entries.length / sliceValues);
    // What was read is not read again.
    const [read] = store.mirror.allowed.entries;
    await setAllowList(store, [...entries, entry(10_001, addressOf(1))], clock);
    expect(store.mirror.allowed.entries[0]?.network).toBe(read?.network);
    expect(fromWhom(store.mirror.allowed, { scope: 'Ip', canonicalValue: addressOf(1) })).toBe(true);
    pauses = 0;
    sync(store, {
      add: Array.from({ length: 6_000 }, (_, at) => decision(at + 2, `203.0.${at >> 8}.${at & 255}`)),
    });
    const effect = await effectOf(
      store,
      { scope: 'Range', value: '203.0.0.0/16', bouncers: null },
      clock.pause,
    );
    expect([effect.decisions, pauses >= 2]).toEqual([6_000, true]);
  }));

test('an entry that goes and comes again before all is judged holds for who got the full state in between', () =>
  inStorage(async (storage) => {
    const store = openStore(storage, settings);
    fill(store, 2 * sliceChanges);
    const entries = [entry(1, '198.18.0.0/15', null, ['web-*'])];
    const atRest = { now: () => Date.now(), pause: () => scheduler.wait(0) };
    await setAllowList(store, entries, atRest);
    const bouncer = client(store);
    expect(bouncer.has.size).toBe(0);
    let again: Promise<void> | undefined;
    const clock = {
      now: () => Date.now(),
      pause: async () => {
        if (again) return;
        bouncer.start(store);
        again = setAllowList(store, entries, atRest);
      },
    };
    await setAllowList(store, [], clock);
    await again;
    bouncer.poll(store);
    expect(bouncer.has.size).toBe(0);
  }));

test('many bans on an entry for many bouncers are one sync, and share one list of them', () =>
  inStorage(async (storage) => {
    const store = openStore(storage, settings);
    const clock = { now: () => Date.now(), pause: () => scheduler.wait(0) };
    const namesOf = (at: number) =>
      Array.from({ length: 30 }, (_, index) => `site-${at}-${index}.example.net`);
    const entries = [1, 2, 3].map((id) => entry(id, '198.18.0.0/15', null, namesOf(id)));
    await setAllowList(store, entries, clock);
    fill(store, 20_000);
    const listsIn = ({ mirror }: Store) => new Set([...mirror.byId.values()].map(({ withheld }) => withheld));
    expect([...listsIn(store)]).toEqual([expect.objectContaining({ length: 90 })]);
    expect(listsIn(openStore(storage, settings))).toEqual(listsIn(store));
  }));

const plain = ['poll', 'start', 'die', 'allow', 'allow for some', 'end'] as const;
type Step = { do: (typeof plain)[number] } | { do: 'add' | 'renew' | 'remove'; at: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constantFrom(...plain) }),
  fc.record({ do: fc.constantFrom('add' as const, 'renew' as const, 'remove' as const), at: fc.nat(9999) }),
);

test(
  'whatever happens in a pause, a crash as well: who polls on has what is served, and no more',
  () =>
    inStorage(async (storage) => {
      let nextId = 1;
      let store = openStore(storage, settings);
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.array(step, { minLength: 2, maxLength: 5 }), { minLength: 4, maxLength: 8 }),
          async (pauses) => {
            remove(store, [...store.mirror.byId.values()], Date.now());
            const first = nextId;
            nextId += 1_500;
            const ids = Array.from({ length: 1_500 }, (_, at) => first + at);
            sync(store, { add: ids.map((id) => decision(id, addressOf(id))) });
            const left = [...pauses];
            const bouncers = [client(store), client(store, 'vpn-1')];
            let entries = [entry(1, '198.18.0.0/15')];
            const changes: Promise<void>[] = [];
            const clock = {
              now: () => Date.now(),
              pause: async () => {
                for (const each of left.shift() ?? []) act(each);
                await scheduler.wait(0);
              },
            };
            const allow = (): void => void changes.push(setAllowList(store, entries, clock));
            const act = (each: Step): void => {
              const rows = [...store.mirror.byId.values()];
              const row = 'at' in each ? rows[each.at % rows.length] : undefined;
              if (each.do === 'poll') for (const bouncer of bouncers) bouncer.poll(store);
              else if (each.do === 'start') for (const bouncer of bouncers) bouncer.start(store);
              else if (each.do === 'add') {
                const id = nextId++;
                sync(store, { add: [decision(id, addressOf(id))] });
              } else if (each.do === 'renew' && row) {
                sync(store, { renew: [{ row, decision: { ...decision(nextId++, row.value) } }] });
              } else if (each.do === 'remove' && row) sync(store, { remove: [row] });
              else if (each.do === 'allow' || each.do === 'end') {
                entries = each.do === 'end' ? [] : [entry(2, '198.18.0.0/16')];
                allow();
              } else if (each.do === 'allow for some') {
                entries = [entry(3, '198.18.0.0/15', null, ['web-*'])];
                allow();
              } else if (each.do === 'die') {
                // What goes on in the one that died has nothing to judge any more.
                store.unjudged.pieces.splice(0);
                store = openStore(storage, settings);
                sweepAllowList(store, clock);
                allow();
              }
            };
            allow();
            for (let at = 0; at < changes.length; at++) await changes[at];
            await store.unjudged.judging;
            await setAllowList(store, entries, clock);
            for (const bouncer of bouncers) bouncer.poll(store);
            for (const row of store.mirror.byId.values()) {
              expect(row.withheld).toEqual(fromWhom(store.mirror.allowed, row));
            }
            // A start has the same.
            const { mirror } = openStore(storage, settings);
            for (const name of ['web-1', 'vpn-1']) {
              expect(servedBy(mirror, name)).toEqual(servedBy(store.mirror, name));
            }
            expect(store.mirror.patterns).toEqual(patternsOf(store.mirror.allowed));
          },
        ),
        { numRuns: 10 },
      );
    }),
  90_000,
);

test('a copy of the list without the table of what is withheld, as it was kept before there was one', () =>
  inStorage(async (storage) => {
    const clock = { now: () => Date.now(), pause: () => Promise.resolve() };
    const before = openStore(storage, settings);
    await setAllowList(before, [entry(1, '198.18.0.0/15')], clock);
    storage.sql.exec('DROP TABLE withheld');
    const store = openStore(storage, settings);
    fill(store, 3);
    sweepAllowList(store, clock);
    expect(servedBy(store.mirror)).toEqual([]);
    expect(servedBy(openStore(storage, settings).mirror)).toEqual([]);
  }));
