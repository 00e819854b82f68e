// Work that runs once for all who ask for it at the same time.

/** One run at a time. Callers that come while one runs share the next. */
export function shared<T>(work: () => Promise<T>) {
  let current: Promise<T> | null = null;
  let following: Promise<T> | null = null;

  const start = (): Promise<T> => {
    following = null;
    const run = work().finally(() => {
      if (current === run) current = null;
    });
    current = run;
    return run;
  };

  return {
    /** A run that begins after this call: one under way may have begun before what the caller wants to see. */
    next(): Promise<T> {
      if (!following && !current) return start();
      following ??= (current as Promise<T>).then(start, start);
      return following;
    },
    running: (): boolean => current !== null,
  };
}
