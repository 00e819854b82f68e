// A filter over the networks of all active decisions, by which an isolate knows that nothing bans an address. It can only err
// towards asking the feed's object. A mistake here keeps a ban from a bouncer.
//
// It is a Bloom filter: a row sets eight bits, one in each word of a block of 256 (a split block filter, as in Parquet), so
// a test reads one place in memory. Removals leave their bits.

import type { Network } from '../formats/ip.ts';
import { addedSince, isActive, type Mirror } from './memory.ts';
import { networkOf } from './view.ts';
import { pause } from '../runtime/wait.ts';

/** Plain data: it crosses the object's RPC. */
export interface LookupFilter {
  /** It has every active row that was added up to this. */
  sequence: number;
  /** How many rows were put in. */
  rows: number;
  readonly words: Uint32Array;
  /** The prefix lengths of its networks. */
  readonly prefixes: { readonly v4: number[]; readonly v6: number[] };
}

/** At first 0.1 % of the tests of another network ask for nothing, and 0.5 % when it is full. A look-up makes one for each prefix length. */
const bitsPerRow = 16;
const leastBitsPerRow = 12;
/** A small feed may grow without a new filter. */
const leastRows = 10_000;
const blockWords = 8;
/** Odd numbers, one for each word of a block (Parquet's). */
const salts = [
  0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d, 0x705495c7, 0x2df1424b, 0x9efc4947, 0x5c6bfb31,
] as const;

/** An empty filter for so many rows and some more. */
export function createLookupFilter(rows: number): LookupFilter {
  const blocks = Math.ceil((Math.max(rows, leastRows) * bitsPerRow) / (32 * blockWords));
  return { sequence: 0, rows: 0, words: new Uint32Array(blocks * blockWords), prefixes: { v4: [], v6: [] } };
}

/** Whether too many tests ask for nothing, so that another one is better. */
export function isFull({ rows, words }: LookupFilter): boolean {
  return rows * leastBitsPerRow > words.length * 32;
}

/** Whether it is full, or a fifth of its rows went. */
export function isWorn(filter: LookupFilter, mirror: Mirror): boolean {
  return isFull(filter) || filter.rows - mirror.byId.size > filter.rows / 5;
}

/** Puts in up to `most` rows that were added since. Returns whether it is complete. `mirror` knows all changes since. */
export function extend(filter: LookupFilter, mirror: Mirror, most: number): boolean {
  if (filter.sequence >= mirror.sequence) return true;
  const rows = addedSince(mirror, filter.sequence, most);
  for (const row of rows) {
    const network = isActive(mirror, row) ? networkOf(row) : undefined;
    if (network) put(filter, network);
  }
  const last = rows.length < most ? undefined : rows.at(-1);
  filter.sequence = last ? last.addedSeq : mirror.sequence;
  return filter.sequence === mirror.sequence;
}

/** Rows that are put in in one turn: 1-3 ms. */
const sliceRows = 1_000;

/** A filter that is kept complete. Rows are put in in slices, so that others are answered meanwhile. */
export function createKeptFilter(mirror: Mirror): () => Promise<LookupFilter> {
  let kept: LookupFilter | null = null;
  return async () => {
    if (!kept || isWorn(kept, mirror)) kept = createLookupFilter(mirror.byId.size);
    const filter = kept;
    while (!extend(filter, mirror, sliceRows)) await pause();
    return filter;
  };
}

function put(filter: LookupFilter, { bytes, prefixBits }: Network): void {
  const { words } = filter;
  const lengths = bytes.length === 4 ? filter.prefixes.v4 : filter.prefixes.v6;
  if (!lengths.includes(prefixBits)) lengths.push(prefixBits);
  const hash = hashOf(wordsOf(bytes), prefixBits);
  const block = blockOf(words, hash);
  const choice = mix(hash);
  for (let at = 0; at < blockWords; at++) {
    words[block + at] = (words[block + at] as number) | bitOf(choice, at);
  }
  filter.rows++;
}

/** Whether a decision may cover all of a network. False: none does. */
export function mayCover({ words, prefixes }: LookupFilter, { bytes, prefixBits }: Network): boolean {
  const address = wordsOf(bytes);
  for (const length of bytes.length === 4 ? prefixes.v4 : prefixes.v6) {
    if (length <= prefixBits && has(words, hashOf(address, length))) return true;
  }
  return false;
}

function has(words: Uint32Array, hash: number): boolean {
  const block = blockOf(words, hash);
  const choice = mix(hash);
  for (let at = 0; at < blockWords; at++) {
    if (((words[block + at] as number) & bitOf(choice, at)) === 0) return false;
  }
  return true;
}

/** The first word of the block. */
function blockOf(words: Uint32Array, hash: number): number {
  return Math.floor(((hash >>> 0) / 2 ** 32) * (words.length / blockWords)) * blockWords;
}

/** The bit of a word. `choice`: mixed once more, so that the bits do not follow from the block. */
function bitOf(choice: number, at: number): number {
  return 1 << (Math.imul(choice, salts[at] as number) >>> 27);
}

/** An address as one or four numbers of 32 bits. */
function wordsOf(bytes: readonly number[]): number[] {
  const words = bytes.length === 4 ? [0] : [0, 0, 0, 0];
  bytes.forEach((byte, at) => {
    words[at >> 2] = ((words[at >> 2] as number) << 8) | byte;
  });
  return words;
}

/** Of the network of `prefixBits` around an address. */
function hashOf(address: readonly number[], prefixBits: number): number {
  let hash = address.length * 256 + prefixBits;
  for (let at = 0; at < address.length; at++) {
    const bits = Math.min(32, prefixBits - 32 * at);
    const network = bits > 0 ? (address[at] as number) & (-1 << (32 - bits)) : 0;
    hash = mix(hash ^ network);
  }
  return hash;
}

/** MurmurHash3's last step: each bit of the result depends on each bit. */
function mix(hash: number): number {
  let mixed = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
}
