// The active decisions of a view, as LAPI's list or as that of an appliance.

import * as engines from '../engines/engines.ts';
import { createLists, type Busy, type LinesAnswer } from '../lists/lines.ts';
import type { Mirror } from '../mirror/memory.ts';
import type { Store } from '../mirror/mirror.ts';
import { withPatterns } from '../mirror/patterns.ts';
import { isLookup, type View } from '../mirror/view.ts';
import { answerList, type LongList, type ShortList } from '../stream/list.ts';
import { activeRows } from '../stream/selection.ts';
import type { ListAsk } from './questions.ts';

/** Whether nobody knows yet what a list of a view has. A device takes one in place of all that it has. */
export function isListCold(
  all: readonly engines.Engine[],
  store: Store,
  view: View,
  { lines }: Pick<ListAsk, 'lines'>,
): boolean {
  const isKnown = lines ? engines.isWhole : engines.isKnown;
  if (isKnown(all, store, view)) return false;
  // For a look-up one known decision is enough.
  const { mirror } = store;
  return !isLookup(view) || activeRows(mirror, withPatterns(view, mirror.patterns)).length === 0;
}

export function createListing() {
  const answerLines = createLists();
  return (
    mirror: Mirror,
    ask: ListAsk,
    nowMs: number,
  ): ShortList | LongList | Promise<LinesAnswer | Busy> => {
    if (ask.lines) return answerLines(mirror, ask.view, ask.lines, nowMs);
    return answerList(mirror, { ...ask, view: withPatterns(ask.view, mirror.patterns) }, nowMs);
  };
}
