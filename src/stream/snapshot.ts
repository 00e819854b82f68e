// An answer as bytes. The body is made while it is sent, in slices: `new Response(bytes)` copies, and a few
// 12 MB start-ups at once took gigabytes. Gzip is made once per answer and kept for the others that ask.
// An error in mid-body cuts the connection; it never ends a list early.

import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { concat } from '../formats/bytes.ts';
import { encodeDecision } from '../formats/lapi-json.ts';
import type { Answer } from './answer.ts';
import type { Decision, Row } from '../formats/decision.ts';
import type { Owed, Turn } from './owed.ts';

/** Below this a body is one string: compressing it or streaming it would cost more than it saves. */
export const smallAnswerRows = 200;

const sliceBytes = 256 * 1024;
const gzipKeptMs = 5_000;
const gzipKeptBytes = 24 * 1024 * 1024;

/** When an active row ends (`endOf` in mirror.ts). */
type EndOf = (row: Row) => number;

/** The stream route's body, in slices of about 256 KB. Durations are what is left at `asOfMs`. */
function* renderStream(answer: Answer, asOfMs: number, endOf: EndOf): Generator<string> {
  let slice = '{"new": [';
  let separator = '';
  for (const row of byId(answer.added)) {
    const seconds = Math.floor((endOf(row) - asOfMs) / 1000);
    // Nothing that ends within the second: `0s` is a permanent ban to lua, nftables and ipset.
    if (seconds < 1) continue;
    slice += separator + encodeDecision(row, seconds, true);
    separator = ',';
    if (slice.length >= sliceBytes) {
      yield slice;
      slice = '';
    }
  }
  slice += '], "deleted": [';
  separator = '';
  for (const row of byId(answer.ended)) {
    slice += separator + encodeDecision(row, -secondsSinceEnd(row, asOfMs), true);
    separator = ',';
    if (slice.length >= sliceBytes) {
      yield slice;
      slice = '';
    }
  }
  yield `${slice}]}`;
}

/** In LAPI's order since 1.5. Rows came in nearly so, and sorting what is nearly sorted costs little more than a look. */
function byId(rows: readonly Row[]): Row[] {
  return rows.toSorted((a, b) => a.id - b.id);
}

/** The list route's body: a bare array, or the four bytes `null`. */
export function* renderList<T extends Decision>(
  decisions: readonly T[],
  nowMs: number,
  endOf: (decision: T) => number = ({ untilMs }) => untilMs,
): Generator<string> {
  let slice = '[';
  let separator = '';
  for (const decision of decisions) {
    const seconds = Math.floor((endOf(decision) - nowMs) / 1000);
    if (seconds < 1) continue;
    slice += separator + encodeDecision(decision, seconds, false);
    separator = ',';
    if (slice.length >= sliceBytes) {
      yield slice;
      slice = '';
    }
  }
  // fbtraefik and thespad ban whoever gets `[]`, nginx Lua answers 500: no decision is `null`, nothing else.
  yield separator === '' ? 'null' : `${slice}]`;
}

/** 0 for a decision that only fell out of the bouncer's view. */
function secondsSinceEnd(row: Row, asOfMs: number): number {
  if (row.removedSeq === 0) return 0;
  return Math.max(0, Math.floor((asOfMs - Math.min(row.untilMs, row.removedMs)) / 1000));
}

/** Slices as a byte stream. `onCancel`: the client left before the end. */
export function streamOf(
  slices: Iterable<string | Uint8Array>,
  onCancel?: () => void,
): ReadableStream<Uint8Array> {
  const iterator = slices[Symbol.iterator]();
  const encoder = new TextEncoder();
  return new ReadableStream({
    type: 'bytes',
    pull(controller) {
      const { done, value } = iterator.next();
      if (done) controller.close();
      // A byte stream takes the buffer away from whoever enqueues it: kept slices are sent as copies.
      else controller.enqueue(typeof value === 'string' ? encoder.encode(value) : value.slice());
    },
    cancel() {
      onCancel?.();
    },
  });
}

