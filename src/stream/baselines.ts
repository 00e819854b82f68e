// Baselines: what an answer to a bouncer with limits was made from, so that the next answer can tell what it lost and what
// is new. All bouncers with the same limits share one; under a cap also the rows have to be the same. Losing a baseline
// costs a full state. A baseline is stored before the first answer from it goes out: cursors are written later, and a
// restart may find an older one, which still has to know what its bouncer may have. Where storage refuses it the answer goes
// out all the same; a death before it can be written leaves the bouncer with what only that answer brought.

import type { Row } from '../formats/decision.ts';
import { matchesGlob } from '../formats/glob.ts';
import type { Mirror } from '../mirror/memory.ts';
import { limitsKey, patternsKey, requestKey, type Limits, type View } from '../mirror/view.ts';
import type { Cursor } from './cursor.ts';
import { chosen, keyOf, selectedRows, type Selection } from './selection.ts';

export interface Baseline {
  /** Of a capped view: its request and its limits. Of limits without a cap: `limitsKey`. */
  readonly key: string;
  readonly limits: Limits;
  /** Of a capped view: `patternsKey`. Bouncers that are allowed other addresses are given other rows. */
  readonly patterns: string;
  /** Under a cap: the `rowId`s that the bouncer was given, ascending. Null: all that the limits let through. */
  readonly held: readonly number[] | null;
}

/** What a bouncer may have been delivered: a sequence not below `mirror.purgedSequence`. `baseline` null: no limits. */
export interface DeliveredState {
  readonly sequence: number;
  readonly baseline: Baseline | null;
  /** Of several baselines under a cap, which are gone over together: what each of them has. */
  readonly common?: readonly number[];
}

/** What a view selects now. `baseline`: the id of its baseline; 0: it has no limits. */
export interface ResolvedView extends Selection {
  readonly baseline: number;
}

export interface Baselines {
  readonly byId: Map<number, Baseline>;
  /** The newest baseline of each key with its patterns, and the sequence at which it was last resolved. */
  readonly newest: Map<string, { readonly sequence: number; readonly resolved: ResolvedView }>;
  /** Of views under a cap, by the same keys: the rows at a sequence. */
  readonly kept: Map<string, { readonly sequence: number; readonly rows: ReadonlyMap<string, Row> }>;
  nextId: number;
  /** As they were read from storage. A cursor at an earlier sequence was read, too, and has not moved since. */
  readonly atStart: { readonly nextId: number; readonly sequence: number };
  /** Those that are not in storage yet. */
  readonly unwritten: Set<number>;
  /** Writes a baseline to storage. False: it can't be written now. */
  readonly write: (id: number, body: string) => boolean;
}

/** Row ids of all baselines together: 16 MB. Beyond it the oldest are forgotten; their devices have been away. */
const mostHeld = 2_000_000;
/** Rows of all views under a cap that are kept by their texts: 20 MB. Beyond it a view is worked out for each answer. */
const mostKeptRows = 200_000;
/** Of the baselines that a bouncer may have been brought to besides its cursor's own: some 10 ms to go over. */
const mostOthers = { baselines: 50, rowIds: 100_000 };

/** `bodies`: as they are stored. `sequence`: the feed's. */
export function createBaselines(
  bodies: ReadonlyMap<number, string>,
  sequence: number,
  write: Baselines['write'],
): Baselines {
  const byId = new Map([...bodies].map(([id, body]) => [id, decode(body)]));
  const nextId = Math.max(0, ...byId.keys()) + 1;
  return {
    byId,
    newest: new Map(),
    kept: new Map(),
    nextId,
    atStart: { nextId, sequence },
    unwritten: new Set(),
    write,
  };
}

/**
 * What a view selects now. Its baseline is worked out once per sequence. `cursor`: of its bouncer, whose baselines ascend as
 * long as its limits are the same, so that later ones have higher ids.
 */
