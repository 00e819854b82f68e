// Waiting for work that may take too long: the work goes on, the waiting ends.

/** What `work` answers; throws when that takes longer than `limitMs`. */
export async function answerWithin<Answer>(work: Promise<Answer>, limitMs: number): Promise<Answer> {
  const inTime = await race(work, limitMs);
  if (!inTime) throw new Error(`no answer in ${limitMs} ms`);
  return inTime.answer;
}

/** Waits for `work`, but no longer than `limitMs`. */
export async function withinMs(work: Promise<unknown>, limitMs: number): Promise<void> {
  await race(work, limitMs);
}

/** Null: it takes longer. Leaves no timer that would keep a Durable Object awake. */
async function race<Answer>(work: Promise<Answer>, limitMs: number): Promise<{ answer: Answer } | null> {
  const timer = new AbortController();
  const limit = scheduler.wait(limitMs, { signal: timer.signal }).then(
    () => null,
    () => null,
  );
  try {
    return await Promise.race([work.then((answer) => ({ answer })), limit]);
  } finally {
    timer.abort();
  }
}
