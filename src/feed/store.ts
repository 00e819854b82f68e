// The log in storage and its mirror in memory, changed together and only here. Storage first, in one
// synchronous transaction, then memory: a crash between the two is a restart, which reads storage. The
// runtime holds every answer back until the writes before it are durable, so no bouncer hears of a sequence
// that a crash could take back.

import type { EngineSettings } from '../engines.ts';
import { firstLocalId, isLocal, localOrigin, type Decision, type Row } from './decision.ts';
import { identify, type Names } from './identity.ts';
import * as log from './log.ts';
import {
  applyChange,
  createMirror,
  expired,
  forget,
  forgettable,
  rowsOf,
  type Change,
  type Mirror,
} from './mirror.ts';
import type { Plan } from './sync.ts';

export interface Store {
  readonly mirror: Mirror;
  state: log.FeedState;
  /** By the handles of the engines that there are. */
  readonly engines: Map<string, log.EngineState>;
  readonly names: Names;
  /** A name means another engine than when the feed last woke. */
  readonly namesMoved: boolean;
}

export function openStore(storage: DurableObjectStorage, settings: readonly EngineSettings[]): Store {
  log.openLog(storage, firstLocalId);
  const { sql } = storage;
  const before = log.readNames(sql);
  const handles = identify(settings, log.readKnownEngines(sql), before);
  const namesMoved = [...handles].some(([name, handle]) => (before.get(name) ?? handle) !== handle);
  const engines = storage.transactionSync(() => {
    for (const [name, handle] of handles) log.writeName(sql, name, handle);
    return settings.map(({ name, url }) => {
      const handle = handles.get(name) as string;
      return [handle, log.readEngine(sql, handle, url)] as const;
    });
  });
  const state = log.readState(sql);
  const mirror = createMirror(log.readRows(sql), state.sequence, state.purgedSequence);
  return { state, mirror, engines: new Map(engines), names: log.readNames(sql), namesMoved };
}

/** What an engine said, and whether it was a whole full list that is believed. */
export interface Sync extends Pick<Plan, 'add' | 'renew' | 'remove' | 'orphan'> {
  readonly engine: string;
  /** Where it was asked. */
  readonly url: string;
  readonly believed: boolean;
}

/**
 * Applies what an engine said: each removal, renewal and addition takes the next sequence. That it was heard goes into
 * the same transaction, so a sync never counts as done without its changes.
 */
export function commitSync(storage: DurableObjectStorage, store: Store, sync: Sync, nowMs: number): void {
  const state = { ...store.state };
  const engine = { ...engineState(store, sync.engine) };
  const added: { row: Row; renewed?: Row }[] = [];
  const removed = sync.remove.map((row) => removal(row, state, nowMs));
  // Orphans before additions: they step aside for decisions that come in under their ids.
  for (const row of sync.orphan) added.push(orphan(row, state));
  for (const { row, decision } of sync.renew) {
    // What bouncers know it by stays, unless it is the engine's own.
    const id = engine.keepsIds ? decision.id : row.id;
    const place = { rowId: row.rowId, engine: sync.engine, engineId: decision.id };
    added.push({ row: log.createRow(place, { ...decision, id }, ++state.sequence), renewed: row });
  }
  for (const decision of sync.add) {
    const id = engine.keepsIds ? decision.id : state.nextLocalId++;
    const place = { rowId: ++state.sequence, engine: sync.engine, engineId: decision.id };
    added.push({ row: log.createRow(place, { ...decision, id }, state.sequence) });
  }
  // Orphans mean another database: its ids count from what of it is here already.
  if (sync.orphan.length > 0) {
    const gone = new Set(sync.orphan);
    const left = [...rowsOf(store.mirror, sync.engine).values()].filter((row) => !gone.has(row));
    engine.highestId = left.reduce((highest, { engineId }) => Math.max(highest, engineId), 0);
  }
  for (const { row } of added) engine.highestId = Math.max(engine.highestId, row.engineId);
  engine.lastSyncMs = nowMs;
  if (sync.believed) {
    engine.lastResyncMs = nowMs;
    engine.trusted = { sequence: state.sequence, highestId: engine.highestId };
    engine.url = sync.url;
  }
  write(storage, store, { added, removed, sequence: state.sequence }, state, [sync.engine, engine]);
}

