// Waiting for work that may take too long: the work goes on, the waiting ends.

/** What `work` answers; throws when that takes longer than `limitMs`. */
export async function answerWithin<Answer>(work: Promise<Answer>, limitMs: number): Promise<Answer> {
  const late = Symbol();
  const timer = new AbortController();
  const limit = scheduler.wait(limitMs, { signal: timer.signal }).then(
    () => late,
    () => late,
  );
  try {
    const answer = await Promise.race([work, limit]);
    if (answer === late) throw new Error(`no answer in ${limitMs} ms`);
    return answer as Answer;
  } finally {
    timer.abort();
  }
}

/** Waits for `work`, but no longer than `limitMs`; leaves no timer that would keep a Durable Object awake. */
export async function withinMs(work: Promise<unknown>, limitMs: number): Promise<void> {
  const timer = new AbortController();
  const limit = scheduler.wait(limitMs, { signal: timer.signal }).catch(() => undefined);
  await Promise.race([work, limit]);
  timer.abort();
}
