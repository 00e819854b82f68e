// What operators decide here, with or without engines: bans and unbans, and the decisions that no engine confirms any more
// ("left behind").

import { canonicalValue, sameKind } from '../formats/canonical.ts';
import { decisionOf, isLocal, type Decision, type Row } from '../formats/decision.ts';
import { engineNamer } from './engine-names.ts';
import * as log from './decisions.sql.ts';
import { addLocal, remove, type Store } from './mirror.ts';

/** `value`: in any spelling. */
export type Match = Pick<Decision, 'value'> & Partial<Pick<Decision, 'type' | 'scope'>>;

/** What an unban did. Stored as JSON for a day (`once`). */
export interface Removal {
  readonly removed: number;
  /** Engines that still ban it: only they can remove their decisions. */
  readonly leftAt: readonly string[];
  /** The values of those decisions, as the engines spell them. */
  readonly leftValues: readonly string[];
}

/** The same `request` again within a day gets the same decision, whether it still stands or not. */
export function ban(
  store: Store,
  decision: Omit<Decision, 'id' | 'origin'>,
  request: string | null,
): Decision {
  const earlier = earlierAnswer<Decision>(store, request);
  if (earlier) return earlier;
  return decisionOf(addLocal(store, decision, (row) => remember(store, request, decisionOf(row))));
}

/** The same `request` again within a day gets the same answer. */
export function unban(store: Store, match: Match, request: string | null): Removal {
  const earlier = earlierAnswer<Removal>(store, request);
  if (earlier) return earlier;
  const rows = [...store.mirror.byId.values()].filter(matches(match));
  const isOurs = (row: Row): boolean => isLocal(row) || whyLeftBehind(store, row) !== null;
  const ours = rows.filter(isOurs);
  const left = rows.filter((row) => !isOurs(row));
  const nameOf = engineNamer(store.names);
  const removal = {
    removed: ours.length,
    leftAt: distinct(left.map(({ engine }) => nameOf(engine))),
    leftValues: distinct(left.map(({ value }) => value)),
  };
  remove(store, ours, Date.now(), () => remember(store, request, removal));
  return removal;
}

function earlierAnswer<Answer>({ storage }: Store, request: string | null): Answer | null {
  const answer = request === null ? null : log.readOnce(storage.sql, request);
  return answer === null ? null : (JSON.parse(answer) as Answer);
}

function remember({ storage }: Store, request: string | null, answer: Decision | Removal): void {
  if (request !== null) log.writeOnce(storage.sql, request, JSON.stringify(answer), Date.now());
}

/** Without a scope the value is read as each row's scope reads it. */
function matches({ value, type, scope }: Match): (row: Row) => boolean {
  const canonical = new Map<string, string>();
  const readAs = (name: string): string => {
    const known = canonical.get(name) ?? canonicalValue(name, value);
    canonical.set(name, known);
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

/**
 * Why no engine confirms a decision any more. `database-replaced`: its engine has another database than when it made the
 * decision. `engine-removed`: its engine is no longer configured. Such a decision stays until its own end, since an
 * accident must not unban anybody; an operator can remove it.
 */
export const leftBehindReasons = ['database-replaced', 'engine-removed'] as const;
export type LeftBehindReason = (typeof leftBehindReasons)[number];

/** How many decisions of one engine, by its last name, are left behind for one reason. */
export interface LeftBehind {
  readonly engine: string;
  readonly decisions: number;
  readonly why: LeftBehindReason;
}

/**
 * Null: it is not left behind. If no engine at all is configured, no engine counts as removed: a lost setting is more
 * likely.
 */
export function whyLeftBehind({ engines }: Store, row: Row): LeftBehindReason | null {
  if (row.engine === '') return null;
  if (engines.size > 0 && !engines.has(row.engine)) return 'engine-removed';
  return isLocal(row) ? 'database-replaced' : null;
}

/** Looks at every decision. */
export function countLeftBehind(store: Store): LeftBehind[] {
  const nameOf = engineNamer(store.names);
  const counts = new Map<string, LeftBehind>();
  for (const row of store.mirror.byId.values()) {
    const why = whyLeftBehind(store, row);
    if (why === null) continue;
    const engine = nameOf(row.engine);
    const key = `${why} ${engine}`;
    counts.set(key, { engine, decisions: (counts.get(key)?.decisions ?? 0) + 1, why });
  }
  return [...counts.values()];
}

/** Removes the decisions of engines that are no longer configured. Returns how many they were. */
export function removeUnconfigured(store: Store): number {
  const rows = [...store.mirror.byId.values()].filter(
    (row) => whyLeftBehind(store, row) === 'engine-removed',
  );
  remove(store, rows, Date.now());
  return rows.length;
}
