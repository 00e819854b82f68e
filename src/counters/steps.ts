// The last 24 hours in steps of five minutes: how many decisions there were, how many changes, polls and
// refused callers. Pure. Operators see it as a curve; nothing else depends on it.

/** Five minutes. `polls`: polls and look-ups that the object has heard of in that time. */
export interface Step {
  readonly startMs: number;
  /** At its end. */
  readonly decisions: number;
  readonly changes: number;
  readonly polls: number;
  /** Callers that were refused, as a batch has them (counting.ts). Absent: the release before did not count them. */
  readonly refused?: Readonly<Record<string, number>>;
}

/** As they are stored. */
export interface Steps {
  /** The sequence up to which changes are counted; null: none is. */
  readonly sequence: number | null;
  /** The newest last. */
  readonly steps: readonly Step[];
}

export const noSteps: Steps = { sequence: null, steps: [] };

export const stepMs = 300_000;
export const mostSteps = 288;

/** What the feed is like now, and the polls and refused callers since it was last asked. */
export interface Now {
  readonly decisions: number;
  readonly sequence: number;
  readonly polls: number;
  readonly refused: ReadonlyMap<string, number>;
}

/** The steps up to now; the same ones where nothing is new. Those that a clock that was set back has yet to reach are left out. */
export function withNow(kept: Steps, { decisions, sequence, polls, refused }: Now, nowMs: number): Steps {
  const startMs = nowMs - (nowMs % stepMs);
  const changes = Math.max(0, sequence - (kept.sequence ?? sequence));
  const last = kept.steps.at(-1);
  const isNew = last?.startMs !== startMs;
  const isQuiet = changes === 0 && polls === 0 && refused.size === 0;
  if (!isNew && isQuiet && decisions === last.decisions) return kept;
  const before = isNew ? { changes: 0, polls: 0, refused: {} } : last;
  const step = {
    startMs,
    decisions,
    changes: before.changes + changes,
    polls: before.polls + polls,
    refused: addedTo(before.refused ?? {}, refused),
  };
  const oldestMs = startMs - (mostSteps - 1) * stepMs;
  const others = kept.steps.filter((each) => each.startMs < startMs && each.startMs >= oldestMs);
  return { sequence, steps: [...others, step] };
}

function addedTo(
  before: Readonly<Record<string, number>>,
  more: ReadonlyMap<string, number>,
): Record<string, number> {
  const sums = new Map(Object.entries(before));
  for (const [what, count] of more) sums.set(what, (sums.get(what) ?? 0) + count);
  return Object.fromEntries(sums);
}
