// How a source of decisions last answered, in the log: a line when it stops answering, when that changes, and when it is
// well again. In the log there is no state to compare a line with, so each change is there once.

import type { Link, LinkState } from '../mirror/progress.ts';

/** The link after an answer. `who`: as operators know it, such as `engine paris`. */
export function changedLink(who: string, before: Link, state: LinkState, error: string | null): Link {
  const wasWell = before.error === null;
  if (error === null ? !wasWell : wasWell || before.state !== state) {
    const well = before.state === 'ok' ? 'its full list is accepted again' : 'it answers again';
    console.error(`${who}: ${error ?? well}`);
  }
  return { state, error };
}
