// What operators decide here, engine or not: bans, unbans and the list to decide by.

import { canonicalValue, sameKind } from '../formats/canonical.ts';
import { decisionOf, isLocal, type Decision, type Row } from '../formats/decision.ts';
import { lastNames } from './engine-names.ts';
import { whyLeftBehind } from './left-behind.ts';
import * as log from './decisions.sql.ts';
import { addLocal, remove, type Store } from './mirror.ts';

/** A decision as operators list it: with the engine that it came from; null: it was decided here. */
export interface Listed extends Decision {
  readonly engine: string | null;
  /** Whether no engine says any more whether it stands. */
  readonly leftBehind: boolean;
}

/** `value`: in any spelling. */
export type Match = Pick<Decision, 'value'> & Partial<Pick<Decision, 'type' | 'scope'>>;

export interface Removal {
  readonly removed: number;
  /** The engines whose decisions match, too: only they can take those back. */
  readonly leftAt: readonly string[];
  /** The values of those as the engines have them, who compare texts. */
  readonly leftValues: readonly string[];
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
  const row = addLocal(storage, store, decision, (added) => {
    remember(storage.sql, request, decisionOf(added));
  });
  return decisionOf(row);
}

/** The same `request` again within a day is told of the first time. */
export function unban(
  storage: DurableObjectStorage,
  store: Store,
  match: Match,
  request: string | null,
): Removal {
  const earlier = request === null ? null : log.readOnce(storage.sql, request);
  if (earlier !== null) return JSON.parse(earlier) as Removal;
  const rows = [...store.mirror.byId.values()].filter(matches(match));
  // Besides local decisions that is what a lost database or an engine that is no more left behind.
  const isOurs = (row: Row): boolean => isLocal(row) || whyLeftBehind(store.engines, row) !== null;
  const ours = rows.filter(isOurs);
  const named = lastNames(store.names);
  const left = rows.filter((row) => !isOurs(row));
  const removal = {
    removed: ours.length,
    leftAt: distinct(left.map(({ engine }) => named.get(engine) ?? engine)),
    leftValues: distinct(left.map(({ value }) => value)),
  };
  remove(storage, store, ours, Date.now(), () => remember(storage.sql, request, removal));
  return removal;
}

function remember(sql: SqlStorage, request: string | null, answer: Decision | Removal): void {
  if (request !== null) log.writeOnce(sql, request, JSON.stringify(answer), Date.now());
}

/** Without a scope the value is read as each row's scope reads it. */
function matches({ value, type, scope }: Match): (row: Row) => boolean {
  const read = new Map<string, string>();
  const readAs = (name: string): string => {
    const known = read.get(name) ?? canonicalValue(name, value);
    read.set(name, known);
    return known;
  };
  return (row) =>
    (type === undefined || row.type === type) &&
    (scope === undefined || sameKind(row.scope, scope)) &&
    row.canonicalValue === readAs(row.scope);
}

function distinct(texts: readonly string[]): string[] {
  return [...new Set(texts)].sort();
}

/** Active decisions after an id, by id. */
export function page(store: Store, afterId: number, limit: number): Listed[] {
  const rows = [...store.mirror.byId.values()].filter((row) => row.id > afterId);
  const named = lastNames(store.names);
  return rows
    .sort((a, b) => a.id - b.id)
    .slice(0, limit)
    .map((row) => ({
      ...decisionOf(row),
      engine: named.get(row.engine) ?? (row.engine || null),
      leftBehind: whyLeftBehind(store.engines, row) !== null,
    }));
}
