// The log in storage and its mirror in memory, changed together and only here. Storage first, in one
// synchronous transaction, then memory: a crash between the two is a restart, which reads storage. The
// runtime holds every answer back until the writes before it are durable, so no bouncer hears of a sequence
// that a crash could take back.

import { sinceMs } from '../runtime/clock.ts';
import type { Settings } from '../config/settings.ts';
import { unwritable } from '../store/unwritable.ts';
import { release, watchClock, type Watched } from './clock-step.ts';
import { firstLocalId, givenId, isLocal, localOrigin, type Decision, type Row } from '../formats/decision.ts';
import * as enginesLog from './engines.sql.ts';
import type { EngineState } from './engines.sql.ts';
import { identify, lastNames, type Names } from './engine-names.ts';
import {
  deleteKeptBack,
  openKeptBack,
  readKeptBack,
  readKeptBackValues,
  writeKeptBack,
} from './kept-back.sql.ts';
import { whyLeftBehind } from './left-behind.ts';
import * as log from './decisions.sql.ts';
import { applyChange, createMirror, expired, forget, rowsOf, type Change, type Mirror } from './memory.ts';
import type { Progress } from './progress.ts';
import type { Plan } from './plan.ts';
import { isKeptBack, mostAtOnce, outlastingUpTo } from './tombstones.ts';

export interface Store extends Watched {
  /**
   * When a write failed that waits to be tried again (a full disk, a used-up quota): reads go on without it. Null: nothing
   * waits.
   */
  failedWriteMs: number | null;
  state: log.FeedState;
  readonly names: Names;
  /** A name means another engine than when the feed last woke. */
  readonly namesMoved: boolean;
}

export function openStore(
  storage: DurableObjectStorage,
  { engines: settings, syncIntervalMs, maxDecisions }: Settings,
): Store {
  log.openLog(storage, firstLocalId);
  openKeptBack(storage.sql);
  const { sql } = storage;
  const before = enginesLog.readNames(sql);
  const handles = identify(settings, enginesLog.readKnownEngines(sql), before);
  const namesMoved = [...handles].some(([name, handle]) => (before.get(name) ?? handle) !== handle);
  const last = lastNames(before);
  const engines = storage.transactionSync(() => {
    for (const [name, handle] of handles) {
      if (last.get(handle) !== name) enginesLog.writeName(sql, name, handle);
    }
    return settings.map(({ name, url }) => {
      const handle = handles.get(name) as string;
      return [handle, enginesLog.readEngine(sql, handle, url)] as const;
    });
  });
  const read = log.readState(sql);
  const tooMany = log.tombstoneBefore(sql, mostAtOnce(maxDecisions));
  const mirror = createMirror(log.readRows(sql, tooMany ?? 0), read, {
    values: () => readKeptBackValues(sql),
    of: (canonicalValue) => readKeptBack(sql, canonicalValue),
  });
  const state = tooMany === null ? read : forgetUnread(storage, read, mirror, tooMany);
  const names = enginesLog.readNames(sql);
  return {
    state,
    mirror,
    engines: new Map(engines),
    names,
    namesMoved,
    clockMs: 0,
    syncIntervalMs,
    failedWriteMs: null,
  };
}

/** What an engine said, and how far its rounds have come with it. */
export interface Sync extends Pick<Plan, 'add' | 'renew' | 'remove' | 'orphan'> {
  readonly engine: string;
  /** Where it was asked. */
  readonly url: string;
  /** Of a whole full list: what it missed and is kept. Null: it was no full list. */
  readonly held: ReadonlySet<number> | null;
  readonly progress: (state: EngineState) => Progress;
}

/**
 * Applies what an engine said: each removal, renewal and addition takes the next sequence. That it was heard goes into
 * the same transaction, so a sync never counts as done without its changes.
 */
