// The decisions in memory: active ones by id and by what they are about, and the order of all changes. It is a copy of the
// tables in decisions.sql.ts and is rebuilt from them whenever the object wakes. `applyChange` makes every change, after
// the same change is in storage.

import { sinceMs } from '../runtime/clock.ts';
import { isRespelled } from '../formats/canonical.ts';
import { isLocal, knownSince, type Row } from '../formats/decision.ts';
import { noneAllowed, type Allowed } from './allowed.ts';
import type { EngineState } from './engines.sql.ts';
import { countPrefix, type PrefixCounts } from './covering.ts';
import { createGenerations, type Generations } from '../runtime/generations.ts';

export interface Mirror {
  /** The latest sequence: the `addedSeq` or `removedSeq` of the newest change. */
  sequence: number;
  /** Tombstones up to here are deleted, except those that are kept back. A cursor below it can only get the full state. */
  purgedSequence: number;
  /** Active decisions. */
  readonly byId: Map<number, Row>;
  /** Active decisions that an engine knows: by the engine's handle, then by the engine's own id. */
  readonly byEngine: Map<string, Map<number, Row>>;
  /** Active decisions by canonical value. A view picks among the rows of one value. */
  readonly byCanonicalValue: Map<string, Row[]>;
  /** Canonical values that some row spells in another way → the tombstones of that value. */
  respelled: Map<string, Row[]>;
  readonly keptBack: KeptBack;
  /** In order of `addedSeq`. Rows that were removed or renewed since stay in it until it is compacted. */
  added: Row[];
  /** Tombstones in order of `removedSeq`. */
  removed: Row[];
  /** No active row ends before this. */
  nextExpiryMs: number;
  /** By the handles of engines whose rows do not end by our clock alone. */
  readonly holds: Map<string, Hold>;
  /** Of the active decisions on addresses. */
  readonly prefixes: PrefixCounts;
  /** By what rows are withheld. A part of a mirror has rows as they are in the whole. */
  allowed: Allowed;
  /**
   * The patterns of all entries. While rows are still judged by a new list also those of the list before: rows have them until
   * then. Empty in a part of a mirror.
   */
  patterns: readonly string[];
  /** By `viewKey`. */
  readonly viewChanges: Generations<ViewChanges>;
}

/** Changes of a view after `since`, up to `sequence`, in their order; kept for its next answers (view-changes.ts). */
export interface ViewChanges {
  since: number;
  sequence: number;
  /** Some may be removed or renewed since. */
  added: Row[];
  removed: Row[];
}

/** Of all views whose changes are kept: the changes of some 1,000. */
const mostViewBytes = 8 * 1024 * 1024;
const viewBytes = 8_000;

/**
 * Removals that outlast their tombstones. The removed text's network is still banned under another spelling, so bouncers
 * that compare networks did not get the removal. When the last ban of the network is removed, these are tombstones
 * once more and go out with it. They are in storage only, since nobody needs them before that.
 */
export interface KeptBack {
  values(): readonly string[];
  of(canonicalValue: string): readonly Row[];
}

/** After a step of the clock: what an engine had at `sequence` does not end before `untilMs`. */
export interface Hold {
  readonly sequence: number;
  readonly untilMs: number;
}

/** One change, with the sequences that it took. */
export interface Change {
  /** Removals that were kept back and are tombstones once more. */
  readonly again: readonly Row[];
  /** `renewed`: the row that `row` replaces. */
  readonly added: readonly { readonly row: Row; readonly renewed?: Row }[];
  readonly removed: readonly { readonly row: Row; readonly seq: number; readonly atMs: number }[];
  readonly sequence: number;
}

/** `rows` in any order, active ones and tombstones. */
export function createMirror(
  rows: readonly Row[],
  { sequence, purgedSequence }: Pick<Mirror, 'sequence' | 'purgedSequence'>,
  keptBack: KeptBack,
): Mirror {
  const mirror: Mirror = {
    sequence,
    purgedSequence,
    byId: new Map(),
    byEngine: new Map(),
    byCanonicalValue: new Map(),
    respelled: new Map(),
    keptBack,
    added: [],
    removed: rows.filter((row) => row.removedSeq > 0).sort((a, b) => a.removedSeq - b.removedSeq),
    nextExpiryMs: Infinity,
    holds: new Map(),
    prefixes: { v4: new Map(), v6: new Map() },
    allowed: noneAllowed,
    patterns: [],
    viewChanges: createGenerations(mostViewBytes, (key) => viewBytes + 2 * key.length),
  };
  const active = rows.filter((row) => row.removedSeq === 0).sort((a, b) => a.addedSeq - b.addedSeq);
  for (const row of active) insert(mirror, row);
  noteSpellings(mirror);
  return mirror;
}

