// A map of short texts to a few numbers each, in buffers of 16,384 numbers. To collect garbage V8 looks at every object, and
// all requests wait for it: a Map of 200,000 clients would be two million of them, and this one is some thousand.

/** `entry`: a number that an entry of the map has as long as it is there. It is never 0. */
export type PackedMap = ReturnType<typeof createPackedMap>;

const chunkBits = 14;
const chunkLength = 1 << chunkBits;

/**
 * Memory in blocks. A block is known by the place of its first number, which is never 0; its others follow. What is given
 * back is taken again by blocks of the same size in steps. All memory goes when nothing refers to it any more.
 */
function createBlocks(createChunk: () => Uint8Array | Uint32Array | Float64Array, step: number) {
  type Chunk = ReturnType<typeof createChunk>;
  // Memory that grew in one piece would be copied while all wait.
  const chunks: Chunk[] = [];
  const free: number[][] = [];
  let end = step;

  const roundUp = (length: number, to: number): number => Math.ceil(length / to) * to;
  const chunkOf = (place: number): Chunk => chunks[place >> chunkBits] as Chunk;

  return {
    get: (place: number): number => chunkOf(place)[place & (chunkLength - 1)] as number,
    set(place: number, value: number): void {
      chunkOf(place)[place & (chunkLength - 1)] = value;
    },
    take(length: number): number {
      const size = roundUp(length, step);
      const given = free[size]?.pop();
      if (given !== undefined) return given;
      if ((end % chunkLength) + size > chunkLength) end = roundUp(end, chunkLength);
      const place = end;
      end += size;
      chunks[place >> chunkBits] ??= createChunk();
      return place;
    },
    give(place: number, length: number): void {
      (free[roundUp(length, step)] ??= []).push(place);
    },
  };
}

/** The block of an entry has these. */
const hashAt = 0;
/** The next entry of its slot; 0: there is none. */
const nextAt = 1;
const keyAt = 2;
const lettersAt = 3;
const numbersAt = 4;
const countAt = 5;
const entryLength = 6;

/** Of each letter of a key the low eight bits count. */
export function createPackedMap() {
  const entries = createBlocks(() => new Uint32Array(chunkLength), entryLength);
  const keys = createBlocks(() => new Uint8Array(chunkLength), 8);
  const numbers = createBlocks(() => new Float64Array(chunkLength), 1);
  /**
   * The first entry of each slot, from 1 on; 0: there is none. There are as many slots as entries. A hash has the slot of
   * its low bits, one bit more than make `whole` slots, or one bit less where that slot is still to come (linear hashing).
   */
  const slots = createBlocks(() => new Uint32Array(chunkLength), 1);
  let slotCount = slots.take(1);
  let whole = 1;
  let size = 0;
  /** Chosen anew for the first key, so that no client knows of keys with the same hash. */
  let seed = 0;

  const byteOf = (key: string, at: number): number => key.charCodeAt(at) & 0xff;
  const hashOf = (key: string): number => {
    let hash = seed;
    for (let at = 0; at < key.length; at++) hash = Math.imul(hash ^ byteOf(key, at), 0x01000193);
    return (hash ^ (hash >>> 15)) >>> 0;
  };
  const slotOf = (hash: number): number => {
    const slot = 1 + (hash & (2 * whole - 1));
    return slot <= slotCount ? slot : slot - whole;
  };

  const isOf = (entry: number, key: string): boolean => {
    if (entries.get(entry + lettersAt) !== key.length) return false;
    const start = entries.get(entry + keyAt);
    for (let at = 0; at < key.length; at++) if (keys.get(start + at) !== byteOf(key, at)) return false;
    return true;
  };
  const find = (key: string, hash = hashOf(key)): number | undefined => {
    let entry = slots.get(slotOf(hash));
    while (entry !== 0 && !isOf(entry, key)) entry = entries.get(entry + nextAt);
    return entry === 0 ? undefined : entry;
  };
  const link = (entry: number): void => {
    const slot = slotOf(entries.get(entry + hashAt));
    entries.set(entry + nextAt, slots.get(slot));
    slots.set(slot, entry);
  };
  const unlink = (entry: number): void => {
    const slot = slotOf(entries.get(entry + hashAt));
    const next = entries.get(entry + nextAt);
    let before = slots.get(slot);
    if (before === entry) return slots.set(slot, next);
    while (entries.get(before + nextAt) !== entry) before = entries.get(before + nextAt);
    entries.set(before + nextAt, next);
  };
  /** Parts the entries of one slot between it and a new one. All at once, in twice as many slots, would take too long. */
  const addSlot = (): void => {
    slotCount = slots.take(1);
    const parted = slotCount - whole;
    let entry = slots.get(parted);
    slots.set(parted, 0);
    if (slotCount === 2 * whole) whole = slotCount;
    while (entry !== 0) {
      const next = entries.get(entry + nextAt);
      link(entry);
      entry = next;
    }
  };
  const addEntry = (key: string, hash: number): number => {
    if (++size > slotCount) addSlot();
    const entry = entries.take(entryLength);
    const start = keys.take(key.length);
    for (let at = 0; at < key.length; at++) keys.set(start + at, byteOf(key, at));
    entries.set(entry + hashAt, hash);
    entries.set(entry + keyAt, start);
    entries.set(entry + lettersAt, key.length);
    link(entry);
    return entry;
  };
  const giveNumbers = (entry: number): void => {
    numbers.give(entries.get(entry + numbersAt), entries.get(entry + countAt));
  };

  return {
    find: (key: string) => find(key),

    /** The entry of a key, with these numbers from now on. */
    set(key: string, values: readonly number[]): number {
      if (size === 0) seed = Math.floor(Math.random() * 2 ** 32);
      const hash = hashOf(key);
      const known = find(key, hash);
      if (known !== undefined) giveNumbers(known);
      const entry = known ?? addEntry(key, hash);
      const start = numbers.take(values.length);
      for (let at = 0; at < values.length; at++) numbers.set(start + at, values[at] as number);
      entries.set(entry + numbersAt, start);
      entries.set(entry + countAt, values.length);
      return entry;
    },

    delete(entry: number): void {
      unlink(entry);
      giveNumbers(entry);
      keys.give(entries.get(entry + keyAt), entries.get(entry + lettersAt));
      entries.give(entry, entryLength);
      size--;
    },

    keyOf(entry: number): string {
      const start = entries.get(entry + keyAt);
      const letters: number[] = [];
      const end = start + entries.get(entry + lettersAt);
      for (let at = start; at < end; at++) letters.push(keys.get(at));
      return String.fromCharCode(...letters);
    },

    /** How many numbers it has. */
    countOf: (entry: number): number => entries.get(entry + countAt),

    numberOf: (entry: number, at: number): number => numbers.get(entries.get(entry + numbersAt) + at),

    setNumber(entry: number, at: number, value: number): void {
      numbers.set(entries.get(entry + numbersAt) + at, value);
    },

    size: (): number => size,

    /** All entries. They lie anywhere in memory, which takes its time. */
    entries(): number[] {
      const all: number[] = [];
      for (let slot = 1; slot <= slotCount; slot++) {
        for (let entry = slots.get(slot); entry !== 0; entry = entries.get(entry + nextAt)) all.push(entry);
      }
      return all;
    },
  };
}
