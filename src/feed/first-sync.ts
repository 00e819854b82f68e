// A feed that knows no list of an engine yet: who asks waits for it, and the first who asks starts a round.

import * as engines from '../engines/engines.ts';
import type { Store } from '../mirror/mirror.ts';
import type { View } from '../mirror/view.ts';

export type FirstSync = ReturnType<typeof createFirstSync>;

export function createFirstSync(all: readonly engines.Engine[], store: Store) {
  /** When it was first asked; 0: it was not. */
  let firstRequestMs = 0;
  return {
    /** Whether a view is known, if need be after a wait. */
    async wait(view: View, patienceMs: number): Promise<boolean> {
      if (engines.isComplete(all, store, view)) return engines.isKnown(all, store, view);
      if (firstRequestMs === 0) {
        firstRequestMs = Date.now();
        for (const engine of all) void engines.syncEngine(engine);
      }
      return engines.awaitKnown(all, store, view, firstRequestMs, patienceMs);
    },
    /** What was waited for in vain may come now. */
    beginAnew(): void {
      firstRequestMs = 0;
    },
  };
}
