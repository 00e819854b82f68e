// Which of an engine's rows were there at its last accepted full list. After a restart, rows that the allow-list withheld or
// had served again look new: what else the log has tells them. A mistake here takes an engine's database for another one.

import { knownSince, sameContent, type Decision, type Row } from '../formats/decision.ts';
import { removedSince, type Mirror } from '../mirror/memory.ts';

/** A decision of a blocklist: an engine that pulled it shares it with all others that did. */
export function isPulled({ origin }: Decision): boolean {
  return origin === 'CAPI' || origin === 'lists';
}

/**
 * Whether one of some active rows was there at a sequence. A row that is served again keeps its row id, and one that is
 * withheld leaves a tombstone of the same decision.
 */
export function someKnownBefore(mirror: Mirror, rows: readonly Row[], sequence: number): boolean {
  const wasThere = (row: Row): boolean =>
    knownSince(row) <= sequence || (!isPulled(row) && row.rowId <= sequence);
  if (rows.some(wasThere)) return true;
  const byId = new Map(rows.map((row) => [row.engineId, row]));
  return removedSince(mirror, sequence).some((tombstone) => {
    if (tombstone.addedSeq > sequence) return false;
    const row = byId.get(tombstone.engineId);
    return (
      row?.engine === tombstone.engine && row.untilMs === tombstone.untilMs && sameContent(row, tombstone)
    );
  });
}
