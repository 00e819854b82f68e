// What was touched in the mirror since a sequence, for an isolate that follows the feed. It keeps a part of the mirror: all
// rows of each value that was touched since it began to follow. That is enough for every change since then, since a value's
// rows decide what becomes of it (delta.ts in stream). Pure.

import type { Row } from '../formats/decision.ts';
import {
  addedSince,
  createMirror,
  insert,
  noteSeveral,
  removedSince,
  withdraw,
  type Hold,
  type Mirror,
} from './memory.ts';

/** Plain data: it crosses the object's RPC. */
export interface Touched {
  /** The latest sequence. */
  readonly sequence: number;
  /** Of each value that was touched: its active rows, and those that were removed since. */
  readonly rows: readonly Row[];
  /** Its rows that are withheld from all: look-ups need some of them. An isolate of the release before must not serve them. */
  readonly withheld?: readonly Row[];
  /** Those of the values that have several spellings. Their removals may need rows that are not here. */
  readonly respelled: readonly string[];
}

/** Of all different lists in one answer: some 4 MB. */
const mostPatterns = 50_000;

function patternsIn(rows: readonly Row[]): number {
  return listsIn(rows).reduce((sum, list) => sum + list.length, 0);
}

/** Null: more than `most` changes, many more rows, or changes that are forgotten. */
export function touchedSince(mirror: Mirror, since: number, most: number): Touched | null {
  const { sequence, purgedSequence, byCanonicalValue, respelled } = mirror;
  if (since < purgedSequence || since > sequence) return null;
  const added = addedSince(mirror, since);
  const removed = removedSince(mirror, since);
  if (added.length + removed.length > most) return null;
  const values = [...new Set([...added, ...removed].map(({ canonicalValue }) => canonicalValue))];
  const rows = [...removed, ...values.flatMap((value) => byCanonicalValue.get(value) ?? [])];
  // Many decisions on each value, or many different lists of patterns: an answer of the object has a limit (32 MiB).
  if (rows.length > 2 * most || patternsIn(rows) > mostPatterns) return null;
  return {
    sequence,
    rows: rows.filter(({ withheld }) => withheld !== true),
    withheld: rows.filter(({ withheld }) => withheld === true),
    respelled: values.filter((value) => respelled.has(value)),
  };
}

/** A part of a mirror that begins at a sequence: it knows nothing from before. */
export function createPart(sequence: number): Mirror {
  return createMirror([], { sequence, purgedSequence: sequence }, { values: () => [], of: () => [] });
}

/** Brings a part up to date. `touched` follows on the part's sequence. */
export function applyTouched(part: Mirror, { sequence, respelled, ...touched }: Touched): void {
  const rows = withKnownLists(part, [...touched.rows, ...(touched.withheld ?? [])]);
  const active = rows.filter((row) => row.removedSeq === 0).sort((a, b) => a.addedSeq - b.addedSeq);
  const removed = rows.filter((row) => row.removedSeq > 0).sort((a, b) => a.removedSeq - b.removedSeq);
  // A row that is still the same keeps its object, by which `added` knows whether it is active.
  const staying = new Set(active.map((row) => sameRow(part, row)));
  const values = new Set(rows.map(({ canonicalValue }) => canonicalValue));
  // All removals before all additions: a new row may have the id of one that is gone.
  for (const value of values) {
    for (const row of part.byCanonicalValue.get(value) ?? []) if (!staying.has(row)) withdraw(part, row);
  }
  for (const row of active) if (!sameRow(part, row)) insert(part, row, row.addedSeq > part.sequence);
  part.removed.push(...removed);
  for (const value of respelled) noteSeveral(part, value);
  part.sequence = sequence;
}

/** The rows with lists of patterns that rows of the part have, where they are equal: each answer brings lists of its own. */
function withKnownLists({ added, removed }: Mirror, rows: readonly Row[]): Row[] {
  if (listsIn(rows).length === 0) return [...rows];
  // Of equal lists the last one counts: that of the part.
  const lists = new Map(listsIn([...rows, ...added, ...removed]).map((list) => [list.join(), list]));
  return rows.map((row) => {
    const known = typeof row.withheld === 'object' ? lists.get(row.withheld.join()) : undefined;
    return known ? { ...row, withheld: known } : row;
  });
}

/** The different lists of patterns that some rows have. */
function listsIn(rows: readonly Row[]): (readonly string[])[] {
  return [...new Set(rows.map(({ withheld }) => withheld))].filter((list) => typeof list === 'object');
}

function sameRow({ byId }: Mirror, row: Row): Row | undefined {
  const known = byId.get(row.id);
  return known?.rowId === row.rowId && known.addedSeq === row.addedSeq ? known : undefined;
}

export function setHolds(part: Mirror, holds: ReadonlyMap<string, Hold>): void {
  part.holds.clear();
  for (const [handle, hold] of holds) part.holds.set(handle, hold);
}

/** Forgets the older half of the changes if a part has more than `most`. */
export function trimPart(part: Mirror, most: number): void {
  const { added, removed, byId } = part;
  if (Math.max(added.length, byId.size) + removed.length <= most) return;
  const middle = (rows: readonly Row[]): Row | undefined => rows[rows.length >> 1];
  const upTo = added.length > removed.length ? middle(added)?.addedSeq : middle(removed)?.removedSeq;
  part.purgedSequence = upTo ?? part.sequence;
  part.added = addedSince(part, part.purgedSequence);
  part.removed = removedSince(part, part.purgedSequence);
  const kept = new Set([...part.added, ...part.removed].map(({ canonicalValue }) => canonicalValue));
  for (const [value, rows] of part.byCanonicalValue) {
    if (!kept.has(value)) for (const row of rows) withdraw(part, row);
  }
  for (const value of part.respelled.keys()) if (!kept.has(value)) part.respelled.delete(value);
}
