// What an isolate remembers: bounded, and never forgotten whole.
import { describe, expect, test } from 'vitest';
import { createGenerations } from '../../src/runtime/generations.ts';
import type { Decision } from '../../src/formats/decision.ts';
import { isQuiet, learn, recall, remember, takeSightings } from '../../src/feed/fast-path.ts';

describe('two generations', () => {
  test('keep what is read again and again, and forget the rest', () => {
    const memory = createGenerations<number>(100);
    memory.set('kept', 1);
    for (let at = 0; at < 10_000; at++) {
      memory.set(`${at}`, at);
      if (at % 50 === 0) expect(memory.get('kept')).toBe(1);
    }
    expect(memory.get('9999')).toBe(9999);
    expect(memory.get('5000')).toBeUndefined();
    expect(memory.values().length).toBeLessThanOrEqual(200);
  });

  test('as many as one generation holds are all kept, however often each is set', () => {
    const memory = createGenerations<number>(100);
    for (let round = 0; round < 10; round++) {
      for (let at = 0; at < 100; at++) memory.set(`${at}`, round);
    }
    expect(memory.values()).toEqual(Array.from({ length: 100 }, () => 9));
  });

  test('are bounded by weight; what weighs more than all of it is not kept', () => {
    const memory = createGenerations<string>(1000, (_, text) => text.length);
    for (let at = 0; at < 100; at++) memory.set(`${at}`, 'x'.repeat(100));
    expect(memory.values().join('').length).toBeLessThanOrEqual(2000);
    memory.set('99', 'x'.repeat(1001));
    expect(memory.get('99')).toBeUndefined();
  });

  test('forget what is told, in whichever of them it is', () => {
    const memory = createGenerations<number>(2);
    for (const key of ['a', 'b', 'c', 'd']) memory.set(key, 1);
    for (const key of ['a', 'd']) memory.delete(key);
    expect(memory.values()).toHaveLength(2);
    memory.clear();
    expect(memory.values()).toEqual([]);
  });
});

describe('the fast path', () => {
  /** Later than in any other test: the newest head that was seen counts. */
  let nowMs = Date.now();
  let sequence = 0;
  const poll = (address: string) => {
    return { bouncerId: 1, versionId: 1, address, seenMs: nowMs, userAgent: 'test/1' };
  };
  const addresses = Array.from({ length: 150_000 }, (_, at) => `2001:db8::${at.toString(16)}`);
  const decisions = Array.from({ length: 200 }, (_, id): Decision => {
    const texts = { origin: 'cscli', scenario: 'test', scope: 'Ip', type: 'ban', value: `2001:db8::${id}` };
    return { id, ...texts, untilMs: 0 };
  });

  test('answers 150,000 clients by itself once each is known to be owed nothing', () => {
    nowMs += 10_000;
    sequence++;
    for (const address of addresses) learn(poll(address), 'a view', sequence, true);
    expect(addresses.filter((address) => !isQuiet(poll(address), 'a view'))).toEqual([]);
    expect(isQuiet(poll('2001:db8::1'), 'another view')).toBe(false);
  });

  test('reports more polls than it answers in the second between two reports', () => {
    nowMs += 10_000;
    sequence++;
    takeSightings();
    const some = addresses.slice(0, 10_000);
    for (const address of some) learn(poll(address), 'a view', sequence, true);
    for (const address of some) isQuiet(poll(address), 'a view');
    expect(takeSightings()).toHaveLength(10_000);
    expect(takeSightings()).toEqual([]);
  });

  test('keeps look-ups by their size', () => {
    nowMs += 10_000;
    sequence++;
    const names = Array.from({ length: 4000 }, (_, at) => `look-up ${at}`);
    for (const name of names) remember(name, sequence, decisions, poll('192.0.2.1'));
    const kept = names.filter((name) => recall(name, poll('192.0.2.1')));
    expect(kept.length).toBeGreaterThan(10);
    expect(kept.length * decisions.length).toBeLessThan(100_000);
    const huge = `value=${'x'.repeat(12_000)}`;
    remember(huge, sequence, [], poll('192.0.2.1'));
    expect(recall(huge, poll('192.0.2.1'))).toBeUndefined();
  });

  test('drops look-ups when the feed has moved', () => {
    nowMs += 10_000;
    sequence++;
    remember('one', sequence, [], poll('192.0.2.1'));
    expect(recall('one', poll('192.0.2.1'))).toEqual([]);
    learn(poll('192.0.2.1'), 'a view', sequence + 1, true);
    learn(poll('192.0.2.1'), 'a view', sequence, true);
    expect(recall('one', poll('192.0.2.1'))).toBeUndefined();
  });
});
