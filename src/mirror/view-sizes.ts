// How many values some views have decisions on: one look at all of them, in slices, so that polls are answered meanwhile.

import type { Mirror } from './memory.ts';
import { matcher, type View } from './view.ts';

/** Of a value and a view. */
const sliceMatches = 10_000;

/** A size for each view. Its engines are named by their handles. A value counts once, however many decisions are on it. */
export async function sizesOf(
  { byCanonicalValue }: Pick<Mirror, 'byCanonicalValue'>,
  views: readonly View[],
  pause: () => Promise<unknown>,
): Promise<number[]> {
  const all = views.map((view) => ({ view, matches: matcher(view), size: 0 }));
  const sliceValues = Math.ceil(sliceMatches / Math.max(1, views.length));
  let seen = 0;
  for (const rows of byCanonicalValue.values()) {
    if (++seen % sliceValues === 0) await pause();
    for (const one of all) if (rows.some(one.matches)) one.size++;
  }
  return all.map(({ view, size }) => Math.min(size, view.limits?.maxDecisions ?? Infinity));
}
