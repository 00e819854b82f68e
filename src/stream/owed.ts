// Ends that wait for the next answers: one answer names no network twice in `deleted`. nftables takes a batch as a whole,
// and nothing of one that removes an element twice: Debian's firewall bouncer 0.0.25 then loses all unbans of the batch,
// and so does the current one by its source (nftables_context.go). Who compares texts is told one text after the other.
// Pure.

import { bansOn, type Answer } from './answer.ts';
import { sameNetwork, sameText } from '../formats/canonical.ts';
import type { Row } from '../formats/decision.ts';
import type { Mirror } from '../mirror/memory.ts';
import type { Target } from './target.ts';

/** An end that a bouncer is still to be told, and in how many answers. */
export interface Owed {
  readonly row: Row;
  readonly times: number;
}

export interface Turn {
  readonly answer: Answer;
  /** What it leaves for those that follow, the one first that is told next. */
  readonly owed: readonly Owed[];
}

/** The answer with one text of each network in `ended`, those first that were owed; what is banned again is not. */
export function takeTurns(mirror: Mirror, target: Target, answer: Answer, owed: readonly Owed[]): Turn {
  if (owed.length === 0 && mirror.respelled.size === 0) return { answer, owed };
  const bansOf = bansOn(mirror, target);
  const told = new Map<string, Row[]>();
  const ended: Row[] = [];
  const tell = (row: Row): boolean => {
    const before = told.get(row.canonicalValue) ?? [];
    if (before.some((other) => sameNetwork(other, row) && !sameText(other, row))) return false;
    if (!before.includes(row)) ended.push(row);
    told.set(row.canonicalValue, [...before, row]);
    return true;
  };
  const waiting: Owed[] = [];
  const again: Owed[] = [];
  for (const { row, times } of owed) {
    if (bansOf(row).length > 0) continue;
    if (!tell(row)) waiting.push({ row, times });
    else if (times > 1) again.push({ row, times: times - 1 });
  }
  const known = new Set(owed.map(({ row }) => row));
  for (const row of answer.ended) {
    if (!mirror.respelled.has(row.canonicalValue)) ended.push(row);
    else if (!tell(row) && !known.has(row)) waiting.push({ row, times: 2 });
  }
  return { answer: { ...answer, ended }, owed: [...waiting, ...again] };
}
