// A feed that does not know yet what its engines ban. It keeps its callers for a while rather than to tell them that
// nobody is banned, and says so after that: what to do meanwhile is the bouncer's own policy.

import { sinceMs } from '../runtime/clock.ts';
import { withinMs } from '../runtime/wait.ts';
import type { Engine } from '../engines/engines.ts';
import { engineState, type Store } from '../mirror/mirror.ts';
import { isChosen, type View } from '../mirror/view.ts';

/**
 * How long who asks is kept, from the feed's first contact on. A start-up may take as long as LAPI's own of a large list
 * (Debian's firewall bouncer ends when its first poll fails); a live look-up holds up somebody's page.
 */
export const startUpPatienceMs = 25_000;
export const lookupPatienceMs = 2_000;

/** Whether a full list of an engine was ever believed. */
function isHeard(store: Store, { handle }: Engine): boolean {
  return engineState(store, handle).lastResyncMs > 0;
}

/** Whether what the engines of a view ban is known, of one of them at least. Without an engine there is nothing to know. */
export function isKnown(engines: readonly Engine[], store: Store, view: View): boolean {
  const chosen = engines.filter(({ handle }) => isChosen(view, handle));
  return chosen.length === 0 || chosen.some((engine) => isHeard(store, engine));
}

/** Whether all that is known of a view is all that there is. */
export function isComplete(engines: readonly Engine[], store: Store, view: View): boolean {
  return engines.every((engine) => isHeard(store, engine) || !isChosen(view, engine.handle));
}

/**
 * Waits until a view is known, no longer than `patienceMs` after the first contact; of several engines for all of them
 * at first, and then for one.
 */
export async function untilKnown(
  engines: readonly Engine[],
  store: Store,
  view: View,
  contactMs: number,
  patienceMs: number,
): Promise<boolean> {
  const unheard = engines.filter((engine) => !isHeard(store, engine) && isChosen(view, engine.handle));
  const lists = unheard.map(({ rounds }) => rounds.known);
  const leftMs = (limitMs: number): number => Math.max(0, limitMs - sinceMs(contactMs, Date.now()));
  await withinMs(Promise.all(lists), leftMs(Math.min(patienceMs, lookupPatienceMs)));
  if (!isKnown(engines, store, view)) await withinMs(Promise.race(lists), leftMs(patienceMs));
  return isKnown(engines, store, view);
}
