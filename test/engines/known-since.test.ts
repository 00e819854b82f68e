// What the allow-list does to a decision says nothing of its engine: the decision was there before.
import { runInDurableObject } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { expect, test } from 'vitest';
import { readSettings } from '../../src/config/settings.ts';
import { createPlanner, type RoundStart } from '../../src/engines/plan.ts';
import type { Decision } from '../../src/formats/decision.ts';
import { setAllowList } from '../../src/mirror/allow-list.ts';
import { expired } from '../../src/mirror/memory.ts';
import { openStore, type Store } from '../../src/mirror/mirror.ts';
import { commitSync } from '../../src/mirror/sync.ts';
import { changesSince } from '../../src/stream/delta.ts';
import { everything, feed } from '../support/bouncer.ts';

const settings = readSettings({ ...env });
const clock = { now: () => Date.now(), pause: () => Promise.resolve() };
const untilMs = Date.now() + 3_600_000;
const decision = (id: number, value = `192.0.2.${id}`, origin = 'crowdsec'): Decision => {
  return { id, origin, scenario: 'test', scope: 'Ip', type: 'ban', value, untilMs };
};
const ids = (decisions: readonly { engineId?: number; id: number }[]) =>
  decisions.map(({ engineId, id }) => engineId ?? id);

const inStorage = (work: (storage: DurableObjectStorage) => Promise<void>) =>
  runInDurableObject(feed(), (_, { storage }) => work(storage));

function commit(store: Store, plan: Partial<Parameters<typeof commitSync>[1]>): void {
  const [engine] = store.engines.keys();
  const none = { url: 'http://engine.example', held: null, add: [], renew: [], remove: [], orphan: [] };
  const progress = (state: { progress: never }) => state.progress;
  commitSync(store, { ...none, engine, progress, ...plan } as never, Date.now());
}

function filled(storage: DurableObjectStorage, decisions: readonly Decision[]): Store {
  const store = openStore(storage, settings);
  commit(store, { add: decisions as never });
  return store;
}

/** Withholds all decisions on 192.0.2.0/24. */
const withhold = (store: Store) =>
  setAllowList(store, [{ id: 1, value: '192.0.2.0/24', expiresMs: null }], clock);
const serveAgain = (store: Store) => setAllowList(store, [], clock);

function fullList(store: Store, start: Partial<RoundStart> = {}) {
  const [engine] = store.engines.keys();
  const { sequence } = store.mirror;
  return createPlanner(store.mirror, {
    kind: 'full',
    engine: engine as string,
    moved: false,
    numbered: false,
    sequence,
    trusted: { sequence, highestId: 10 },
    held: new Set(),
    policy: 'confirm',
    most: 100,
    ...start,
  });
}

const ten = Array.from({ length: 10 }, (_, at) => decision(at + 1));

test('a decision whose entry ends after a step of the clock is held as the others are', () =>
  inStorage(async (storage) => {
    const store = filled(storage, ten);
    await withhold(store);
    const [engine] = store.engines.keys();
    store.mirror.holds.set(engine as string, { sequence: store.mirror.sequence, untilMs: untilMs + 60_000 });
    await serveAgain(store);
    expect(expired(store.mirror, untilMs + 1)).toEqual([]);
    expect(expired(store.mirror, untilMs + 60_000)).toHaveLength(10);
  }));

test('a hard delete shows in a full list during which the allow-list changed', () =>
  inStorage(async (storage) => {
    const store = filled(storage, ten);
    const planner = fullList(store);
    await withhold(store);
    for (const each of ten.slice(1)) planner.take('new', each);
    expect(ids(planner.finish(Date.now()).remove)).toEqual([1]);
  }));

test('a decision is no older pull than one that the allow-list had served again meanwhile', () =>
  inStorage(async (storage) => {
    const store = filled(storage, [...ten, decision(50, '192.0.2.50', 'CAPI')]);
    await withhold(store);
    const planner = fullList(store);
    await serveAgain(store);
    for (const each of [...ten, decision(40, '192.0.2.50', 'CAPI')]) planner.take('new', each);
    const plan = planner.finish(Date.now());
    expect([ids(plan.add), ids(plan.remove)]).toEqual([[40], [50]]);
  }));

test.each(['withheld', 'served again'])(
  'a hard delete after all decisions were %s shows after a restart',
  (how) =>
    inStorage(async (storage) => {
      const before = filled(storage, ten);
      if (how === 'served again') await withhold(before);
      const trusted = { sequence: before.mirror.sequence, highestId: 10 };
      await (how === 'withheld' ? withhold(before) : serveAgain(before));
      const store = openStore(storage, settings);
      const planner = fullList(store, { trusted });
      for (const each of ten.slice(1)) planner.take('new', each);
      const plan = planner.finish(Date.now());
      expect([ids(plan.remove), ids(plan.orphan), plan.warning]).toEqual([[1], [], undefined]);
      const { sequence } = store.mirror;
      commit(store, plan as never);
      // Who has it is told, and to who was told when it was withheld it does not come back.
      const ended = ids(changesSince(store.mirror, everything, sequence).removed);
      if (how === 'served again') expect(ended).toEqual([1]);
      if (how === 'withheld') await serveAgain(store);
      const served = changesSince(store.mirror, everything, how === 'withheld' ? sequence : trusted.sequence);
      expect(ids(served.added).sort((a, b) => a - b)).toEqual([2, 3, 4, 5, 6, 7, 8, 9, 10]);
      expect([...store.mirror.byId.values()].some(({ value }) => value === '192.0.2.1')).toBe(false);
    }),
);

test('decisions of another database prove nothing, though the allow-list withheld their like', () =>
  inStorage(async (storage) => {
    const before = filled(storage, ten);
    const trusted = { sequence: before.mirror.sequence, highestId: 10 };
    await withhold(before);
    const store = openStore(storage, settings);
    const planner = fullList(store, { trusted });
    planner.take('new', { ...decision(2), scenario: 'other' });
    const plan = planner.finish(Date.now());
    expect(plan.remove).toEqual([]);
    expect(plan.warning).toMatch(/another database/);
  }));
