// A map in buffers does what a Map does.
import { expect, test } from 'vitest';
import { createPackedMap, type PackedMap } from '../../src/runtime/packed-map.ts';

function numbersOf(map: PackedMap, entry: number): number[] {
  return Array.from({ length: map.countOf(entry) }, (_, at) => map.numberOf(entry, at));
}

function contentOf(map: PackedMap): Map<string, number[]> {
  return new Map(map.entries().map((entry) => [map.keyOf(entry), numbersOf(map, entry)]));
}

test('has what a Map has, whatever was set and deleted in whatever order', () => {
  const map = createPackedMap();
  const model = new Map<string, number[]>();
  let state = 1;
  const random = (below: number): number => {
    state = Math.imul(state, 1_103_515_245) + 12_345;
    return (state >>> 8) % below;
  };
  for (let step = 0; step < 50_000; step++) {
    const key = 'x'.repeat(random(20)) + random(300);
    if (random(3) > 0) {
      const numbers = Array.from({ length: random(12) }, () => random(1_000) - 500.5);
      map.set(key, numbers);
      model.set(key, numbers);
    } else {
      const entry = map.find(key);
      expect(entry !== undefined).toBe(model.delete(key));
      if (entry !== undefined) map.delete(entry);
    }
    expect(map.size()).toBe(model.size);
  }
  expect(contentOf(map)).toEqual(model);
});

test('keeps 300,000 keys apart, some of which have one hash', () => {
  const map = createPackedMap();
  for (let at = 0; at < 300_000; at++) map.set(`2001:db8::${at.toString(16)}`, [at, Date.now(), -1]);
  expect(map.size()).toBe(300_000);
  for (let at = 0; at < 300_000; at++) {
    const entry = map.find(`2001:db8::${at.toString(16)}`) as number;
    if (map.numberOf(entry, 0) !== at) throw new Error(`${at} has the numbers of another`);
  }
  expect(map.find('2001:db8::')).toBeUndefined();
});

test('an entry keeps its number while its numbers change', () => {
  const map = createPackedMap();
  map.set('other', [1]);
  const entry = map.set('one', [1, 2]);
  expect(map.set('one', [3, 4, 5, 6])).toBe(entry);
  map.setNumber(entry, 1, 1e15);
  expect(numbersOf(map, entry)).toEqual([3, 1e15, 5, 6]);
  expect(map.numberOf(entry, 3)).toBe(6);
  expect(map.keyOf(entry)).toBe('one');
});
