// What a step of our clock does to the decisions of engines. A clock that jumps ahead, and a machine that slept, look
// alike: by the clock everything has ended, and only the engine knows. So a full list comes first, and until then, for
// ten minutes at most, what an engine had stays. Decisions made here follow our clock at once.

import { sinceMs } from '../runtime/clock.ts';
import type { EngineState } from './engines.sql.ts';
import type { Mirror } from './memory.ts';

/** How long the clock alone ends nothing of an engine's. */
const heldMs = 600_000;
/** So long a pause between two looks at the clock is none. */
const leastStepMs = 60_000;

export interface Watched {
  readonly mirror: Mirror;
  readonly engines: Map<string, EngineState>;
  /** When the clock was last looked at; 0: not since the feed woke. */
  clockMs: number;
  readonly syncIntervalMs: number;
}

/** Looks at the clock: called before every answer and every round, before anything is ended by it. */
export function watchClock(watched: Watched, nowMs: number): void {
  const { mirror, engines, clockMs, syncIntervalMs } = watched;
  const stepMs = Math.max(leastStepMs, 3 * syncIntervalMs);
  for (const [handle, state] of engines) {
    // Since it woke the feed has not looked: the engine's last round tells how long it slept.
    const beforeMs = clockMs || state.progress.roundMs;
    const passedMs = beforeMs === 0 ? 0 : sinceMs(beforeMs, nowMs);
    if (passedMs <= stepMs) continue;
    // Infinity: the clock was set back. What was held against it is no longer; ends that it put off come with the list.
    if (passedMs === Infinity) release(mirror, handle);
    else if (state.lastResyncMs > 0) {
      mirror.holds.set(handle, { sequence: mirror.sequence, untilMs: nowMs + heldMs });
    }
    engines.set(handle, { ...state, progress: { ...state.progress, urgency: 'now' } });
  }
  watched.clockMs = nowMs;
}

/** The engine's full list is here: what it does not say any more, the clock may end. */
export function release(mirror: Mirror, handle: string): void {
  if (mirror.holds.delete(handle)) mirror.nextExpiryMs = 0;
}
