// The decisions in storage and in memory, changed together and only here. Storage comes first, in one synchronous
// transaction, then memory: a crash between the two is a restart, which reads storage. The runtime holds back every
// answer until the writes before it are durable, so no bouncer sees a sequence that a crash could take back.

import { sinceMs } from '../runtime/clock.ts';
import type { Settings } from '../config/settings.ts';
import { isEngine, readsAllowLists } from '../config/upstreams.ts';
import { unwritable } from '../store/unwritable.ts';
import { createAllowed, patternsOf, unionOf, fromWhom } from './allowed.ts';
import { readAllowed, readWithheld, writeWithheld, type StoredEntry } from './allowed.sql.ts';
import { firstLocalId, givenId, isLocal, localOrigin, type Decision, type Row } from '../formats/decision.ts';
import * as enginesLog from './engines.sql.ts';
import type { EngineState } from './engines.sql.ts';
import { identify, lastNames, type Names } from './engine-names.ts';
import * as log from './decisions.sql.ts';
import {
  applyChange,
  createMirror,
  expired,
  forget,
  rowsOf,
  watchClock,
  type Change,
  type Mirror,
  type Watched,
} from './memory.ts';
import { allPieces, type Unjudged } from './pieces.ts';
import type { Progress } from './progress.ts';
import { isKeptBack, mostAtOnce, outlastingUpTo } from './tombstones.ts';

export interface Store extends Watched {
  readonly storage: DurableObjectStorage;
  /** When the newest write failed (a full disk, a used-up quota): reads go on without it. Null: it did not fail. */
  failedWriteMs: number | null;
  state: log.FeedState;
  readonly names: Names;
  /** The handles of upstreams that are no engine. */
  readonly sources: ReadonlySet<string>;
  /** A name means another engine than when the object last woke. */
  readonly namesMoved: boolean;
  /** As it was last learnt from D1 (allow-list.ts). `atMs`: when it was applied. `nextMs`: no applied entry ends before. */
  allowList: { readonly entries: readonly StoredEntry[]; readonly atMs: number; readonly nextMs: number };
  readonly unjudged: Unjudged;
}

export function openStore(
  storage: DurableObjectStorage,
  { upstreams: settings, syncIntervalMs, maxDecisions }: Settings,
): Store {
  log.openDecisions(storage, firstLocalId);
  const { sql } = storage;
  const before = enginesLog.readNames(sql);
  const handles = identify(settings, enginesLog.readKnownEngines(sql), before);
  const namesMoved = [...handles].some(([name, handle]) => (before.get(name) ?? handle) !== handle);
  const last = lastNames(before);
  const engines = storage.transactionSync(() => {
    for (const [name, handle] of handles) {
      if (last.get(handle) !== name) enginesLog.writeName(sql, name, handle);
    }
    return settings.map((upstream) => {
      const { name, url } = upstream;
      const handle = handles.get(name) as string;
      return [handle, enginesLog.readEngine(sql, handle, url, isEngine(upstream))] as const;
    });
  });
  const state = log.readState(sql);
  const tooMany = log.tombstoneBefore(sql, mostAtOnce(maxDecisions));
  const reads = new Set(settings.filter(readsAllowLists).map(({ name }) => handles.get(name)));
  const entries = readAllowed(sql).filter(({ from }) => !from || reads.has(from.engine));
  const allowed = createAllowed(entries.filter(({ applied }) => applied));
  const withheld = readWithheld(sql);
  const rows = log.readRows(sql, tooMany ?? 0);
  const mirror = createMirror(
    withheld.size === 0 ? rows : rows.map((row) => asWithheld(row, withheld.get(row.rowId))),
    state,
    {
      values: () => log.readKeptBackValues(sql),
      of: (canonicalValue) => log.readKeptBack(sql, canonicalValue),
    },
  );
  mirror.allowed = allowed;
  mirror.patterns = unionOf([patternsOf(allowed), ...withheld.values()]);
  const store = {
    storage,
    state,
    mirror,
    engines: new Map(engines),
    sources: new Set(
      settings.filter((each) => !isEngine(each)).map(({ name }) => handles.get(name) as string),
    ),
    names: enginesLog.readNames(sql),
    namesMoved,
    allowList: { entries, atMs: 0, nextMs: 0 },
    // A change of the list may have been broken off.
    unjudged: {
      pieces: allowed.entries.length + withheld.size === 0 ? [] : [allPieces(mirror)],
      judging: null,
    },
    clockMs: 0,
    syncIntervalMs,
    failedWriteMs: null,
  };
  if (tooMany !== null) forgetUnread(store, tooMany);
  return store;
}

