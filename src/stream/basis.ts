// The bases of cursors: what an answer to a limited bouncer was made from, so that the next one can tell what fell
// out and what came in. One for all bouncers that had the same: limits alone, or under a cap the rows as well.
// Losing one costs a full state. Cursors are written behind; so that an older one can still tell what its bouncer
// may have, a basis is in storage before the first answer from it goes out.

import { keyOf, stateOf } from './answer.ts';
import type { Cursor, Position } from './cursor.ts';
import type { Row } from '../formats/decision.ts';
import type { Mirror } from '../mirror/memory.ts';
import { chosen, type Target } from './target.ts';
import type { Standing, Basis } from './transition.ts';
import { limitsKey, viewKey, type Limits, type View } from '../mirror/view.ts';

/** What a bouncer is to have now, and the basis that stands for it. */
export interface Aim extends Target {
  readonly basis: number;
}

export interface Bases {
  readonly byId: Map<number, Basis>;
  /** The newest basis of each key; `sequence`: as of when. */
  readonly newest: Map<string, { readonly sequence: number; readonly aim: Aim }>;
  nextId: number;
  /** Those that are not in storage yet. */
  readonly unwritten: Set<number>;
  /** Writes a basis to storage; false: it can't be now. */
  readonly write: (id: number, body: string) => boolean;
}

/** Row ids in all bases together: 16 MB. Beyond it the oldest are forgotten: those of devices that are away. */
const mostHeld = 2_000_000;

export function createBases(bodies: ReadonlyMap<number, string>, write: Bases['write']): Bases {
  const byId = new Map([...bodies].map(([id, body]) => [id, decode(body)]));
  const nextId = Math.max(0, ...byId.keys()) + 1;
  return { byId, newest: new Map(), nextId, unwritten: new Set(), write };
}

/** What a view comes to now. Made once per view and sequence, whoever asks. */
export function aimAt(bases: Bases, mirror: Mirror, view: View): Aim {
  const { limits } = view;
  if (!limits) return { view, kept: null, basis: 0 };
  if (limits.maxDecisions === null) {
    const key = limitsKey(limits);
    const known = newestId(bases, key);
    if (known !== undefined) {
      const aim = { view, kept: null, basis: known };
      bases.newest.set(key, { sequence: mirror.sequence, aim });
      return aim;
    }
    return remember(bases, { key, limits, held: null }, { view, kept: null }, mirror.sequence);
  }
  // A cap counts values, which is what fills a device's table: without dedup one value could be several.
  const capped = { ...view, dedup: true };
  const key = viewKey(capped);
  const known = bases.newest.get(key);
  if (known?.sequence === mirror.sequence) return known.aim;
  const rows = chosen(stateOf(mirror, { view: capped, kept: null }), limits.maxDecisions);
  const target = { view: capped, kept: new Map(rows.map((row) => [keyOf(row), row])) };
  const held = rows.map((row: Row) => row.rowId).sort((a, b) => a - b);
  const basis = newestId(bases, key);
  if (basis !== undefined && sameList(bases.byId.get(basis)?.held ?? [], held)) {
    const aim = { ...target, basis };
    bases.newest.set(key, { sequence: mirror.sequence, aim });
    return aim;
  }
  return remember(bases, { key, limits, held }, target, mirror.sequence);
}

/** Also of those that were read from storage, so that a restart does not look like a change of limits. */
function newestId(bases: Bases, key: string): number | undefined {
  const known = bases.newest.get(key);
  if (known) return known.aim.basis;
  const ids = [...bases.byId].filter(([, basis]) => basis.key === key).map(([id]) => id);
  return ids.length === 0 ? undefined : Math.max(...ids);
}

function remember(bases: Bases, basis: Basis, target: Target, sequence: number): Aim {
  const aim = { ...target, basis: bases.nextId++ };
  bases.byId.set(aim.basis, basis);
  bases.newest.set(basis.key, { sequence, aim });
  bases.unwritten.add(aim.basis);
  writeBases(bases);
  return aim;
}

/**
 * Whether all are in storage. Answers go out all the same where nothing can be written, but no place is written that
 * stands on a basis which is not: after a restart its number would be another one's.
 */
export function writeBases(bases: Bases): boolean {
  for (const id of bases.unwritten) {
    const basis = bases.byId.get(id);
    if (basis && !bases.write(id, encode(basis))) return false;
    bases.unwritten.delete(id);
  }
  return true;
}

/** The cursor when its bases are known. */
export function grounded(bases: Bases, cursor: Cursor | undefined): Cursor | undefined {
  const known = (id: number): boolean => id === 0 || bases.byId.has(id);
  return cursor && known(cursor.before.basis) && known(cursor.last.basis) ? cursor : undefined;
}

/**
 * The bases that a bouncer with this cursor may stand on. Besides the cursor's own: those of the same view that came
 * later, since a cursor that was read from storage may be older than the last answer.
 */
export function standingsOf(bases: Bases, { before, last }: Cursor): Standing[] {
  const at = ({ sequence, basis }: Position): Standing => ({
    sequence,
    basis: bases.byId.get(basis) ?? null,
  });
  const newest = at(last);
  if (!newest.basis?.held) return [at(before), newest];
  const { key } = newest.basis;
  const later = [...bases.byId].filter(([id, basis]) => id > last.basis && basis.key === key);
  return [at(before), newest, ...later.map(([, basis]) => ({ sequence: last.sequence, basis }))];
}

/** Whether a bouncer's limits were changed since its cursor: then the new one may not wait to be written. */
export function limitsMoved(bases: Bases, { last }: Cursor, aim: Aim): boolean {
  const before = bases.byId.get(last.basis)?.key;
  return last.basis !== aim.basis && before !== bases.byId.get(aim.basis)?.key;
}

/** Forgets bases that no cursor stands on, once the cursors are in storage; returns them. */
export function forgetBases(bases: Bases, used: ReadonlySet<number>): number[] {
  let held = 0;
  const forgotten: number[] = [];
  // The newest first: ids ascend.
  for (const [id, basis] of [...bases.byId].sort(([a], [b]) => b - a)) {
    if (used.has(id)) held += basis.held?.length ?? 0;
    if (!used.has(id) || held > mostHeld) forgotten.push(id);
  }
  for (const id of forgotten) bases.byId.delete(id);
  for (const [key, { aim }] of bases.newest) {
    if (aim.basis !== 0 && !bases.byId.has(aim.basis)) bases.newest.delete(key);
  }
  return forgotten;
}

/** Row ids as differences: 20,000 of them in some 60 KB. */
function encode({ key, limits, held }: Basis): string {
  const steps = held?.map((rowId, index) => rowId - (held[index - 1] ?? 0)) ?? null;
  return JSON.stringify([key, limits, steps]);
}

function decode(body: string): Basis {
  const [key, limits, steps] = JSON.parse(body) as [string, Limits, number[] | null];
  let rowId = 0;
  return { key, limits, held: steps?.map((step) => (rowId += step)) ?? null };
}

function sameList(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}