export function resolveView(baselines: Baselines, mirror: Mirror, view: View, cursor?: Cursor): ResolvedView {
  const { limits } = view;
  if (!limits) return { view, capped: null, baseline: 0 };
  const { newest } = baselines;
  const { sequence } = mirror;
  if (limits.maxDecisions === null) {
    const baseline = { key: limitsKey(limits), limits, patterns: '', held: null };
    const resolved = { view, capped: null, baseline: idOf(baselines, baseline, 0) };
    newest.set(nameOf(baseline), { sequence, resolved });
    return resolved;
  }
  // A cap counts values, which fill a device's table. Without dedup one value could count several times.
  const deduplicated = { ...view, dedup: true };
  const key = `${requestKey(deduplicated)} ${limitsKey(limits)}`;
  const patterns = patternsKey(view);
  const name = nameOf({ key, patterns });
  const last = cursor && baselines.byId.get(cursor.lastBaseline)?.key === key ? cursor.lastBaseline : 0;
  const known = newest.get(name);
  if (known?.sequence === sequence && known.resolved.baseline >= last) return known.resolved;
  const rowsNow = () => rowsOf(baselines, mirror, name, deduplicated, limits.maxDecisions ?? Infinity);
  const held = Array.from(rowsNow().values(), ({ rowId }) => rowId).sort((a, b) => a - b);
  const baseline = idOf(baselines, { key, limits, patterns, held }, last);
  const resolved = {
    view: deduplicated,
    // Most polls need the baseline alone.
    get capped() {
      return rowsNow();
    },
    baseline,
  };
  newest.set(name, { sequence, resolved });
  return resolved;
}

/** The rows of a view under a cap, by their texts. */
function rowsOf(
  { kept }: Baselines,
  mirror: Mirror,
  name: string,
  view: View,
  cap: number,
): ReadonlyMap<string, Row> {
  const { sequence } = mirror;
  const known = kept.get(name);
  if (known?.sequence === sequence) return known.rows;
  const selected = chosen(selectedRows(mirror, { view, capped: null }), cap);
  const rows = new Map(selected.map((row) => [keyOf(row), row]));
  kept.delete(name);
  kept.set(name, { sequence, rows });
  let count = 0;
  // The newest first.
  for (const [other, each] of [...kept].toReversed()) {
    count += each.rows.size;
    if (count > mostKeptRows && other !== name) kept.delete(other);
  }
  return rows;
}

function nameOf({ key, patterns }: Pick<Baseline, 'key' | 'patterns'>): string {
  return patterns === '' ? key : `${key} ${patterns}`;
}

/** The id of the newest baseline of a name if it has the same rows and is not below `least`, otherwise of a new one. */
function idOf(baselines: Baselines, baseline: Baseline, least: number): number {
  const { byId, unwritten } = baselines;
  const { held } = baseline;
  const known = newestId(baselines, nameOf(baseline));
  const isSame = (id: number): boolean => held === null || sameList(byId.get(id)?.held ?? [], held);
  if (known !== undefined && known >= least && isSame(known)) return known;
  const id = baselines.nextId++;
  byId.set(id, baseline);
  unwritten.add(id);
  writeBaselines(baselines);
  return id;
}

/** Also finds a baseline that was read from storage, so that a restart does not look like a change of limits. */
function newestId({ newest, byId }: Baselines, name: string): number | undefined {
  const known = newest.get(name);
  if (known) return known.resolved.baseline;
  const ids = [...byId].filter(([, baseline]) => nameOf(baseline) === name).map(([id]) => id);
  return ids.length === 0 ? undefined : Math.max(...ids);
}

/**
 * Whether all baselines are in storage. When nothing can be written, answers go out all the same, but no cursor is written
 * that refers to an unwritten baseline: after a restart its id would mean another one.
 */
export function writeBaselines(baselines: Baselines): boolean {
  for (const id of baselines.unwritten) {
    const baseline = baselines.byId.get(id);
    if (baseline && !baselines.write(id, encode(baseline))) return false;
    baselines.unwritten.delete(id);
  }
  return true;
}

/** The cursor if a delta can start from it. Undefined: only the full state is safe. */
export function usableCursor(
  { byId }: Baselines,
  { sequence, purgedSequence }: Mirror,
  cursor: Cursor | undefined,
): Cursor | undefined {
  if (!cursor || cursor.beforeSequence < purgedSequence || cursor.lastSequence > sequence) return undefined;
  const { beforeBaseline, lastBaseline, others } = cursor;
  const isKnown = (id: number): boolean => id === 0 || byId.has(id);
  return [beforeBaseline, lastBaseline, ...others].every(isKnown) ? cursor : undefined;
}

/** Whether `others` are so many that the full state, given twice, is less work. */
export function tooManyOthers({ byId }: Baselines, others: readonly number[]): boolean {
  const rowIds = others.reduce((sum, id) => sum + (byId.get(id)?.held?.length ?? 0), 0);
  return others.length > mostOthers.baselines || rowIds > mostOthers.rowIds;
}

