// Time that has passed. The clock may be set back: then nobody knows how long ago a moment was, and whatever waits
// for time to pass must not wait for the clock to come there again.

/** Clocks of two machines, and two readings around one request, differ by this much without anybody having set one. */
const jitterMs = 1_000;

/** Milliseconds since a moment; `Infinity` when it lies ahead, since the clock was set back in between. */
export function sinceMs(thenMs: number, nowMs: number): number {
  const passedMs = nowMs - thenMs;
  if (passedMs >= 0) return passedMs;
  return passedMs >= -jitterMs ? 0 : Infinity;
}
