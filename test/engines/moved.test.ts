// An engine at another address is the same when it shows that it is; what another one in its place says ends nothing.
import { beforeEach, describe, expect, test } from 'vitest';
import { everything, limitsOf } from '../support/bouncer.ts';
import { startModelEngines, type ModelEngine } from '../support/model-engine.ts';
import { awakeFeed, both, down, hour, listed, reader, shown, sync, until, wake } from '../support/several.ts';

let b: ModelEngine;
/** Where nobody is at first. */
let c: ModelEngine;
let d: ModelEngine;
const moved = { default: 'a.example', paris: 'c.example' };
const three = ['198.51.100.1', '198.51.100.2', '198.51.100.3'];

beforeEach(() => {
  const engines = startModelEngines('a.example', 'b.example', 'c.example', 'd.example');
  ({ 'b.example': b, 'c.example': c, 'd.example': d } = engines);
  engines['a.example'].add({ value: '192.0.2.1', untilMs: until() });
});

async function rounds(count: number): Promise<void> {
  for (let round = 0; round < count; round++) await sync();
}

/** Ids that are gone already. */
function useUpIds(engine: ModelEngine, count: number): void {
  for (let n = 0; n < count; n++) engine.drop(engine.add({ value: '203.0.113.250', untilMs: until() }).id);
}

const values = () => Object.keys(shown());

describe('an engine at another address', () => {
  beforeEach(() => {
    for (const value of three) b.add({ value, untilMs: until() });
  });

  test('is the same, under the same ids', async () => {
    const before = await wake(both, async () => {
      await sync();
      return shown();
    });
    c.swap(b.swap());
    c.expire(1);
    await wake(moved, async () => {
      await sync();
      delete before['198.51.100.1'];
      expect(shown()).toEqual(before);
    });
  });

  test('keeps its name from a new engine that gets one which it had before', async () => {
    d.add({ value: '203.0.113.1', untilMs: until() });
    await wake(both, () => rounds(1));
    await wake({ default: 'a.example', lyon: 'b.example' }, () => rounds(1));
    c.fault = down;
    await wake({ default: 'a.example', paris: 'd.example', lyon: 'c.example' }, async () => {
      await rounds(2);
      const client = reader({ view: { ...everything, engines: ['lyon'] } });
      await client.pull(true);
      expect(client.banned()).toEqual(three);
    });
  });

  test('and under another name is a new one: what it says stands beside what it said', async () => {
    const limited = reader({ view: { ...everything, limits: limitsOf({ engines: ['paris'] }) } });
    await wake(both, async () => {
      await rounds(1);
      await limited.pull(true);
    });
    c.swap(b.swap());
    await wake({ default: 'a.example', rome: 'c.example' }, async () => {
      c.expire(1);
      await rounds(1);
      expect(listed().filter(({ value }) => value === '198.51.100.2')).toHaveLength(2);
      // Who reads the one before has what that left, and its operator can follow at leisure.
      await limited.pull(true);
      expect(limited.banned()).toEqual(three);
      limited.limit(limitsOf({ engines: ['rome'] }));
      await limited.pull(false);
      expect(limited.banned()).toEqual(['198.51.100.2', '198.51.100.3']);
    });
  });
});

describe('another engine in the place of one', () => {
  test.each([
    ['the same', 0],
    ['higher', 100],
  ])('ends nothing, its ids being %s', async (_, skip) => {
    // Both have had the same first pull.
    const pulled = { value: '203.0.113.1', origin: 'CAPI', untilMs: until() };
    b.add(pulled);
    c.add(pulled);
    for (const value of three) b.add({ value, untilMs: until() });
    useUpIds(c, skip);
    for (const value of ['203.0.113.2', '203.0.113.3']) c.add({ value, untilMs: until() });
    await wake(both, () => rounds(1));
    await wake(moved, async () => {
      await rounds(4);
      const all = ['192.0.2.1', ...three, '203.0.113.1', '203.0.113.2', '203.0.113.3'];
      expect(values().sort()).toEqual(all);
      c.expire(1);
      await sync();
      expect(values()).not.toContain('203.0.113.1');
    });
  });

  test('ends nothing by a deleted alert that is the first to be heard of it', async () => {
    for (const value of three) b.add({ value, untilMs: until() });
    useUpIds(c, 50);
    c.add({ value: '203.0.113.1', untilMs: until() });
    await wake(both, () => rounds(1));
    await wake(moved, async () => {
      await awakeFeed().syncAfter('paris', { effect: 'dropped', certain: true, tookMs: 10 });
      expect(values()).toEqual(expect.arrayContaining(three));
    });
  });

  test('ends nothing by what it pulls, nor shortens it', async () => {
    b.add({ value: '203.0.113.9', origin: 'lists', scenario: 'firehol', untilMs: until() });
    b.add({ value: '203.0.113.8', origin: 'CAPI', untilMs: until() });
    b.add({ value: '198.51.100.1', untilMs: until() });
    useUpIds(c, 50);
    c.add({ value: '203.0.113.9', origin: 'lists', scenario: 'tor', type: 'captcha', untilMs: until() });
    c.add({ value: '203.0.113.8', origin: 'CAPI', untilMs: Date.now() + 60_000 });
    await wake(both, () => rounds(1));
    await wake(moved, async () => {
      await rounds(4);
      const served = listed().map(({ value, type, untilMs }) => {
        return `${value} ${type} ${Math.round((untilMs - Date.now()) / 60_000)}m`;
      });
      expect(served).toEqual(expect.arrayContaining(['203.0.113.9 ban 60m', '203.0.113.8 ban 60m']));
    });
  });

  test('and the one before again: neither ends what the other said', async () => {
    for (const value of three) b.add({ value, untilMs: until() });
    useUpIds(c, 50);
    c.add({ value: '203.0.113.1', untilMs: until() });
    await wake(both, () => rounds(1));
    await wake(moved, async () => {
      await rounds(4);
      expect(values()).toHaveLength(5);
    });
    await wake(both, async () => {
      await rounds(4);
      expect(values()).toHaveLength(5);
      // The one before is known again, and ends what is its own.
      b.expire(1);
      await rounds(1);
      expect(values()).not.toContain('198.51.100.1');
    });
  });

  test('is not recognised by pulled decisions that an engine before it left behind', async () => {
    const pulled = ['203.0.113.7', '203.0.113.8', '203.0.113.9'];
    for (const value of pulled) b.add({ value, origin: 'CAPI', untilMs: until() });
    useUpIds(c, 50);
    c.add({ value: '198.51.100.1', untilMs: until() });
    useUpIds(d, 200);
    for (const value of pulled) d.add({ value, origin: 'CAPI', untilMs: until() + hour });
    await wake(both, () => rounds(1));
    await wake(moved, () => rounds(4));
    await wake({ default: 'a.example', paris: 'd.example' }, async () => {
      await rounds(3);
      expect(values()).toContain('198.51.100.1');
    });
  });
});
