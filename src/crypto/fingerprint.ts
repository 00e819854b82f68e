// By what an isolate recognises a key that it has seen before: SipHash-2-4 with 128 bits, under a key that is made here and
// never leaves this isolate's memory. Who does not know that can find no text of a given fingerprint, nor two texts of
// one. SHA-512 would do as well, and takes five times as long.

/** v0 to v3 of SipHash, each as its lower and its upper 32 bits. */
const state = new Int32Array(8);
const v0 = 0;
const v1 = 2;
const v2 = 4;
const v3 = 6;

/** "somepseudorandomlygeneratedbytes", as SipHash has it. */
const initial = [
  0x70736575, 0x736f6d65, 0x6e646f6d, 0x646f7261, 0x6e657261, 0x6c796765, 0x79746573, 0x74656462,
];

/** `key`: four numbers of 32 bits, the lowest first. */
export function createFingerprint(key: Int32Array): (secret: string) => string {
  const beginning = new Int32Array(initial.map((number, at) => number ^ (key[at % 4] as number)));
  beginning[v1] = (beginning[v1] as number) ^ 0xee;

  return (secret) => {
    state.set(beginning);
    let start = 0;
    for (; start + 4 <= secret.length; start += 4) take(pairAt(secret, start), pairAt(secret, start + 2));
    // The last word has the number of bytes in its highest one.
    take(pairAt(secret, start), pairAt(secret, start + 2) | ((2 * secret.length) << 24));
    const half = finish(v2, 0xee);
    return half + finish(v1, 0xdd);
  };
}

/** Two letters as 32 bits; 0 in place of one that is missing. */
function pairAt(text: string, at: number): number {
  return text.charCodeAt(at) | (text.charCodeAt(at + 1) << 16);
}

function take(low: number, high: number): void {
  mixIn(v3, low, high);
  round();
  round();
  mixIn(v0, low, high);
}

const at = (index: number): number => state[index] as number;

/** 64 bits of the result, as four letters. */
function finish(word: number, mark: number): string {
  mixIn(word, mark, 0);
  for (let rounds = 0; rounds < 4; rounds++) round();
  const low = at(v0) ^ at(v1) ^ at(v2) ^ at(v3);
  const high = at(v0 + 1) ^ at(v1 + 1) ^ at(v2 + 1) ^ at(v3 + 1);
  return String.fromCharCode(low & 0xffff, low >>> 16, high & 0xffff, high >>> 16);
}

function round(): void {
  add(v0, v1);
  rotate(v1, 13, v0);
  swap(v0);
  add(v2, v3);
  rotate(v3, 16, v2);
  add(v0, v3);
  rotate(v3, 21, v0);
  add(v2, v1);
  rotate(v1, 17, v2);
  swap(v2);
}

function add(word: number, other: number): void {
  const low = (at(word) >>> 0) + (at(other) >>> 0);
  state[word] = low;
  state[word + 1] = at(word + 1) + at(other + 1) + (low > 0xffffffff ? 1 : 0);
}

/** To the left by less than 32 bits; then `other` is mixed in. */
function rotate(word: number, bits: number, other: number): void {
  const low = at(word);
  const high = at(word + 1);
  state[word] = ((low << bits) | (high >>> (32 - bits))) ^ at(other);
  state[word + 1] = ((high << bits) | (low >>> (32 - bits))) ^ at(other + 1);
}

/** To the left by 32 bits. */
function swap(word: number): void {
  const low = at(word);
  state[word] = at(word + 1);
  state[word + 1] = low;
}

function mixIn(word: number, low: number, high: number): void {
  state[word] = at(word) ^ low;
  state[word + 1] = at(word + 1) ^ high;
}

let ofThisIsolate: ((secret: string) => string) | undefined;

/** Its fingerprint in this isolate. The runtime has no random numbers before the first request. */
export function fingerprintOf(secret: string): string {
  ofThisIsolate ??= createFingerprint(crypto.getRandomValues(new Int32Array(4)));
  return ofThisIsolate(secret);
}
