// The clock's minutes, in which the rate limits of the bindings count.

/** Resolves while this minute goes on for a while: at once, or with the next one. */
export async function wholeMinute(leastMs = 15_000): Promise<void> {
  const leftMs = 60_000 - (Date.now() % 60_000);
  if (leftMs < leastMs) await scheduler.wait(leftMs);
}
