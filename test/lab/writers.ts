// Operators that write as fast as they are answered, and what of it was acknowledged.
import type { Lapidary } from './lapidary.ts';

export interface Writers {
  /** What must be banned, and what must not be. */
  banned: string[];
  unbanned: string[];
  /** Bouncers' keys that must be good. */
  keys: string[];
  /** What was under way when the connection broke: it may have come to pass or not. */
  uncertain: Set<string>;
  /** Writes with `count` at once until the connection breaks or `stop` is called. */
  start(count: number): { stop(): Promise<void> };
}

export function writersOf(lapidary: Lapidary): Writers {
  const writers: Writers = { banned: [], unbanned: [], keys: [], uncertain: new Set(), start };
  const { banned, unbanned, keys, uncertain } = writers;
  let started = 0;

  /** Bans, the end of every third one, keys. */
  async function write(writer: number, stopping: AbortSignal): Promise<void> {
    for (let turn = 1; !stopping.aborted; turn++) {
      const value = `2001:db8:${writer.toString(16)}::${turn.toString(16)}`;
      uncertain.add(value);
      await lapidary.ban(value);
      if (turn % 3 === 0) {
        await lapidary.unban(value);
        unbanned.push(value);
      } else {
        banned.push(value);
      }
      uncertain.delete(value);
      if (turn % 2 === 0) keys.push(await lapidary.addBouncer(`writer-${writer}-${turn}`));
    }
  }

  function start(count: number) {
    const stopping = new AbortController();
    const writing = Array.from({ length: count }, () => write(++started, stopping.signal));
    const ended = Promise.allSettled(writing);
    return {
      async stop() {
        stopping.abort();
        await ended;
      },
    };
  }

  return writers;
}