/**
 * The states in which a bouncer with this cursor may be. `others`: baselines that it may have been brought to besides the
 * cursor's two.
 */
export function deliveredStates(
  { byId }: Baselines,
  { beforeSequence, beforeBaseline, lastSequence, lastBaseline }: Cursor,
  others: readonly number[],
): DeliveredState[] {
  const stateOf = (sequence: number, id: number): DeliveredState => {
    return { sequence, baseline: byId.get(id) ?? null };
  };
  const isCapped = ({ baseline }: DeliveredState): boolean => baseline !== null && baseline.held !== null;
  const further = others.map((id) => stateOf(beforeSequence, id));
  return [
    stateOf(beforeSequence, beforeBaseline),
    stateOf(lastSequence, lastBaseline),
    ...further.filter((state) => !isCapped(state)),
    ...together(further.filter(isCapped)),
  ];
}

/** States under a cap as one. */
function together(states: readonly DeliveredState[]): DeliveredState[] {
  const [first, ...others] = states;
  if (!first?.baseline || others.length === 0) return [...states];
  const sets = states.map(({ baseline }) => new Set(baseline?.held));
  const all = new Set(sets.flatMap((set) => [...set]));
  const common = [...all].filter((rowId) => sets.every((set) => set.has(rowId)));
  return [{ ...first, baseline: { ...first.baseline, held: [...all] }, common }];
}

/**
 * The baselines of later answers that a bouncer under a cap may have had, if its cursor was read from storage and has not
 * moved since: then it may be older than the last answer. Also those of other patterns, if its name fits them.
 */
export function laterBaselines(
  { byId, atStart }: Baselines,
  { lastSequence, lastBaseline }: Cursor,
  { bouncer = '' }: View,
): number[] {
  const last = byId.get(lastBaseline);
  if (!last?.held || lastSequence >= atStart.sequence) return [];
  const later = [...byId].filter(
    ([id, { key, patterns }]) => id > lastBaseline && key === last.key && allFit(patterns, bouncer),
  );
  return later.map(([id]) => id);
}

/** `patterns`: `patternsKey`. */
function allFit(patterns: string, name: string): boolean {
  return patterns === '' || (JSON.parse(patterns) as string[]).every((pattern) => matchesGlob(pattern, name));
}

/** Whether a bouncer's limits changed since its cursor. The new cursor must be written at once. */
export function limitsChanged(
  { byId }: Baselines,
  { lastBaseline }: Cursor,
  { baseline }: ResolvedView,
): boolean {
  return lastBaseline !== baseline && byId.get(lastBaseline)?.key !== byId.get(baseline)?.key;
}

/**
 * Forgets the baselines that no cursor refers to, and the oldest beyond `mostHeld`. Returns their ids. Of those that were
 * read from storage it keeps the ones that a bouncer with an older cursor may have had (`laterBaselines`).
 */
export function forgetUnused({ byId, newest, atStart }: Baselines, used: ReadonlySet<number>): number[] {
  const oldest = new Map<string, number>();
  for (const id of [...used].sort((a, b) => b - a)) {
    const known = byId.get(id);
    if (known) oldest.set(known.key, id);
  }
  const mayBeHad = (id: number, { key }: Baseline): boolean =>
    id < atStart.nextId && id > (oldest.get(key) ?? Infinity);
  let held = 0;
  const forgotten: number[] = [];
  // The newest first: ids ascend.
  for (const [id, baseline] of [...byId].sort(([a], [b]) => b - a)) {
    const isKept = used.has(id) || mayBeHad(id, baseline);
    if (isKept) held += baseline.held?.length ?? 0;
    if (!isKept || held > mostHeld) forgotten.push(id);
  }
  for (const id of forgotten) byId.delete(id);
  for (const [key, { resolved }] of newest) if (!byId.has(resolved.baseline)) newest.delete(key);
  return forgotten;
}

/** Stores row ids as differences: 20,000 of them take some 60 KB. */
function encode({ key, limits, patterns, held }: Baseline): string {
  const steps = held?.map((rowId, index) => rowId - (held[index - 1] ?? 0)) ?? null;
  return JSON.stringify([key, limits, steps, ...(patterns === '' ? [] : [patterns])]);
}

function decode(body: string): Baseline {
  const [key, limits, steps, patterns = ''] = JSON.parse(body) as [string, Limits, number[] | null, string?];
  let rowId = 0;
  return { key, limits, patterns, held: steps?.map((step) => (rowId += step)) ?? null };
}

function sameList(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}
