// Active decisions as operators list them: in pages by id, narrowed by what they ask for. A page costs one look at all
// decisions at most, and one about a value a look at those of that value alone. A mistake here tells an operator that nothing
// bans an address.

import { canonicalValue } from '../formats/canonical.ts';
import { decisionOf, type Decision, type Row } from '../formats/decision.ts';
import { parseNetwork } from '../formats/ip.ts';
import { entryOn, entriesForSomeOn, type AllowedEntry } from './allowed.ts';
import { covering } from './covering.ts';
import { engineNamer } from './engine-names.ts';
import { readKnownEngines } from './engines.sql.ts';
import { whyLeftBehind } from './local.ts';
import type { Mirror } from './memory.ts';
import type { Store } from './mirror.ts';
import { passing } from './view.ts';

/** A decision as operators list it. */
export interface Listed extends Decision {
  /** The name of the engine that it came from; null: it was decided here. */
  readonly engine: string | null;
  /** No engine says any more whether it stands. */
  readonly leftBehind: boolean;
  /** An entry of the allow-list that withholds it. `bouncers`: those of all such entries. Null: it is served to all. */
  readonly withheldBy: ListedEntry | null;
}

/** An entry of the allow-list, or of a list of an engine's own. */
export interface ListedEntry {
  /** Null: it is an engine's. */
  readonly id: number | null;
  readonly value: string;
  /** The engine's name, and that of its list. Null: it was made here. */
  readonly engine: string | null;
  readonly list: string | null;
  /** For which bouncers it is: patterns of their names. Null: for all. */
  readonly bouncers: readonly string[] | null;
}

/** What a list is narrowed to. Absent: all. */
export interface ListFilter {
  /** In any spelling. An address or a range: every decision that covers it. */
  readonly value?: string | undefined;
  readonly scope?: string | undefined;
  readonly type?: string | undefined;
  readonly origin?: string | undefined;
  /** A part of the scenario, in any case. */
  readonly scenario?: string | undefined;
  /** As `Listed` has it. */
  readonly engine?: string | undefined;
}

/** The next `limit` decisions after an id, by id. Null: there is and was no engine of that name. */
export function page(store: Store, afterId: number, limit: number, filter: ListFilter = {}): Listed[] | null {
  const passes = passesOf(store, filter);
  if (!passes) return null;
  const { mirror } = store;
  const rows = filter.value === undefined ? mirror.byId.values() : concerning(mirror, filter.value);
  const ids: number[] = [];
  for (const row of rows) if (row.id > afterId && passes(row)) ids.push(row.id);
  // Numbers in an array of their own kind sort without a comparison: a tenth of the time, of 100,000.
  const first = [...Uint32Array.from(ids).sort().subarray(0, limit)];
  return listed(
    store,
    first.map((id) => mirror.byId.get(id) as Row),
  );
}

/** Active decisions whose network covers a value, or that are about the same country, AS or other text. */
export function concerning(mirror: Mirror, value: string): Set<Row> {
  const network = parseNetwork(value);
  const found = new Set(network ? covering(mirror, network) : []);
  const spellings = ['', 'Ip', 'Country', 'AS'].map((scope) => canonicalValue(scope, value));
  for (const text of new Set(spellings)) {
    for (const row of mirror.byCanonicalValue.get(text) ?? []) {
      if (row.canonicalValue === canonicalValue(row.scope, value)) found.add(row);
    }
  }
  return found;
}

/** Rows as operators read them. */
export function listed(store: Store, rows: readonly Row[]): Listed[] {
  const nameOf = engineNamer(store.names);
  return rows.map((row) => ({
    ...decisionOf(row),
    engine: row.engine === '' ? null : nameOf(row.engine),
    leftBehind: whyLeftBehind(store, row) !== null,
    withheldBy: row.withheld ? entryThatWithholds(store, row) : null,
  }));
}

function entryThatWithholds(store: Store, { canonicalValue, withheld }: Row): Listed['withheldBy'] {
  const network = parseNetwork(canonicalValue);
  if (!network) return null;
  const { allowed } = store.mirror;
  const entry = entryOn(allowed, network) ?? entriesForSomeOn(allowed, network)[0];
  if (!entry) return null;
  return { ...listedEntry(store, entry), bouncers: typeof withheld === 'object' ? withheld : null };
}

export function listedEntry({ names }: Store, { id, value, from, bouncers }: AllowedEntry): ListedEntry {
  if (!from) return { id, value, engine: null, list: null, bouncers: bouncers ?? null };
  return { id: null, value, engine: engineNamer(names)(from.engine), list: from.list, bouncers: null };
}

/** A filter as a predicate. Null: there is and was no engine of its name. */
export function passesOf(store: Store, filter: ListFilter): ((row: Row) => boolean) | null {
  const { scope, type, origin, scenario, engine } = filter;
  const matches = passing({
    scopes: scope === undefined ? null : [scope],
    origins: origin === undefined ? null : [origin],
    scenariosContaining: scenario === undefined ? null : [scenario.toLowerCase()],
    scenariosNotContaining: null,
    value: null,
    type: type ?? null,
    within: null,
    dedup: false,
    limits: null,
  });
  if (engine === undefined) return matches;
  const nameOf = engineNamer(store.names);
  const known = readKnownEngines(store.storage.sql).find(({ handle }) => nameOf(handle) === engine);
  return known ? (row) => row.engine === known.handle && matches(row) : null;
}
