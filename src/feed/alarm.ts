// The alarm that starts a round, and a watch on it: a handler that throws seven times is never called again, and a clock
// that is set back moves the next call as far away.

export interface Alarm {
  /** Reads when the next one is due. */
  load(): Promise<void>;
  /** Sets the next one, an interval from now. */
  set(): Promise<void>;
  isLost(): boolean;
}

export function createAlarm(storage: DurableObjectStorage, intervalMs: number): Alarm {
  let dueMs = 0;
  return {
    async load() {
      dueMs = (await storage.getAlarm()) ?? 0;
    },
    async set() {
      dueMs = Date.now() + intervalMs;
      await storage.setAlarm(dueMs);
    },
    isLost() {
      const awayMs = dueMs - Date.now();
      return awayMs > 2 * intervalMs || awayMs < -3 * intervalMs;
    },
  };
}
