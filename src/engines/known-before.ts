// Which of an engine's rows were there at its last accepted full list. After a restart, rows that the allow-list withheld or
// had served again look new: what else the log has tells them. A mistake here takes an engine's database for another one.

import { knownSince, sameContent, type Decision, type Row } from '../formats/decision.ts';
import type { Mirror } from '../mirror/memory.ts';

/** A decision of a blocklist: an engine that pulled it shares it with all others that did. */
export function isPulled({ origin }: Decision): boolean {
  return origin === 'CAPI' || origin === 'lists';
}

/**
 * Whether one of some active rows was there at a sequence. One that is withheld left a tombstone of the same decision; one
 * that is served again did so earlier, and kept its row id since. A row id alone proves nothing: renewed orphans keep theirs.
 */
export function someKnownBefore(mirror: Mirror, rows: readonly Row[], sequence: number): boolean {
  if (rows.some((row) => knownSince(row) <= sequence)) return true;
  const byId = new Map(rows.map((row) => [row.engineId, row]));
  return mirror.removed.some((tombstone) => {
    const row = byId.get(tombstone.engineId);
    if (row?.engine !== tombstone.engine || tombstone.addedSeq > sequence) return false;
    if (tombstone.removedSeq <= sequence && row.rowId > sequence) return false;
    return row.untilMs === tombstone.untilMs && sameContent(row, tombstone);
  });
}