/** What is known of an engine that there is, by its handle. */
export function engineState(store: Store, handle: string): log.EngineState {
  return store.engines.get(handle) as log.EngineState;
}

/** Decides here: the decision gets its id. */
export function addLocal(
  storage: DurableObjectStorage,
  store: Store,
  decision: Omit<Decision, 'id' | 'origin'>,
): Row {
  const state = { ...store.state };
  const place = { rowId: ++state.sequence, engine: '', engineId: 0 };
  const told = { ...decision, id: state.nextLocalId++, origin: localOrigin };
  const row = log.createRow(place, told, state.sequence);
  write(storage, store, { added: [{ row }], removed: [], sequence: state.sequence }, state);
  return row;
}

/** Ends rows here: their time has come, or an operator took them back. */
export function remove(
  storage: DurableObjectStorage,
  store: Store,
  rows: readonly Row[],
  nowMs: number,
): void {
  if (rows.length === 0) return;
  const state = { ...store.state };
  const removed = rows.map((row) => removal(row, state, nowMs));
  write(storage, store, { added: [], removed, sequence: state.sequence }, state);
}

/**
 * Whether a row is that of an engine that there is no more: it lives to its own end, or until its engine is back. Without
 * any engine no row is, since then it is more likely that a setting was lost.
 */
export function isAbandoned({ engines }: Pick<Store, 'engines'>, row: Row): boolean {
  return engines.size > 0 && row.engine !== '' && !engines.has(row.engine);
}

/** Ends what engines left behind that there are no more: an operator vouches for all that there are. How many. */
export function removeAbandoned(storage: DurableObjectStorage, store: Store, nowMs: number): number {
  const rows = [...store.mirror.byId.values()].filter((row) => isAbandoned(store, row));
  remove(storage, store, rows, nowMs);
  return rows.length;
}

function removal(row: Row, state: log.FeedState, nowMs: number): Change['removed'][number] {
  return { row, seq: ++state.sequence, atMs: Math.min(nowMs, row.untilMs) };
}

/** A row that no engine knows any more, out of the way of its engine's ids. */
function orphan(row: Row, state: log.FeedState): Change['added'][number] & { readonly renewed: Row } {
  const id = row.id < firstLocalId ? state.nextLocalId++ : row.id;
  const { rowId, engine } = row;
  return {
    row: log.createRow({ rowId, engine, engineId: 0 }, { ...row, id }, ++state.sequence),
    renewed: row,
  };
}

function write(
  storage: DurableObjectStorage,
  store: Store,
  change: Change,
  state: log.FeedState,
  engine?: readonly [name: string, state: log.EngineState],
): void {
  demandFreeIds(store.mirror, change);
  storage.transactionSync(() => {
    log.writeChange(storage.sql, change);
    log.writeState(storage.sql, state);
    if (engine) log.writeEngine(storage.sql, ...engine);
  });
  applyChange(store.mirror, change);
  store.state = state;
  if (engine) store.engines.set(...engine);
}

/**
 * A row that came in over an active one would take its ban out of every answer without an end; over one with the same id
 * at its engine, out of that engine's reach.
 */
function demandFreeIds(mirror: Mirror, { added, removed }: Change): void {
  const freed = new Set<Row>(removed.map(({ row }) => row));
  for (const { renewed } of added) if (renewed) freed.add(renewed);
  for (const { row } of added) {
    const known = isLocal(row) ? undefined : rowsOf(mirror, row.engine).get(row.engineId);
    for (const active of [mirror.byId.get(row.id), known]) {
      if (!active || freed.has(active)) continue;
      throw new Error(`id ${row.id} (${row.engine} ${row.engineId}) is in use by an active decision`);
    }
  }
}

/** Ends what has come to its own end. Called before every answer, so that none is made from the past. */
export function sweep(storage: DurableObjectStorage, store: Store, nowMs: number): void {
  remove(storage, store, expired(store.mirror, nowMs), nowMs);
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
