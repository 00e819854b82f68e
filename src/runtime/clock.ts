// Time that has passed. If the clock was set back, nobody knows how long ago a moment was. Whatever waits for time to pass
// must not wait until the clock comes there again.

/** The clock, and a pause in which others are answered. */
export interface Clock {
  readonly now: () => number;
  readonly pause: () => Promise<unknown>;
}

/** Clocks of two machines, and two readings around one request, may differ by this much. */
const jitterMs = 1_000;

/** Milliseconds since a moment; `Infinity` if it lies ahead, since the clock was set back. */
export function sinceMs(thenMs: number, nowMs: number): number {
  const passedMs = nowMs - thenMs;
  if (passedMs >= 0) return passedMs;
  return passedMs >= -jitterMs ? 0 : Infinity;
}
