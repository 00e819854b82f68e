// The active decisions of a view, as LAPI's list or as that of an appliance.

import { createLists, type Busy, type LinesAnswer } from '../lists/lines.ts';
import type { Mirror } from '../mirror/memory.ts';
import { answerList, type LongList, type ShortList } from '../stream/list.ts';
import type { ListAsk } from './questions.ts';

export function createListing() {
  const answerLines = createLists();
  return (
    mirror: Mirror,
    ask: ListAsk,
    nowMs: number,
  ): ShortList | LongList | Promise<LinesAnswer | Busy> => {
    return ask.lines ? answerLines(mirror, ask.view, ask.lines, nowMs) : answerList(mirror, ask, nowMs);
  };
}
