// The changes that a view has, kept from one answer to the next. After a list of 50,000 decisions was replaced an answer would
// else look at each of its rows, though the view has none of them, and thousands of bouncers share a few views.

import type { Row } from '../formats/decision.ts';
import { addedSince, after, removedSince, type Mirror, type ViewChanges } from './memory.ts';
import { viewKey, type Matches, type View } from './view.ts';

/** Changes that are kept of one view. A view that has many is looked for among all. */
const mostChanges = 500;

/** The changes of a view after a sequence. `matches`: of that view. */
export function changesIn(
  mirror: Mirror,
  view: View,
  matches: Matches,
  since: number,
): Pick<ViewChanges, 'added' | 'removed'> {
  const { viewChanges } = mirror;
  const key = viewKey(view);
  const kept = viewChanges.get(key);
  const changes = kept && kept.since <= since ? kept : { since, sequence: since, added: [], removed: [] };
  extend(changes, mirror, matches);
  if (changes.added.length + changes.removed.length > mostChanges) viewChanges.delete(key);
  else if (changes !== kept) viewChanges.set(key, changes);
  return {
    added: after(changes.added, since, addedSeq),
    removed: after(changes.removed, since, removedSeq),
  };
}

function extend(changes: ViewChanges, mirror: Mirror, matches: Matches): void {
  if (changes.sequence === mirror.sequence) return;
  for (const row of addedSince(mirror, changes.sequence)) if (matches(row)) changes.added.push(row);
  for (const row of removedSince(mirror, changes.sequence)) if (matches(row)) changes.removed.push(row);
  changes.sequence = mirror.sequence;
}

const addedSeq = (row: Row): number => row.addedSeq;
const removedSeq = (row: Row): number => row.removedSeq;