export function applyChange(mirror: Mirror, change: Change): void {
  const { respelled } = mirror;
  const before = respelled.size;
  for (const { row } of change.added) noteSpelling(mirror, row);
  if (respelled.size > before) noteEarlier(mirror, new Set([...respelled.keys()].slice(before)));
  for (const row of change.again) {
    mirror.removed.push(row);
    noteTombstone(mirror, row);
  }
  for (const { row, seq, atMs } of change.removed) {
    withdraw(mirror, row);
    row.removedSeq = seq;
    row.removedMs = atMs;
    mirror.removed.push(row);
    noteTombstone(mirror, row);
  }
  // Removals before additions: a new row may take the id of one that is renewed.
  for (const { renewed } of change.added) if (renewed) withdraw(mirror, renewed);
  for (const { row } of change.added) insert(mirror, row);
  mirror.sequence = change.sequence;
  if (mirror.added.length > 1000 && mirror.added.length > 2 * mirror.byId.size) {
    mirror.added = mirror.added.filter((row) => isActive(mirror, row));
  }
}

/** Deletes the tombstones up to a sequence, except some. */
export function forget(mirror: Mirror, upToSequence: number, except: readonly Row[]): void {
  const staying = new Set(except);
  mirror.removed = mirror.removed.filter((row) => row.removedSeq > upToSequence || staying.has(row));
  mirror.purgedSequence = upToSequence;
  noteSpellings(mirror);
}

function noteSpelling(mirror: Mirror, row: Row): void {
  if (isRespelled(row)) noteSeveral(mirror, row.canonicalValue);
}

/** Notes that a value has several spellings. */
export function noteSeveral({ respelled }: Mirror, canonicalValue: string): void {
  if (!respelled.has(canonicalValue)) respelled.set(canonicalValue, []);
}

function noteTombstone(mirror: Mirror, row: Row): void {
  mirror.respelled.get(row.canonicalValue)?.push(row);
}

/** Notes the tombstones of values that had only one spelling until now. */
function noteEarlier(mirror: Mirror, values: ReadonlySet<string>): void {
  for (const row of mirror.removed) if (values.has(row.canonicalValue)) noteTombstone(mirror, row);
}

function noteSpellings(mirror: Mirror): void {
  mirror.respelled = new Map();
  for (const value of mirror.keptBack.values()) noteSeveral(mirror, value);
  for (const row of mirror.byId.values()) noteSpelling(mirror, row);
  for (const row of mirror.removed) noteSpelling(mirror, row);
  for (const row of mirror.removed) noteTombstone(mirror, row);
}

/** Active rows that have ended by `nowMs`. Looks at each row only if one can have ended. */
export function expired(mirror: Mirror, nowMs: number): Row[] {
  if (nowMs < mirror.nextExpiryMs) return [];
  const ended: Row[] = [];
  let nextExpiryMs = Infinity;
  for (const row of mirror.byId.values()) {
    const endsMs = endOf(mirror, row);
    if (endsMs <= nowMs) ended.push(row);
    else if (endsMs < nextExpiryMs) nextExpiryMs = endsMs;
  }
  // Not moved while ended rows are active: if their removal can't be written, they must be found again.
  if (ended.length === 0) mirror.nextExpiryMs = nextExpiryMs;
  return ended.sort((a, b) => a.untilMs - b.untilMs);
}

/** When an active row ends: its own end, or the end of a hold if that is later. */
export function endOf({ holds }: Pick<Mirror, 'holds'>, row: Row): number {
  const hold = holds.size === 0 || isLocal(row) ? undefined : holds.get(row.engine);
  return hold && knownSince(row) <= hold.sequence ? Math.max(row.untilMs, hold.untilMs) : row.untilMs;
}

/** Whether this very row is active: not ended, and not since renewed by another. */
export function isActive(mirror: Mirror, row: Row): boolean {
  return mirror.byId.get(row.id) === row;
}

/** The active rows that an engine knows, by its own ids. */
export function rowsOf(mirror: Mirror, engine: string): Map<number, Row> {
  let rows = mirror.byEngine.get(engine);
  if (!rows) mirror.byEngine.set(engine, (rows = new Map()));
  return rows;
}

