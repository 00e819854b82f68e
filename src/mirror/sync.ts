// What an engine answered, applied: its additions, renewals and removals, and how far its rounds have come, in one
// transaction. A mistake here counts a sync as done without its changes.

import { firstLocalId, type Decision, type Row } from '../formats/decision.ts';
import * as enginesLog from './engines.sql.ts';
import type { EngineState } from './engines.sql.ts';
import { release, rowsOf } from './memory.ts';
import { createIds, engineState, newRow, removal, write, type Store } from './mirror.ts';
import type { Progress } from './progress.ts';

/** What an answer of an engine changes. Made by engines/plan.ts. */
export interface Plan {
  readonly add: readonly Decision[];
  /** The same decision under a new id: a community pull replaced it, or its database came back. */
  readonly renew: readonly Renewal[];
  readonly remove: readonly Row[];
  /** Rows of a database that was replaced: no engine knows them any more, and they stay until their own end. */
  readonly orphan: readonly Row[];
  /** The engine's ids that the full list misses. They are kept until a second full list misses them too. */
  readonly held: ReadonlySet<number>;
  /** Why another full list has to confirm the answer; undefined: it needs no confirmation. */
  readonly warning: string | undefined;
  /** How many decisions of the answer were left out, since there is no room for them (`MAX_DECISIONS`). */
  readonly leftOut: number;
  /** The highest of the engine's ids in the answer, including those that were left out; 0: it had none. */
  readonly highestId: number;
}

export interface Renewal {
  readonly row: Row;
  readonly decision: Decision;
}

/** What an engine answered, and how far its rounds have come with it. */
export interface Sync extends Pick<Plan, 'add' | 'renew' | 'remove' | 'orphan'> {
  readonly engine: string;
  /** The address that answered. */
  readonly url: string;
  /** Of a full list: `Plan.held`. Null: it was no full list. */
  readonly held: ReadonlySet<number> | null;
  /** It did not answer: what it has said before is kept for longer. */
  readonly isSilent?: true;
  readonly progress: (state: EngineState) => Progress;
}

/**
 * Applies what an engine answered: each removal, renewal and addition takes the next sequence. The engine's progress is
 * written in the same transaction, so a sync never counts as done without its changes.
 */
export function commitSync(store: Store, sync: Sync, nowMs: number): void {
  const state = { ...store.state };
  const engine = { ...engineState(store, sync.engine) };
  const giveId = createIds(store.mirror, state);
  const isOwn = ({ id }: Decision): boolean => engine.keepsIds && id < firstLocalId;
  const added: { row: Row; renewed?: Row }[] = [];
  const removals = removal(store.mirror, sync.remove, state, nowMs);
  // Orphans before additions: they give up their engine ids, which additions may take.
  for (const row of sync.orphan) {
    const id = row.id < firstLocalId ? giveId() : row.id;
    const place = { rowId: row.rowId, engine: row.engine, engineId: 0 };
    added.push({ row: newRow(store, [place, { ...row, id }, ++state.sequence], row), renewed: row });
  }
  for (const { row, decision } of sync.renew) {
    // Bouncers keep the id that they know, unless the engine's own id is used here.
    const id = isOwn(decision) ? decision.id : row.id >= firstLocalId ? row.id : giveId();
    const place = { rowId: row.rowId, engine: sync.engine, engineId: decision.id };
    added.push({ row: newRow(store, [place, { ...decision, id }, ++state.sequence], row), renewed: row });
  }
  for (const decision of sync.add) {
    const id = isOwn(decision) ? decision.id : giveId();
    const place = { rowId: ++state.sequence, engine: sync.engine, engineId: decision.id };
    added.push({ row: newRow(store, [place, { ...decision, id }, state.sequence]) });
  }
  // Orphans mean another database: its highest id is that of the rows that stay.
  if (sync.orphan.length > 0) {
    const gone = new Set(sync.orphan);
    const left = [...rowsOf(store.mirror, sync.engine).values()].filter((row) => !gone.has(row));
    engine.highestId = left.reduce((highest, { engineId }) => Math.max(highest, engineId), 0);
  }
  for (const { row } of added) engine.highestId = Math.max(engine.highestId, row.engineId);
  if (!sync.isSilent) engine.lastSyncMs = nowMs;
  const heldBefore = engine.held;
  if (sync.held) engine.held = sync.held;
  if (sync.held?.size === 0) {
    engine.lastResyncMs = nowMs;
    engine.trusted = { sequence: state.sequence, highestId: engine.highestId };
    engine.url = sync.url;
  }
  engine.progress = sync.progress(engine);
  write(store, { ...removals, added, sequence: state.sequence }, state, (sql) => {
    enginesLog.writeEngine(sql, sync.engine, engine);
    if (engine.held.size + heldBefore.size > 0 && engine.held !== heldBefore) {
      enginesLog.writeHeld(sql, sync.engine, engine.held);
    }
  });
  store.engines.set(sync.engine, engine);
  if (sync.held) release(store.mirror, sync.engine);
}