export function commitSync(storage: DurableObjectStorage, store: Store, sync: Sync, nowMs: number): void {
  const state = { ...store.state };
  const engine = { ...engineState(store, sync.engine) };
  const giveId = createIds(store.mirror, state);
  const isOwn = ({ id }: Decision): boolean => engine.keepsIds && id < firstLocalId;
  const added: { row: Row; renewed?: Row }[] = [];
  const ends = removal(store.mirror, sync.remove, state, nowMs);
  // Orphans before additions: they step aside for decisions that come in under their ids.
  for (const row of sync.orphan) added.push(orphan(row, state, giveId));
  for (const { row, decision } of sync.renew) {
    // What bouncers know it by stays, unless it is the engine's own.
    const id = isOwn(decision) ? decision.id : row.id >= firstLocalId ? row.id : giveId();
    const place = { rowId: row.rowId, engine: sync.engine, engineId: decision.id };
    added.push({ row: log.createRow(place, { ...decision, id }, ++state.sequence), renewed: row });
  }
  for (const decision of sync.add) {
    const id = isOwn(decision) ? decision.id : giveId();
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
  const heldBefore = engine.held;
  if (sync.held) engine.held = sync.held;
  if (sync.held?.size === 0) {
    engine.lastResyncMs = nowMs;
    engine.trusted = { sequence: state.sequence, highestId: engine.highestId };
    engine.url = sync.url;
  }
  engine.progress = sync.progress(engine);
  write(storage, store, { ...ends, added, sequence: state.sequence }, state, () => {
    enginesLog.writeEngine(storage.sql, sync.engine, engine);
    if (engine.held.size + heldBefore.size > 0 && engine.held !== heldBefore) {
      enginesLog.writeHeld(storage.sql, sync.engine, engine.held);
    }
  });
  store.engines.set(sync.engine, engine);
  if (sync.held) release(store.mirror, sync.engine);
}

/** Writes how far the rounds with an engine have come, where there is nothing to commit with it. */
export function saveProgress(
  storage: DurableObjectStorage,
  store: Store,
  handle: string,
  progress: Progress,
): void {
  const engine = { ...engineState(store, handle), progress };
  // What is in memory goes on, also where nothing can be written.
  store.engines.set(handle, engine);
  writeDown(storage, store, () => enginesLog.writeEngine(storage.sql, handle, engine));
}

/** Gives ids in their order, and those whose decision and tombstone are gone again when all were given once. */
function createIds(mirror: Mirror, state: log.FeedState): () => number {
  let buried: ReadonlySet<number> | undefined;
  return () => {
    for (;;) {
      const count = state.nextLocalId++;
      const id = givenId(count);
      if (id === count) return id;
      buried ??= new Set(mirror.removed.map((row) => row.id));
      if (!mirror.byId.has(id) && !buried.has(id)) return id;
    }
  };
}

/** What is known of an engine that there is, by its handle. */
export function engineState(store: Store, handle: string): EngineState {
  return store.engines.get(handle) as EngineState;
}

/** Decides here: the decision gets its id. `besides` is written with it. */
export function addLocal(
  storage: DurableObjectStorage,
  store: Store,
  decision: Omit<Decision, 'id' | 'origin'>,
  besides: (row: Row) => void,
): Row {
  const state = { ...store.state };
  const place = { rowId: ++state.sequence, engine: '', engineId: 0 };
  const told = { ...decision, id: createIds(store.mirror, state)(), origin: localOrigin };
  const row = log.createRow(place, told, state.sequence);
  const change = { again: [], removed: [], added: [{ row }], sequence: state.sequence };
  write(storage, store, change, state, () => besides(row));
  return row;
}

/** Ends rows here: their time has come, or an operator took them back. `besides` is written with it. */
export function remove(
  storage: DurableObjectStorage,
  store: Store,
  rows: readonly Row[],
  nowMs: number,
  besides: () => void = () => undefined,
): void {
  if (rows.length === 0) return;
  const state = { ...store.state };
  const ends = removal(store.mirror, rows, state, nowMs);
  write(storage, store, { ...ends, added: [], sequence: state.sequence }, state, besides);
}

/** Ends what engines left behind that there are no more: an operator vouches for all that there are. How many. */
export function removeAbandoned(storage: DurableObjectStorage, store: Store, nowMs: number): number {
  const rows = [...store.mirror.byId.values()].filter(
    (row) => whyLeftBehind(store.engines, row) === 'engine-removed',
  );
  remove(storage, store, rows, nowMs);
  return rows.length;
}

/** The ends of rows, and before them those of their networks that were kept back: this may be what they waited for. */
function removal(
  { respelled, keptBack }: Mirror,
  rows: readonly Row[],
  state: log.FeedState,
  nowMs: number,
): Pick<Change, 'again' | 'removed'> {
  const values = new Set(
    rows.map(({ canonicalValue }) => canonicalValue).filter((value) => respelled.has(value)),
  );
  const again = [...values].flatMap((value) => keptBack.of(value));
  for (const row of again) {
    row.removedSeq = ++state.sequence;
    row.removedMs = nowMs;
  }
  const removed = rows.map((row) => ({ row, seq: ++state.sequence, atMs: Math.min(nowMs, row.untilMs) }));
  return { again, removed };
}

/** A row that no engine knows any more, out of the way of its engine's ids. */
function orphan(
  row: Row,
  state: log.FeedState,
  giveId: () => number,
): Change['added'][number] & { readonly renewed: Row } {
  const id = row.id < firstLocalId ? giveId() : row.id;
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
  besides: () => void = () => undefined,
): void {
  demandFreeIds(store.mirror, change);
  writeDown(storage, store, () => {
    deleteKeptBack(storage.sql, change.again);
    log.writeChange(storage.sql, change);
    // Where nothing changed there is nothing to count on.
    if (state.sequence !== store.state.sequence) log.writeState(storage.sql, state);
    besides();
  });
  applyChange(store.mirror, change);
  store.state = state;
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

/**
 * Ends what has come to its own end. Called before every answer, so that none is made from the past. An end that can't
 * be written is told to nobody yet; what has ended is in no answer all the same.
 */
export function sweep(storage: DurableObjectStorage, store: Store, nowMs: number): void {
  watchClock(store, nowMs);
  if (isTriedJustNow(store, nowMs)) return;
  const ended = expired(store.mirror, nowMs);
  if (ended.length > 0) writeIfPossible(store, nowMs, () => remove(storage, store, ended, nowMs));
}

const retryWriteMs = 1_000;

function isTriedJustNow({ failedWriteMs }: Store, nowMs: number): boolean {
  return failedWriteMs !== null && sinceMs(failedWriteMs, nowMs) < retryWriteMs;
}

/** A write that an answer does not need: where it fails it is tried again later, and the answer goes out. */
export function writeIfPossible(store: Store, nowMs: number, write: () => void): void {
  if (!isTriedJustNow(store, nowMs)) tryToWrite(store, nowMs, write);
}

/** What went wrong; null: it is written. A failure is seen in `/health`, and once in the log. */
export function tryToWrite(store: Store, nowMs: number, write: () => void): Error | null {
  try {
    write();
    if (store.failedWriteMs !== null) console.error('the feed can write again');
    store.failedWriteMs = null;
    return null;
  } catch (error) {
    return noteFailedWrite(store, nowMs, error);
  }
}

export function noteFailedWrite(store: Store, nowMs: number, error: unknown): Error {
  const failed = unwritable('the feed’s storage', error);
  if (store.failedWriteMs === null) console.error(`${failed.message}; it goes on with what it has`);
  store.failedWriteMs = nowMs;
  return failed;
}

/** All of it or nothing. Throws what `isUnwritable` knows. */
function writeDown(storage: DurableObjectStorage, store: Store, write: () => void): void {
  const failed = tryToWrite(store, Date.now(), () => storage.transactionSync(write));
  if (failed) throw failed;
}

/** Forgets tombstones up to a sequence, but for those that outlast it; cursors from before it get the full state. */
export function forgetTombstones(storage: DurableObjectStorage, store: Store, upToSequence: number): void {
  if (upToSequence <= store.mirror.purgedSequence) return;
  const { keptBack, waiting } = outlastingUpTo(store.mirror, upToSequence);
  const state = { ...store.state, purgedSequence: upToSequence };
  storage.transactionSync(() => {
    writeKeptBack(storage.sql, keptBack);
    log.deleteTombstones(storage.sql, upToSequence, waiting);
    log.writeState(storage.sql, state);
  });
  store.state = state;
  forget(store.mirror, upToSequence, waiting);
}

const pageRows = 10_000;

/** Forgets the tombstones that were not read since they are too many. */
function forgetUnread(
  storage: DurableObjectStorage,
  before: log.FeedState,
  mirror: Mirror,
  purgedSequence: number,
): log.FeedState {
  const { sql } = storage;
  const isLeft = (row: Row): boolean =>
    isKeptBack(mirror.byCanonicalValue.get(row.canonicalValue) ?? [], row);
  const state = { ...before, purgedSequence };
  const forgetStored = (): void => {
    for (let lastRowId: number | undefined = 0; lastRowId !== undefined;) {
      const page = log.readTombstones(sql, purgedSequence, lastRowId, pageRows);
      writeKeptBack(sql, page.filter(isLeft));
      lastRowId = page.at(-1)?.rowId;
    }
    log.deleteTombstones(sql, purgedSequence, []);
    log.writeState(sql, state);
  };
  try {
    storage.transactionSync(forgetStored);
  } catch (error) {
    // They are not in memory at any rate, and the next wake tries again.
    console.error(`${unwritable('the feed’s storage', error).message}; it goes on with what it has`);
  }
  forget(mirror, purgedSequence, []);
  return state;
}
