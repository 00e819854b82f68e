// Lists that are being sent. Each stays in memory until its reader has all of it, and a slow one takes as long as it likes.
// Who asks when there is no room keeps the list that it has; who has read for long makes room for others.

import { sinceMs } from '../runtime/clock.ts';
import { streamOf } from '../stream/render.ts';

/** Lines of all different lists that are being sent: some 26 MB. One alone may be longer. */
const mostSentLines = 2_000_000;
/** A reader that has had a list for so long is cut off when there is no room: 100,000 lines are 5 KB a second. */
const mostReadMs = 300_000;

/** The same object for all readers of a list. */
interface List {
  readonly lines: number;
}

interface Sent {
  readonly list: List;
  readonly begunMs: number;
  cut(): void;
}

export function createSending(mostLines = mostSentLines) {
  const sent = new Set<Sent>();

  function hasRoom(list: List): boolean {
    const lists = new Set(Array.from(sent, (each) => each.list));
    if (lists.size === 0 || lists.has(list)) return true;
    const lines = [...lists].reduce((sum, each) => sum + each.lines, 0);
    return lines + list.lines <= mostLines;
  }

  function cutSlow(nowMs: number): void {
    for (const each of sent) {
      if (sinceMs(each.begunMs, nowMs) <= mostReadMs) continue;
      sent.delete(each);
      each.cut();
    }
  }

  /** The body of a list. Null: too many others are being sent. */
  return (list: List, slices: Iterable<string | Uint8Array>): ReadableStream<Uint8Array> | null => {
    if (!hasRoom(list)) cutSlow(Date.now());
    if (!hasRoom(list)) return null;
    const cut = new AbortController();
    const reason = new Error(`the list was not read in ${mostReadMs / 1000} s, and others wait`);
    const one: Sent = { list, begunMs: Date.now(), cut: () => cut.abort(reason) };
    sent.add(one);
    const end = (): void => void sent.delete(one);
    return streamOf(withEnd(slices, end), end, cut.signal);
  };
}

function* withEnd<Slice>(slices: Iterable<Slice>, onEnd: () => void): Generator<Slice> {
  try {
    yield* slices;
  } finally {
    onEnd();
  }
}
