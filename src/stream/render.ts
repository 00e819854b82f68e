// Renders answers as bytes. A body is made in slices while it is sent: `new Response(bytes)` copies, and a few start-ups
// of 12 MB at once took gigabytes. A gzipped answer is kept for a moment for others that ask the same. An error in
// mid-body cuts the connection; it never ends a list early.

import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { concat } from '../formats/bytes.ts';
import { emptyList, encodeDecision } from '../formats/lapi-json.ts';
import type { Decision, Row } from '../formats/decision.ts';
import type { PendingRemoval } from './cursor.ts';
import type { Answer, Delivery } from './delta.ts';

/** Up to here a body is one string: to compress or stream it would cost more than it saves. */
export const smallAnswerRows = 200;

const sliceBytes = 256 * 1024;
const gzipKeptMs = 5_000;
const gzipKeptBytes = 24 * 1024 * 1024;

/** When an active row ends (`endOf` in memory.ts). */
export type EndOf = (row: Row) => number;

/** The stream route's body, in slices of about 256 KB. Durations are the time that is left at `asOfMs`. */
function* renderStream(answer: Answer, asOfMs: number, endOf: EndOf): Generator<string> {
  const added = yield* renderElements('{"new": [', byId(answer.added), (row) =>
    encodeActive(row, endOf(row) - asOfMs, true),
  );
  const removed = yield* renderElements(`${added}], "deleted": [`, byId(answer.removed), (row) =>
    encodeDecision(row, -secondsSinceRemoval(row, asOfMs), true),
  );
  yield `${removed}]}`;
}

/** Appends the texts of rows to `slice`, without those that are empty. Returns the part that is not yielded yet. */
function* renderElements<T>(
  slice: string,
  rows: readonly T[],
  encode: (row: T) => string,
): Generator<string, string> {
  let separator = '';
  for (const row of rows) {
    const text = encode(row);
    if (text === '') continue;
    slice += separator + text;
    separator = ',';
    if (slice.length >= sliceBytes) {
      yield slice;
      slice = '';
    }
  }
  return slice;
}

/** Empty for a decision that ends within a second: to lua, nftables and ipset `0s` is a permanent ban. */
function encodeActive(decision: Decision, leftMs: number, withUuid: boolean): string {
  const seconds = Math.floor(leftMs / 1000);
  return seconds < 1 ? '' : encodeDecision(decision, seconds, withUuid);
}

/** LAPI's order since 1.5. The rows are nearly in it, so sorting costs little. */
function byId(rows: readonly Row[]): Row[] {
  return rows.toSorted((a, b) => a.id - b.id);
}

/** The list route's body: a bare array, or the four bytes `null`. */
export function* renderList<T extends Decision>(
  decisions: readonly T[],
  nowMs: number,
  endOf: (decision: T) => number = ({ untilMs }) => untilMs,
): Generator<string> {
  const slice = yield* renderElements('[', decisions, (decision) =>
    encodeActive(decision, endOf(decision) - nowMs, false),
  );
  yield slice === '[' ? emptyList : `${slice}]`;
}

/** 0 for a decision that is still active but no longer in the bouncer's view. */
function secondsSinceRemoval(row: Row, asOfMs: number): number {
  if (row.removedSeq === 0) return 0;
  return Math.max(0, Math.floor((asOfMs - Math.min(row.untilMs, row.removedMs)) / 1000));
}

/** Slices as a byte stream. `onCancel` is called if the client leaves before the end. `cut` ends it with an error. */
export function streamOf(
  slices: Iterable<string | Uint8Array>,
  onCancel?: () => void,
  cut?: AbortSignal,
): ReadableStream<Uint8Array> {
  const iterator = slices[Symbol.iterator]();
  const encoder = new TextEncoder();
  return new ReadableStream({
    type: 'bytes',
    start(controller) {
      cut?.addEventListener('abort', () => controller.error(cut.reason));
    },
    pull(controller) {
      const { done, value } = iterator.next();
      if (done) controller.close();
      // A byte stream takes ownership of a buffer, so kept slices are sent as copies.
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
  readonly pending: readonly PendingRemoval[];
  bytes: number;
}

/** Gzipped answers by their names (`nameOf` in poll.ts). Bounded in age and in bytes. */
export type GzipCache = Map<string, Kept>;

export interface Rendering {
  /** Equal for equal answers (`nameOf` in poll.ts). */
  readonly name: string;
  /** Whether the client accepts gzip. */
  readonly gzip: boolean;
  readonly nowMs: number;
  readonly endOf: EndOf;
}

/** The body of an answer, made now or kept from an earlier poll. `gzip`: whether it is compressed. */
export async function bodyOf(
  cache: GzipCache,
  delivery: Delivery | Kept,
  rendering: Rendering,
  onCancel: () => void,
): Promise<{ body: ReadableStream<Uint8Array> | string; gzip: boolean }> {
  if ('slices' in delivery) return { body: streamOf(await delivery.slices, onCancel), gzip: true };
  const { answer } = delivery;
  const { gzip, nowMs, endOf } = rendering;
  const small = smallBody(answer, nowMs, endOf);
  if (small !== null) return { body: small, gzip: false };
  if (!gzip) return { body: streamOf(renderStream(answer, nowMs, endOf), onCancel), gzip: false };
  const { slices } = gzipped(cache, delivery, rendering);
  return { body: streamOf(await slices, onCancel), gzip: true };
}

/** The body of a small answer. Null: it is larger. */
export function smallBody(answer: Answer, nowMs: number, endOf: EndOf): string | null {
  const isSmall = answer.added.length + answer.removed.length <= smallAnswerRows;
  return isSmall ? [...renderStream(answer, nowMs, endOf)].join('') : null;
}

/** The gzipped answer of this name. It is kept until the next sequence, for 5 s at most. */
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

/** Gzips an answer and keeps it. Durations are those at the end of its time, so none is ever too long. */
function gzipped(cache: GzipCache, { answer, pending }: Delivery, { name, nowMs, endOf }: Rendering): Kept {
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
  const kept: Kept = { sequence: answer.sequence, untilMs, slices, pending, bytes: 0 };
  cache.set(name, kept);
  return kept;
}

/** Level 1 takes a third of the default level's time and makes a tenth more bytes. The whole body is never in memory. */
export async function gzip(slices: Iterable<string> | AsyncIterable<string>): Promise<Uint8Array[]> {
  const compressor = createGzip({ level: 1, chunkSize: sliceBytes });
  const parts: Uint8Array[] = [];
  compressor.on('data', (part: Uint8Array) => parts.push(part));
  await pipeline(slices, compressor);
  return joined(parts);
}

/** Joins small parts into large slices, since each slice costs a turn of the event loop when it is sent. */
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
