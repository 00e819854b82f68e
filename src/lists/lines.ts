// Lists, as the feed's object answers them. The same choice makes the length and the name of a list, and then its text, so
// the two agree whatever changes meanwhile. A list is written while it is sent, and kept for a moment for others that ask the
// same: hundreds of devices may ask at the same minute.

import type { Mirror } from '../mirror/memory.ts';
import { withPatterns } from '../mirror/patterns.ts';
import { patternsKey, viewKey, type View } from '../mirror/view.ts';
import { sinceMs } from '../runtime/clock.ts';
import { createGenerations } from '../runtime/generations.ts';
import { gzip } from '../stream/render.ts';
import { changedAt, isUnchanged, lastModified, type Conditions, type Validators } from './conditions.ts';
import { choose, entriesOf, type Chosen } from './entries.ts';
import { forms, textOf, type Entry } from './formats.ts';
import type { ListOptions } from './options.ts';
import { createSending } from './sending.ts';
import { inTurns, pause } from '../runtime/wait.ts';

/** What is asked of a list, besides its view. */
export interface LinesAsk {
  readonly options: ListOptions;
  readonly conditions: Conditions;
  readonly gzip: boolean;
  /** HEAD: the answer needs no body. */
  readonly head: boolean;
}

export interface LinesAnswer extends Validators {
  readonly kind: 'lines';
  readonly contentType: string;
  readonly bytes: number;
  readonly gzip: boolean;
  readonly omitted: number;
  /** The client has it already. */
  readonly unchanged: boolean;
  /** Null: none is wanted. */
  readonly body: ReadableStream<Uint8Array> | null;
}

/** Too many lists are being made, or sent. */
export interface Busy {
  readonly kind: 'busy';
}

/** A list as it was at one sequence. */
interface Made {
  /** Those that were in use then. */
  readonly patterns: readonly string[];
  readonly digest: string;
  readonly lines: number;
  readonly bytes: number;
  readonly omitted: number;
  slices(): Iterable<string>;
  /** Made for the first that asks. */
  compressed: Promise<Uint8Array[]> | null;
}

interface Kept {
  /** As of which it is made. Null: that has not begun, so it will have what changes until then. */
  sequence: number | null;
  madeMs: number;
  readonly made: Promise<Made>;
  isMade: boolean;
  lines: number;
}

/** Some milliseconds to write. */
const sliceLength = 64 * 1024;
/** A timeout in a list is never older than this. */
const keptMs = 60_000;
/** Of all that are kept, some 15 MB without what is compressed; one that alone is longer is kept, too. */
const mostKeptLines = 1_000_000;
const mostKept = 16;
/**
 * A list that is made takes tens of megabytes, and has all decisions gone through, so they are made one after the other. One
 * that waits takes next to nothing: devices of all vendors, with limits of their own, may ask at the full hour.
 */
const mostWaiting = 100;
/** Lists of which it is remembered when they changed. */
const mostKnown = 2_000;

