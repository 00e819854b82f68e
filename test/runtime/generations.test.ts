// What an isolate remembers: bounded, and never forgotten whole.
import { describe, expect, test } from 'vitest';
import { createGenerations } from '../../src/runtime/generations.ts';

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
