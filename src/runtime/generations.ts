// A bounded memory that never forgets everything at once. When it is full, it forgets the half that was neither written nor
// read for longest. If it forgot all, all would be looked up anew at the same moment, again and again where a few more are
// remembered than fit.

export type Generations<Value> = ReturnType<typeof createGenerations<Value>>;

/** What a generation needs of a Map. */
export interface Entries<Value> {
  get(key: string): Value | undefined;
  set(key: string, value: Value): unknown;
  delete(key: string): unknown;
  values(): Iterable<Value>;
}

/**
 * `most`: the weight of the young generation; the old one is kept besides. `weigh`: an entry's weight, 1 by default. An
 * entry heavier than `most` is not kept. `createEntries`: makes a generation, a Map by default.
 */
export function createGenerations<Value>(
  most: number,
  weigh: (key: string, value: Value) => number = () => 1,
  createEntries: () => Entries<Value> = () => new Map<string, Value>(),
) {
  let young = createEntries();
  let old = createEntries();
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
    if (weight + own > most) [old, young, weight] = [young, createEntries(), 0];
    young.set(key, value);
    weight += own;
  };

  return {
    get(key: string): Value | undefined {
      const value = young.get(key);
      if (value !== undefined) return value;
      const aged = old.get(key);
      if (aged !== undefined) set(key, aged);
      return aged;
    },
    set,
    delete: remove,
    clear(): void {
      [old, young, weight] = [createEntries(), createEntries(), 0];
    },
    values: (): Value[] => [...old.values(), ...young.values()],
  };
}