export function createLists(send = createSending()) {
  const kept = new Map<string, Kept>();
  const changes = createGenerations<{ readonly digest: string; readonly seconds: number }>(mostKnown);

  let newest: Promise<unknown> = Promise.resolve();
  let waiting = 0;

  /** The same for all that ask before it is begun, and at its sequence. Null: too many others are to be made before it. */
  function listOf(
    mirror: Mirror,
    name: string,
    view: View,
    options: ListOptions,
    nowMs: number,
  ): Promise<Made> | null {
    for (const [other, { sequence, madeMs }] of kept) {
      if (sequence === null) continue;
      if (sequence !== mirror.sequence || sinceMs(madeMs, nowMs) > keptMs) kept.delete(other);
    }
    const known = kept.get(name);
    if (known) return known.made;
    if (waiting === mostWaiting) return null;
    waiting++;
    const made = newest
      .catch(() => undefined)
      .then(() => {
        entry.sequence = mirror.sequence;
        entry.madeMs = Date.now();
        return make(mirror, view, options, entry.madeMs);
      })
      .finally(() => waiting--);
    newest = made;
    const entry: Kept = { sequence: null, madeMs: nowMs, made, isMade: false, lines: 0 };
    kept.set(name, entry);
    const drop = (): void => {
      if (kept.get(name) === entry) kept.delete(name);
    };
    entry.made.then(({ lines }) => {
      entry.isMade = true;
      entry.lines = lines;
      dropOldest(kept);
    }, drop);
    return entry.made;
  }

  function validatorsOf(name: string, digest: string, isGzip: boolean, nowMs: number): Validators {
    const known = changes.get(name);
    const seconds = known?.digest === digest ? known.seconds : changedAt(known?.seconds, nowMs);
    if (known?.digest !== digest) changes.set(name, { digest, seconds });
    // In another coding it is another text.
    return { etag: `"${digest}${isGzip ? '-gzip' : ''}"`, lastModified: lastModified(seconds, nowMs) };
  }

  /** `asked`: with the limits and the name of its bouncer; its engines are named by their handles. */
  async function answer(
    mirror: Mirror,
    asked: View,
    ask: LinesAsk,
    nowMs: number,
  ): Promise<LinesAnswer | Busy> {
    const { options, head, gzip } = ask;
    const view = withPatterns(asked, mirror.patterns);
    const name = `${viewKey(view)} ${JSON.stringify(options)}`;
    const made = await listOf(mirror, name, view, options, nowMs);
    if (made === null) return { kind: 'busy' };
    // While it waited for its turn other addresses may have been allowed for this bouncer.
    if (patternsKey(withPatterns(asked, made.patterns)) !== patternsKey(view)) {
      return answer(mirror, asked, ask, nowMs);
    }
    const validators = validatorsOf(name, made.digest, gzip, nowMs);
    const said = {
      kind: 'lines',
      ...validators,
      contentType: forms[options.format].contentType,
      gzip,
      omitted: made.omitted,
    } as const;
    if (isUnchanged(ask.conditions, validators)) return { ...said, bytes: 0, unchanged: true, body: null };
    const slices = gzip ? await compressed(made) : null;
    const bytes = slices?.reduce((sum, slice) => sum + slice.length, 0) ?? made.bytes;
    const body = head ? null : send(made, slices ?? made.slices());
    if (!head && body === null) return { kind: 'busy' };
    return { ...said, bytes, unchanged: false, body };
  }
  return answer;
}

function compressed(made: Made): Promise<Uint8Array[]> {
  made.compressed ??= gzip(inTurns(made.slices(), 1));
  return made.compressed;
}

function dropOldest(kept: Map<string, Kept>): void {
  let lines = 0;
  let count = 0;
  for (const [name, entry] of [...kept].toReversed()) {
    // Others may ask for one that is not made yet.
    if (!entry.isMade) continue;
    lines += entry.lines;
    count++;
    if (count > 1 && (count > mostKept || lines > mostKeptLines)) kept.delete(name);
  }
}

async function make(mirror: Mirror, view: View, options: ListOptions, nowMs: number): Promise<Made> {
  const { patterns } = mirror;
  const chosen = await choose(mirror, view, options, pause);
  const slices = (): Iterable<string> => {
    return textOf(forms[options.format], linesOf(chosen, options, nowMs), options.listName, sliceLength);
  };
  const hash = new crypto.DigestStream('SHA-256');
  const writer = hash.getWriter();
  const encoder = new TextEncoder();
  let bytes = 0;
  for (const slice of slices()) {
    await writer.write(encoder.encode(slice));
    bytes += slice.length;
    await pause();
  }
  await writer.close();
  const digest = new Uint8Array(await hash.digest).toHex().slice(0, 32);
  const { omitted } = chosen;
  return { patterns, digest, lines: chosen.rows.length, bytes, omitted, slices, compressed: null };
}

function linesOf(chosen: Chosen, { placeholder }: ListOptions, nowMs: number): Iterable<Entry> {
  if (chosen.rows.length > 0 || placeholder === null) return entriesOf(chosen, nowMs);
  const isV6 = placeholder.includes(':');
  const lasting = { id: 0, isLeft: false, scenario: 'placeholder', leftMs: 3_600_000 };
  return [{ ...lasting, address: placeholder, prefixBits: isV6 ? 128 : 32, family: isV6 ? 6 : 4 }];
}
