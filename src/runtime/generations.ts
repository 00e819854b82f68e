// A bounded memory that never forgets everything at once: when it is full, what was neither written nor read for
// longest goes, about a half of it. Clearing it whole would send all who are remembered to whoever is asked instead,
// at the same moment, and with a few more of them than fit again and again.

export interface Generations<Value> {
  get(key: string): Value | undefined;
  set(key: string, value: Value): void;
  delete(key: string): void;
  clear(): void;
  values(): Value[];
}

/**
 * `most`: what the young generation holds; as much is kept of the one before it. `weigh`: what an entry counts for, 1
 * unless told; one that is more than `most` is not kept.
 */
export function createGenerations<Value>(
  most: number,
  weigh: (key: string, value: Value) => number = () => 1,
): Generations<Value> {
  let young = new Map<string, Value>();
  let old = new Map<string, Value>();
  let weight = 0;

  const remove = (key: string): void => {
    const value = young.get(key);
    if (value !== undefined) weight -= weigh(key, value);
    young.delete(key);
    old.delete(key);
  };
  const set = (key: string, value: Value): void => {
    remove(key);
    const own = weigh(key, value);
    if (own > most) return;
    if (weight + own > most) [old, young, weight] = [young, new Map<string, Value>(), 0];
    young.set(key, value);
    weight += own;
  };

  return {
    get(key) {
      const value = young.get(key);
      if (value !== undefined) return value;
      const aged = old.get(key);
      if (aged !== undefined) set(key, aged);
      return aged;
    },
    set,
    delete: remove,
    clear() {
      [old, young, weight] = [new Map<string, Value>(), new Map<string, Value>(), 0];
    },
    values: () => [...old.values(), ...young.values()],
  };
}