/** Writes the progress of an engine's rounds when no change of decisions goes with it. */
export function saveProgress(store: Store, handle: string, progress: Progress): void {
  const engine = { ...engineState(store, handle), progress };
  // Memory first: rounds go on when nothing can be written.
  store.engines.set(handle, engine);
  writeDown(store, (sql) => enginesLog.writeEngine(sql, handle, engine));
}

/** Gives ids in their order. When all were given once, it reuses those without a decision and a tombstone. */
export function createIds(mirror: Mirror, state: log.FeedState): () => number {
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

/** The state of a configured engine, by its handle. */
export function engineState(store: Store, handle: string): EngineState {
  return store.engines.get(handle) as EngineState;
}

/** A row that is added; the allow-list may withhold it. One that is renewed stays as it is: bouncers may have it. */
export function newRow(
  { mirror }: Store,
  [place, decision, sequence]: Parameters<typeof log.createRow>,
  renewed?: Row,
): Row {
  const row = log.createRow(place, decision, sequence);
  return asWithheld(row, renewed ? renewed.withheld : fromWhom(mirror.allowed, row));
}

export function asWithheld(row: Row, withheld: Row['withheld']): Row {
  return withheld === undefined ? row : { ...row, withheld };
}

/** Adds a decision that was made here; it gets an id. `alongside` writes in the same transaction. */
export function addLocal(
  store: Store,
  decision: Omit<Decision, 'id' | 'origin'>,
  alongside: (row: Row) => void,
): Row {
  const state = { ...store.state };
  const place = { rowId: ++state.sequence, engine: '', engineId: 0 };
  const local = { ...decision, id: createIds(store.mirror, state)(), origin: localOrigin };
  const row = newRow(store, [place, local, state.sequence]);
  const change = { again: [], removed: [], added: [{ row }], sequence: state.sequence };
  write(store, change, state, () => alongside(row));
  return row;
}

/** Removes rows: they have ended, or an operator removed them. `alongside` writes in the same transaction. */
export function remove(store: Store, rows: readonly Row[], nowMs: number, alongside?: () => void): void {
  if (rows.length === 0) return;
  const state = { ...store.state };
  const removals = removal(store.mirror, rows, state, nowMs);
  write(store, { ...removals, added: [], sequence: state.sequence }, state, alongside);
}

/** The removals of rows, which take the next sequences of `state`. Those of their networks that were kept back come first, since they may go out now. */
export function removal(
  { respelled, keptBack }: Mirror,
  rows: readonly Row[],
  state: log.FeedState,
  nowMs: number,
): Pick<Change, 'again' | 'removed'> {
  const values = rows.map(({ canonicalValue }) => canonicalValue).filter((value) => respelled.has(value));
  const again = [...new Set(values)].flatMap((value) => keptBack.of(value));
  for (const row of again) {
    row.removedSeq = ++state.sequence;
    row.removedMs = nowMs;
  }
  const removed = rows.map((row) => ({ row, seq: ++state.sequence, atMs: Math.min(nowMs, row.untilMs) }));
  return { again, removed };
}

/** Makes a change in storage, then in memory. Throws an error that `isUnwritable` recognises. */
export function write(
  store: Store,
  change: Change,
  state: log.FeedState,
  alongside?: (sql: SqlStorage) => void,
): void {
  demandFreeIds(store.mirror, change);
  writeDown(store, (sql) => {
    log.deleteKeptBack(sql, change.again);
    log.writeChange(sql, change);
    writeWithheld(sql, change);
    // Where nothing changed there is no counter to write.
    if (state.sequence !== store.state.sequence) log.writeState(sql, state);
    alongside?.(sql);
  });
  applyChange(store.mirror, change);
  store.state = state;
}

/**
 * Throws when a new row would take the id of an active one. With the same id here, the active row's ban would vanish from
 * every answer without a removal; with the same id at its engine, the engine could not remove it any more.
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
 * Removes the rows that have ended. Called before every answer, so that none is older than the clock. A removal that
 * can't be written goes out later; no answer has the ended row meanwhile.
 */
export function sweep(store: Store, nowMs: number): void {
  watchClock(store, nowMs);
  if (hasJustFailed(store, nowMs)) return;
  const ended = expired(store.mirror, nowMs);
  if (ended.length > 0) writeIfPossible(store, nowMs, () => remove(store, ended, nowMs));
}

const retryWriteMs = 1_000;

export function hasJustFailed({ failedWriteMs }: Store, nowMs: number): boolean {
  return failedWriteMs !== null && sinceMs(failedWriteMs, nowMs) < retryWriteMs;
}

/** For a write that no answer needs: when it fails, the answer goes out and the write is tried again later. */
export function writeIfPossible(store: Store, nowMs: number, write: () => void): void {
  if (!hasJustFailed(store, nowMs)) tryToWrite(store, nowMs, write);
}

/** The error of a write that failed, or null. A failure shows in `/health`, and once in the log. */
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

/** Writes all or nothing. Throws an error that `isUnwritable` recognises. */
function writeDown(store: Store, write: (sql: SqlStorage) => void): void {
  const { storage } = store;
  const failed = tryToWrite(store, Date.now(), () => storage.transactionSync(() => write(storage.sql)));
  if (failed) throw failed;
}

/** Deletes tombstones up to a sequence, except those that outlast it. Older cursors get the full state. */
export function forgetTombstones(store: Store, upToSequence: number): void {
  if (upToSequence <= store.mirror.purgedSequence) return;
  const { sql } = store.storage;
  const { keptBack, waiting } = outlastingUpTo(store.mirror, upToSequence);
  const state = { ...store.state, purgedSequence: upToSequence };
  store.storage.transactionSync(() => {
    log.writeKeptBack(sql, keptBack);
    log.deleteTombstones(sql, upToSequence, waiting);
    log.writeState(sql, state);
  });
  store.state = state;
  forget(store.mirror, upToSequence, waiting);
}

const pageRows = 10_000;

/** Deletes the tombstones that were too many to be read at the start. */
function forgetUnread(store: Store, purgedSequence: number): void {
  const { storage, mirror } = store;
  const { sql } = storage;
  const isLeft = (row: Row): boolean =>
    isKeptBack(mirror.byCanonicalValue.get(row.canonicalValue) ?? [], row);
  const state = { ...store.state, purgedSequence };
  const forgetStored = (): void => {
    for (let lastRowId: number | undefined = 0; lastRowId !== undefined;) {
      const page = log.readTombstones(sql, purgedSequence, lastRowId, pageRows);
      log.writeKeptBack(sql, page.filter(isLeft));
      lastRowId = page.at(-1)?.rowId;
    }
    log.deleteTombstones(sql, purgedSequence, []);
    log.writeState(sql, state);
  };
  try {
    storage.transactionSync(forgetStored);
  } catch (error) {
    // They are not in memory, and the next start tries again.
    console.error(`${unwritable('the feed’s storage', error).message}; it goes on with what it has`);
  }
  forget(mirror, purgedSequence, []);
  store.state = state;
}