export interface Kept {
  readonly sequence: number;
  readonly untilMs: number;
  readonly slices: Promise<Uint8Array[]>;
  readonly owed: readonly Owed[];
  bytes: number;
}

/** Gzipped answers by what was asked (view and start). Bounded in age and in bytes. */
export type GzipCache = Map<string, Kept>;

export interface Rendering {
  /** Equal for equal answers (`nameOf` in poll.ts). */
  readonly name: string;
  /** Whether the client takes it. */
  readonly gzip: boolean;
  readonly nowMs: number;
  readonly endOf: EndOf;
}

/** The body of an answer, made now or kept from an earlier one; `gzip`: whether it is compressed. */
export async function bodyOf(
  cache: GzipCache,
  turn: Turn | Kept,
  { name, gzip, nowMs, endOf }: Rendering,
  onCancel: () => void,
): Promise<{ body: ReadableStream<Uint8Array> | string; gzip: boolean }> {
  if ('slices' in turn) return { body: streamOf(await turn.slices, onCancel), gzip: true };
  const { answer } = turn;
  if (answer.added.length + answer.ended.length <= smallAnswerRows) {
    return { body: [...renderStream(answer, nowMs, endOf)].join(''), gzip: false };
  }
  if (!gzip) return { body: streamOf(renderStream(answer, nowMs, endOf), onCancel), gzip: false };
  const { slices } = gzipped(cache, name, turn, nowMs, endOf);
  return { body: streamOf(await slices, onCancel), gzip: true };
}

/** The answer of this name that was gzipped, while it is true: until the feed moves or 5 s have passed. */
export function keptAnswer(
  cache: GzipCache,
  name: string,
  nowMs: number,
  sequence: number,
): Kept | undefined {
  for (const [other, kept] of cache) {
    if (kept.untilMs <= nowMs || kept.sequence !== sequence) cache.delete(other);
  }
  return cache.get(name);
}

/**
 * The answer gzipped, for all that ask for the same. Durations are those at the end of the time that it is kept, so none
 * is ever longer than the truth.
 */
function gzipped(cache: GzipCache, name: string, { answer, owed }: Turn, nowMs: number, endOf: EndOf): Kept {
  const earliestEndMs = answer.added.reduce((least, row) => {
    const endMs = endOf(row);
    return endMs - nowMs >= 1000 && endMs < least ? endMs : least;
  }, Infinity);
  const untilMs = Math.min(nowMs + gzipKeptMs, earliestEndMs - 1000);
  const slices = gzip(renderStream(answer, untilMs, endOf)).then((made) => {
    kept.bytes = made.reduce((sum, slice) => sum + slice.length, 0);
    let total = 0;
    for (const other of cache.values()) total += other.bytes;
    if (total > gzipKeptBytes) cache.delete(name);
    return made;
  });
  const kept: Kept = { sequence: answer.sequence, untilMs, slices, owed, bytes: 0 };
  cache.set(name, kept);
  return kept;
}

/**
 * Level 1: on a list of decisions a third of the time of the default level, and a tenth more bytes. The whole body
 * is never in memory.
 */
async function gzip(slices: Iterable<string>): Promise<Uint8Array[]> {
  const compressor = createGzip({ level: 1, chunkSize: sliceBytes });
  const parts: Uint8Array[] = [];
  compressor.on('data', (part: Uint8Array) => parts.push(part));
  await pipeline(slices, compressor);
  return joined(parts);
}

/** Few large slices out of many small ones: each costs a turn of the event loop when it is sent. */
function joined(parts: readonly Uint8Array[]): Uint8Array[] {
  const slices: Uint8Array[] = [];
  let group: Uint8Array[] = [];
  let size = 0;
  for (const part of parts) {
    group.push(part);
    size += part.length;
    if (size >= sliceBytes) {
      slices.push(concat(group));
      group = [];
      size = 0;
    }
  }
  if (size > 0) slices.push(concat(group));
  return slices;
}
