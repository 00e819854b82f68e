// The alarm that starts a round, and a watch on it: a handler that throws seven times is never called again, and a clock
// that is set back moves the next call as far away.

import { sinceMs } from '../runtime/clock.ts';

/** One that could not be set is tried again after this. */
const retryMs = 1_000;

export interface Alarm {
  /** Reads when the next one is due. */
  load(): Promise<void>;
  /** Sets the next one, an interval from now. Where that fails, the alarm is lost. */
  set(): Promise<void>;
  /** Sets one that was lost anew, and answers whether it was; where that fails, whoever looks next tries again. */
  mend(): Promise<boolean>;
}

/** A Durable Object that does nothing for 10 s is put away; a timer is something. */
const longestNapMs = 30_000;
/** Who asks an engine more seldom than this wants little of it, and nothing between. */
const mostAwakeMs = 300_000;

export function createAlarm(
  storage: DurableObjectStorage,
  intervalMs: number,
  onFailure: (error: unknown) => void,
): Alarm {
  let dueMs = 0;
  let triedMs = -Infinity;
  const set = async (): Promise<void> => {
    triedMs = Date.now();
    dueMs = 0;
    const nextMs = triedMs + intervalMs;
    try {
      await storage.setAlarm(nextMs);
      dueMs = nextMs;
    } catch (error) {
      onFailure(error);
    }
  };
  const isLost = (): boolean => {
    const nowMs = Date.now();
    if (sinceMs(triedMs, nowMs) < retryMs) return false;
    const awayMs = dueMs - nowMs;
    return awayMs > 2 * intervalMs || awayMs < -3 * intervalMs;
  };
  return {
    async load() {
      dueMs = (await storage.getAlarm()) ?? 0;
    },
    set,
    async mend() {
      if (!isLost()) return false;
      await set();
      return true;
    },
  };
}

/**
 * Between rounds the object is kept, since what is in memory, cursors that were not yet written above all, would be read
 * anew each time. Timers go by no clock that can be set: they see an alarm that was lost, and `round` is then due.
 */
export async function stayAwake(alarm: Alarm, intervalMs: number, round: () => Promise<void>): Promise<void> {
  if (intervalMs > mostAwakeMs) return;
  for (;;) {
    await scheduler.wait(Math.min(intervalMs, longestNapMs));
    if (await alarm.mend()) await round();
  }
}
