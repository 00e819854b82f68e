// What a poll of the stream is answered with: the way from where its bouncer stood to what it is to have, and a name that
// is equal for all polls with the same answer. Pure.

import { changesSince, fullState, type Answer } from './answer.ts';
import { standingsOf, type Aim, type Bases } from './basis.ts';
import type { Cursor } from './cursor.ts';
import type { Mirror } from '../mirror/memory.ts';
import type { Owed } from './owed.ts';
import { fromNothing, transition } from './transition.ts';
import { viewKey, type View } from '../mirror/view.ts';

export interface Poll {
  /** As it was asked for. */
  readonly view: View;
  readonly startup: boolean;
  /** Where a delta can start; undefined: only the full state is safe. */
  readonly from: Cursor | undefined;
  /** The full state has the ends after this sequence. */
  readonly since: number;
  readonly owed: readonly Owed[];
}

export function answerOf(mirror: Mirror, bases: Bases, aim: Aim, { startup, from, since }: Poll): Answer {
  if (startup) return fullState(mirror, aim, since);
  if (!from) return fromNothing(mirror, aim, since);
  if (isPlain(from, aim)) return changesSince(mirror, aim.view, from.before.sequence);
  return transition(mirror, aim, standingsOf(bases, from));
}

export function nameOf(aim: Aim, { view, startup, from, since, owed }: Poll): string {
  const start = startup ? `startup ${since}` : from ? startName(from, aim) : `lost ${since}`;
  const waiting = owed.map(({ row, times }) => `${row.rowId}*${times}`).join();
  return `${start} ${waiting} ${viewKey(view)}`;
}

function startName(from: Cursor, aim: Aim): string {
  return isPlain(from, aim) ? String(from.before.sequence) : JSON.stringify([from.before, from.last]);
}

/** Whether only the feed has moved since both positions, and all of the view is to be had. */
function isPlain({ before, last }: Cursor, aim: Aim): boolean {
  return !aim.kept && before.basis === aim.basis && last.basis === aim.basis;
}
