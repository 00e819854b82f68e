// The alarm that starts a round, and a watch on it. A handler that throws seven times is never called again, and when the
// clock is set back the next call moves as far away.

import { sinceMs } from '../runtime/clock.ts';

/** How long after a failure the alarm is set again. */
const retryMs = 1_000;
/** A Durable Object without work or a timer is evicted after 10 s. */
const longestNapMs = 30_000;
/** With a longer interval between rounds the object may be evicted between them. */
const mostAwakeMs = 300_000;

export type Alarm = ReturnType<typeof createAlarm>;

export function createAlarm(
  storage: DurableObjectStorage,
  intervalMs: number,
  onFailure: (error: unknown) => void,
) {
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
    /** Reads when the next alarm is due. */
    async load(): Promise<void> {
      dueMs = (await storage.getAlarm()) ?? 0;
    },
    /** Sets the next alarm, an interval from now. If that fails, the alarm is lost. */
    set,
    /** Sets a lost alarm again. Returns whether it was lost. If that fails, the next call tries again. */
    async mend(): Promise<boolean> {
      if (!isLost()) return false;
      await set();
      return true;
    },
  };
}

/**
 * Keeps the object in memory between rounds: an eviction would lose cursors that are not written yet, and storage would be
 * read again each time. Its timers do not depend on the clock, so they notice a lost alarm and run the `round` instead.
 */
export async function stayAwake(alarm: Alarm, intervalMs: number, round: () => Promise<void>): Promise<void> {
  if (intervalMs > mostAwakeMs) return;
  for (;;) {
    await scheduler.wait(Math.min(intervalMs, longestNapMs));
    if (await alarm.mend()) await round();
  }
}
