// What operators decide here, engine or not: bans, unbans and the list to decide by.

import { decisionOf, isLocal, type Decision } from './decision.ts';
import * as log from './log.ts';
import { addLocal, isAbandoned, remove, type Store } from './store.ts';

/** A decision as operators list it: with the engine that it came from; null: it was decided here. */
export interface Listed extends Decision {
  readonly engine: string | null;
}

export type Match = Partial<Pick<Decision, 'value' | 'type' | 'scope'>>;

export interface Removal {
  readonly removed: number;
  /** The engines whose decisions match, too: only they can take those back. */
  readonly leftAt: readonly string[];
}

/** The same `request` again within a day gets the same decision, ended or not. */
export function ban(
  storage: DurableObjectStorage,
  store: Store,
  decision: Omit<Decision, 'id' | 'origin'>,
  request: string | null,
): Decision {
  const earlier = request === null ? null : log.readOnce(storage.sql, request);
  if (earlier !== null) return JSON.parse(earlier) as Decision;
  const added = decisionOf(addLocal(storage, store, decision));
  // In the same turn, hence in one transaction with the decision.
  if (request !== null) log.writeOnce(storage.sql, request, JSON.stringify(added), Date.now());
  return added;
}

export function unban(storage: DurableObjectStorage, store: Store, match: Match): Removal {
  const nameOf = namesByHandle(store);
  const rows = [...store.mirror.byId.values()].filter(
    (row) =>
      (match.value === undefined || row.value === match.value) &&
      (match.type === undefined || row.type === match.type) &&
      (match.scope === undefined || row.scope === match.scope),
  );
  // Besides local decisions that is what a lost database or an engine that is no more left behind.
  const ours = rows.filter((row) => isLocal(row) || isAbandoned(store, row));
  const left = new Set(rows.filter((row) => !ours.includes(row)).map((row) => nameOf(row.engine)));
  remove(storage, store, ours, Date.now());
  return { removed: ours.length, leftAt: [...left].sort() };
}

/** What an engine is called now, or was last, by the handle that its decisions are kept under. */
function namesByHandle({ names }: Store): (handle: string) => string {
  const named = new Map([...names].map(([name, handle]) => [handle, name]));
  return (handle) => named.get(handle) ?? handle;
}

/** Active decisions after an id, by id. */
export function page(store: Store, afterId: number, limit: number): Listed[] {
  const rows = [...store.mirror.byId.values()].filter((row) => row.id > afterId);
  const nameOf = namesByHandle(store);
  return rows
    .sort((a, b) => a.id - b.id)
    .slice(0, limit)
    .map((row) => ({ ...decisionOf(row), engine: row.engine === '' ? null : nameOf(row.engine) }));
}
