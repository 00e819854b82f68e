// Limits on waiting. The work goes on when its limit is over, and only an `IdleTimeout` aborts something. And pauses, in which
// others have their turns.

/** Lets others be answered: to be awaited between two parts of what takes long. */
export function pause(): Promise<void> {
  return scheduler.wait(0);
}

/** As many slices in each turn. */
export async function* inTurns<Slice>(slices: Iterable<Slice>, perTurn: number): AsyncGenerator<Slice> {
  let made = 0;
  for (const slice of slices) {
    yield slice;
    if (++made % perTurn === 0) await pause();
  }
}

/** The answer of `work`. Throws when that takes longer than `limitMs`. */
export async function answerWithin<Answer>(work: Promise<Answer>, limitMs: number): Promise<Answer> {
  const inTime = await race(work, limitMs);
  if (!inTime) throw new Error(`no answer in ${limitMs} ms`);
  return inTime.answer;
}

/** Waits for `work`, but no longer than `limitMs`. */
export async function withinMs(work: Promise<unknown>, limitMs: number): Promise<void> {
  await race(work, limitMs);
}

/** Null: it takes longer. Leaves no timer behind that would keep a Durable Object awake. */
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

/** Aborts `signal` when a wait takes too long. No wait runs before the first `reset`, nor after `stop`. */
export interface IdleTimeout {
  readonly signal: AbortSignal;
  /** Begins a new wait in place of the last, of `idleMs` unless it says. `reason`: the signal's, if this wait is too long. */
  reset(waitMs?: number, reason?: string): void;
  stop(): void;
  /** Aborts now. */
  abort(): void;
}

export function createIdleTimeout(idleMs: number): IdleTimeout {
  const controller = new AbortController();
  let stop = (): void => undefined;
  return {
    signal: controller.signal,
    reset(waitMs = idleMs, reason?: string) {
      stop();
      const timer = setTimeout(() => controller.abort(reason), waitMs);
      stop = () => clearTimeout(timer);
    },
    stop: () => stop(),
    abort: () => controller.abort(),
  };
}
