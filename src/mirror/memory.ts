// The log in memory: active decisions by id and by what they are about, and both orders of change. A cache of log.ts's
// tables and nothing else: it is rebuilt from them whenever the object wakes. Every change goes through
// `applyChange`, after the same change is in storage.

import { isRespelled } from '../formats/canonical.ts';
import { isLocal, type Row } from '../formats/decision.ts';
import { createNetworkIndex, type NetworkIndex } from './network-index.ts';

export interface Mirror {
  /** The feed's change counter: the `addedSeq` or `removedSeq` of the newest change. */
  sequence: number;
  /** Tombstones up to here are gone but for ends that are kept back: a cursor below it can only be answered with the full state. */
  purgedSequence: number;
  /** Active decisions. */
  readonly byId: Map<number, Row>;
  /** Of them those that an engine knows: by the engine's handle, then by its own id. */
  readonly byEngine: Map<string, Map<number, Row>>;
  /** Active decisions by canonical value: the siblings among which a view picks, and those that keep an end back. */
  readonly byCanonicalValue: Map<string, Row[]>;
  /**
   * By the canonical values that some row has in another spelling, or one that is kept back: their tombstones, which may
   * have been kept back.
   */
  respelled: Map<string, Row[]>;
  /** Ends that are kept back in storage alone. */
  readonly keptBack: KeptBack;
  /** In order of `addedSeq`. Rows that ended or were renewed since stay in until compaction. */
  added: Row[];
  /** Tombstones in order of `removedSeq`. */
  removed: Row[];
  /** No active row ends before this. */
  nextExpiryMs: number;
  /** By the handles of engines whose rows are not ended by the clock alone. */
  readonly holds: Map<string, Hold>;
  /** Built when the first live lookup needs it. */
  networks: NetworkIndex | undefined;
}

/** Reads kept-back.ts's table. */
export interface KeptBack {
  values(): readonly string[];
  of(canonicalValue: string): readonly Row[];
}

/** After a step of the clock: what an engine had at `sequence` does not end before `untilMs` (clock-step.ts). */
export interface Hold {
  readonly sequence: number;
  readonly untilMs: number;
}

/**
 * One change of the log, with the sequences it took. `again`: ends that were kept back in storage alone, which are
 * tombstones once more. `renewed` is the row that `row` took the place of.
 */
export interface Change {
  readonly again: readonly Row[];
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
    networks: undefined,
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
  // All that goes before anything that comes: a row may come in under the id that another one leaves.
  for (const { renewed } of change.added) if (renewed) withdraw(mirror, renewed);
  for (const { row } of change.added) insert(mirror, row);
  mirror.sequence = change.sequence;
  if (mirror.added.length > 1000 && mirror.added.length > 2 * mirror.byId.size) {
    mirror.added = mirror.added.filter((row) => isActive(mirror, row));
  }
}

/** Forgets the tombstones up to a sequence, but for some. */
export function forget(mirror: Mirror, upToSequence: number, but: readonly Row[]): void {
  const staying = new Set(but);
  mirror.removed = mirror.removed.filter((row) => row.removedSeq > upToSequence || staying.has(row));
  mirror.purgedSequence = upToSequence;
  noteSpellings(mirror);
}

function noteSpelling(mirror: Mirror, row: Row): void {
  if (isRespelled(row)) noteSeveral(mirror, row.canonicalValue);
}

function noteSeveral({ respelled }: Mirror, canonicalValue: string): void {
  if (!respelled.has(canonicalValue)) respelled.set(canonicalValue, []);
}

function noteTombstone(mirror: Mirror, row: Row): void {
  mirror.respelled.get(row.canonicalValue)?.push(row);
}

/** The tombstones of values that had one spelling until now. */
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

/** Active rows whose time has come; empty, without a look at each row, when none can have. */
export function expired(mirror: Mirror, nowMs: number): Row[] {
  if (nowMs < mirror.nextExpiryMs) return [];
  const ended: Row[] = [];
  let nextExpiryMs = Infinity;
  for (const row of mirror.byId.values()) {
    const endsMs = endOf(mirror, row);
    if (endsMs <= nowMs) ended.push(row);
    else if (endsMs < nextExpiryMs) nextExpiryMs = endsMs;
  }
  // Moves when what has ended is away: until that is written it is found again.
  if (ended.length === 0) mirror.nextExpiryMs = nextExpiryMs;
  return ended.sort((a, b) => a.untilMs - b.untilMs);
}

/** When an active row ends: by our clock, unless that one just took a step. */
export function endOf({ holds }: Mirror, row: Row): number {
  const hold = holds.size === 0 || isLocal(row) ? undefined : holds.get(row.engine);
  return hold && row.addedSeq <= hold.sequence ? Math.max(row.untilMs, hold.untilMs) : row.untilMs;
}

/** Whether this very row is active: not ended, and not since renewed by another. */
export function isActive(mirror: Mirror, row: Row): boolean {
  return mirror.byId.get(row.id) === row;
}

/** What an engine is known to have, by its own ids. */
export function rowsOf(mirror: Mirror, engine: string): Map<number, Row> {
  let rows = mirror.byEngine.get(engine);
  if (!rows) mirror.byEngine.set(engine, (rows = new Map()));
  return rows;
}

/** The index over addresses, made at the first need so that feeds without live lookups never pay for it. */
export function networksOf(mirror: Mirror): NetworkIndex {
  if (!mirror.networks) {
    mirror.networks = createNetworkIndex();
    for (const row of mirror.byId.values()) mirror.networks.insert(row);
  }
  return mirror.networks;
}

function insert(mirror: Mirror, row: Row): void {
  mirror.byId.set(row.id, row);
  if (!isLocal(row)) rowsOf(mirror, row.engine).set(row.engineId, row);
  const siblings = mirror.byCanonicalValue.get(row.canonicalValue);
  if (siblings) siblings.push(row);
  else mirror.byCanonicalValue.set(row.canonicalValue, [row]);
  mirror.added.push(row);
  if (row.untilMs < mirror.nextExpiryMs) mirror.nextExpiryMs = row.untilMs;
  mirror.networks?.insert(row);
}

function withdraw(mirror: Mirror, row: Row): void {
  mirror.byId.delete(row.id);
  if (!isLocal(row)) rowsOf(mirror, row.engine).delete(row.engineId);
  const { canonicalValue } = row;
  const siblings = mirror.byCanonicalValue.get(canonicalValue)?.filter((sibling) => sibling !== row) ?? [];
  if (siblings.length === 0) mirror.byCanonicalValue.delete(canonicalValue);
  else mirror.byCanonicalValue.set(canonicalValue, siblings);
  mirror.networks?.withdraw(row);
}