/** `isNew`: it comes after all rows that were added before. */
export function insert(mirror: Mirror, row: Row, isNew = true): void {
  mirror.byId.set(row.id, row);
  if (!isLocal(row)) rowsOf(mirror, row.engine).set(row.engineId, row);
  const siblings = mirror.byCanonicalValue.get(row.canonicalValue);
  if (siblings) siblings.push(row);
  else mirror.byCanonicalValue.set(row.canonicalValue, [row]);
  if (isNew) mirror.added.push(row);
  if (row.untilMs < mirror.nextExpiryMs) mirror.nextExpiryMs = row.untilMs;
  countPrefix(mirror.prefixes, row, 1);
}

export function withdraw(mirror: Mirror, row: Row): void {
  mirror.byId.delete(row.id);
  if (!isLocal(row)) rowsOf(mirror, row.engine).delete(row.engineId);
  const { canonicalValue } = row;
  const siblings = mirror.byCanonicalValue.get(canonicalValue)?.filter((sibling) => sibling !== row) ?? [];
  if (siblings.length === 0) mirror.byCanonicalValue.delete(canonicalValue);
  else mirror.byCanonicalValue.set(canonicalValue, siblings);
  countPrefix(mirror.prefixes, row, -1);
}

/** The tombstones after a sequence. */
export function removedSince(mirror: Mirror, since: number): Row[] {
  return after(mirror.removed, since, (row) => row.removedSeq);
}

/** The rows that were added after a sequence, in its order: the first `most`. Some may be removed or renewed since. */
export function addedSince(mirror: Mirror, since: number, most = Infinity): Row[] {
  const first = firstAfter(mirror.added, since, (row) => row.addedSeq);
  return mirror.added.slice(first, first + most);
}

/** The `removedSeq` of the newest tombstone up to a sequence; 0: there is none. Equal if the tombstones after it are. */
export function removedUpTo(mirror: Mirror, sequence: number): number {
  const after = firstAfter(mirror.removed, sequence, (row) => row.removedSeq);
  return mirror.removed[after - 1]?.removedSeq ?? 0;
}

/** Those of some rows, which are in the order of `sequenceOf`, that come after a sequence. */
export function after(rows: readonly Row[], since: number, sequenceOf: (row: Row) => number): Row[] {
  return rows.slice(firstAfter(rows, since, sequenceOf));
}

function firstAfter(rows: readonly Row[], since: number, sequenceOf: (row: Row) => number): number {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sequenceOf(rows[middle] as Row) > since) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** How long after a step of the clock the clock alone ends no decision of an engine. */
const heldMs = 600_000;
/** A shorter pause between two looks at the clock is no step. */
const leastStepMs = 60_000;

export interface Watched {
  readonly mirror: Mirror;
  readonly engines: Map<string, EngineState>;
  /** When the clock was last read; 0: not since the object woke. */
  clockMs: number;
  readonly syncIntervalMs: number;
}

/**
 * Reads the clock before every answer and every round, before any row ends by it. A clock that jumps ahead and a machine
 * that slept look alike: by the clock every decision has ended, and only the engine knows better. So a full list is asked
 * for at once, and until it comes (for ten minutes at most) the engine's decisions stay. Decisions made here end by our
 * clock all the same.
 */
export function watchClock(watched: Watched, nowMs: number): void {
  const { mirror, engines, clockMs, syncIntervalMs } = watched;
  const stepMs = Math.max(leastStepMs, 3 * syncIntervalMs);
  for (const [handle, state] of engines) {
    // At the first look since the object woke, the engine's last round tells how long the object slept.
    const beforeMs = clockMs || state.progress.roundMs;
    const passedMs = beforeMs === 0 ? 0 : sinceMs(beforeMs, nowMs);
    if (passedMs <= stepMs) continue;
    // Infinity: the clock was set back. No row needs a hold; the full list brings removals that are now late.
    if (passedMs === Infinity) release(mirror, handle);
    else if (state.lastResyncMs > 0) {
      mirror.holds.set(handle, { sequence: mirror.sequence, untilMs: nowMs + heldMs });
    }
    engines.set(handle, { ...state, progress: { ...state.progress, urgency: 'now' } });
  }
  watched.clockMs = nowMs;
}

/** The engine's full list is here, so its rows may end by our clock again. */
export function release(mirror: Mirror, handle: string): void {
  if (mirror.holds.delete(handle)) mirror.nextExpiryMs = 0;
}
