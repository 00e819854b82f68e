// The log in storage and its mirror in memory, changed together and only here. Storage first, in one
// synchronous transaction, then memory: a crash between the two is a restart, which reads storage. The
// runtime holds every answer back until the writes before it are durable, so no bouncer hears of a sequence
// that a crash could take back.

import { firstLocalId, isLocal, type Decision, type Row } from './decision.ts';
import * as log from './log.ts';
import {
  applyChange,
  createMirror,
  expired,
  forget,
  forgettable,
  type Change,
  type Mirror,
} from './mirror.ts';
import type { Plan } from './sync.ts';

export interface Store {
  readonly mirror: Mirror;
  state: log.FeedState;
}

/** What to change. `local` decisions get their ids here; the rest is a sync's `Plan`. */
export interface Edit extends Partial<Pick<Plan, 'add' | 'renew' | 'remove' | 'orphan'>> {
  readonly local?: readonly Omit<Decision, 'id'>[];
}

export function openStore(storage: DurableObjectStorage): Store {
  log.openLog(storage, firstLocalId);
  const state = log.readState(storage.sql);
  return { state, mirror: createMirror(log.readRows(storage.sql), state.sequence, state.purgedSequence) };
}

/** What a sync notes beside its changes. `believed`: a full list was, whole. */
export interface SyncNote {
  readonly believed: boolean;
}

/**
 * Applies an edit: each removal, renewal and addition takes the next sequence. The note goes into the same
 * transaction, so a sync never counts as done without its changes. Returns the rows that were added.
 */
export function commit(
  storage: DurableObjectStorage,
  store: Store,
  edit: Edit,
  nowMs: number,
  note?: SyncNote,
): Row[] {
  const state: log.FeedState = { ...store.state };
  const added: { row: Row; renewed?: Row }[] = [];
  const removed = (edit.remove ?? []).map((row) => {
    return { row, seq: ++state.sequence, atMs: Math.min(nowMs, row.untilMs) };
  });
  // Orphans before additions: they step aside for decisions that come in under their ids.
  const orphans = (edit.orphan ?? []).map((row) => ({ row, decision: { ...row, id: state.nextLocalId++ } }));
  for (const { row, decision } of [...orphans, ...(edit.renew ?? [])]) {
    added.push({ row: log.createRow(row.rowId, decision, ++state.sequence), renewed: row });
  }
  const locals = (edit.local ?? []).map((decision) => ({ ...decision, id: state.nextLocalId++ }));
  for (const decision of [...(edit.add ?? []), ...locals]) {
    const sequence = ++state.sequence;
    added.push({ row: log.createRow(sequence, decision, sequence) });
  }
  // Orphans mean another database: its ids start anew.
  state.highestId = orphans.length > 0 ? 0 : state.highestId;
  for (const { row } of added) if (!isLocal(row)) state.highestId = Math.max(state.highestId, row.id);
  if (note) state.lastSyncMs = nowMs;
  if (note?.believed) {
    state.lastResyncMs = nowMs;
    state.trusted = { sequence: state.sequence, highestId: state.highestId };
  }

  const change: Change = { added, removed, sequence: state.sequence };
  demandFreeIds(store.mirror, change);
  storage.transactionSync(() => {
    log.writeChange(storage.sql, change);
    log.writeState(storage.sql, state);
  });
  applyChange(store.mirror, change);
  store.state = state;
  return added.map(({ row }) => row);
}

/** A row that came in over an active one would take its ban out of every answer without an end. */
function demandFreeIds(mirror: Mirror, { added, removed }: Change): void {
  const freed = new Set<Row>(removed.map(({ row }) => row));
  for (const { renewed } of added) if (renewed) freed.add(renewed);
  for (const { row } of added) {
    const active = mirror.byId.get(row.id);
    if (active && !freed.has(active)) throw new Error(`id ${row.id} is in use by an active decision`);
  }
}

/** Ends what has come to its own end. Called before every answer, so that none is made from the past. */
export function sweep(storage: DurableObjectStorage, store: Store, nowMs: number): void {
  const remove = expired(store.mirror, nowMs);
  if (remove.length > 0) commit(storage, store, { remove }, nowMs);
}

/** Forgets tombstones older than `cutoffMs`; cursors from before them get the full state. */
export function forgetTombstones(storage: DurableObjectStorage, store: Store, cutoffMs: number): void {
  const purgedSequence = forgettable(store.mirror, cutoffMs);
  if (purgedSequence === store.mirror.purgedSequence) return;
  const state = { ...store.state, purgedSequence };
  storage.transactionSync(() => {
    log.deleteTombstones(storage.sql, purgedSequence);
    log.writeState(storage.sql, state);
  });
  forget(store.mirror, purgedSequence);
  store.state = state;
}
