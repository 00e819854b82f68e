// Waiting for work that may take too long: the work goes on, the waiting ends.

/** Waits for `work`, but no longer than `limitMs`; leaves no timer that would keep a Durable Object awake. */
export async function withinMs(work: Promise<unknown>, limitMs: number): Promise<void> {
  const timer = new AbortController();
  const limit = scheduler.wait(limitMs, { signal: timer.signal }).catch(() => undefined);
  await Promise.race([work, limit]);
  timer.abort();
}
