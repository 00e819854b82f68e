// Lists that are being sent. Each stays in memory until its reader has all of it, and a slow one takes as long as it likes.
// Who asks when there is no room keeps the list that it has; a reader that takes nothing makes room for others.

import { sinceMs } from '../runtime/clock.ts';
import { streamOf } from '../stream/render.ts';

/** Lines of all different lists that are being sent: some 26 MB. One alone may be longer. */
const mostSentLines = 2_000_000;
/** A reader that has taken nothing for so long is cut off when there is no room. */
const idleMs = 60_000;

/** The same object for all readers of a list. */
interface List {
  readonly lines: number;
}

interface Sent {
  readonly list: List;
  /** When its reader last took something. */
  readMs: number;
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

  function cutIdle(nowMs: number): void {
    for (const each of sent) {
      if (sinceMs(each.readMs, nowMs) <= idleMs) continue;
      sent.delete(each);
      each.cut();
    }
  }

  /** The body of a list. Null: too many others are being sent. */
  return (list: List, slices: Iterable<string | Uint8Array>): ReadableStream<Uint8Array> | null => {
    if (!hasRoom(list)) cutIdle(Date.now());
    if (!hasRoom(list)) return null;
    const cut = new AbortController();
    const one: Sent = {
      list,
      readMs: Date.now(),
      cut: () => cut.abort(new Error(`nothing of the list was read for ${idleMs / 1000} s`)),
    };
    sent.add(one);
    const end = (): void => void sent.delete(one);
    return streamOf(
      takenFrom(slices, () => (one.readMs = Date.now()), end),
      end,
      cut.signal,
    );
  };
}

function* takenFrom<Slice>(
  slices: Iterable<Slice>,
  onTaken: () => void,
  onEnd: () => void,
): Generator<Slice> {
  try {
    for (const slice of slices) {
      onTaken();
      yield slice;
    }
  } finally {
    onEnd();
  }
}
