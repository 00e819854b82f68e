// The allow-list in the feed: a change of it withholds decisions, or has them served again. Both are changes of the log like
// any other: a withheld decision leaves a tombstone and stays as a row that no view has, or none of the bouncers that the entry
// is for; one that is served again is added anew. So every bouncer gets `deleted` or `new` with its next poll, whoever answers it.
//
// D1 has the truth. The feed's storage has a copy. Entries end by our clock, as decisions do. One that has ended stays in the
// copy until D1 deletes it, since the clock may be set back.
//
// A change holds at once for look-ups and for decisions that come. Those that are there are judged in slices, each in one
// transaction, so that polls are answered between them: they get what is judged by then, and the rest with their next poll.

import { isOfAddresses } from '../formats/canonical.ts';
import { matchesGlob } from '../formats/glob.ts';
import { knownSince, type Row } from '../formats/decision.ts';
import { parseNetwork, type Network } from '../formats/ip.ts';
import type { Clock } from '../runtime/clock.ts';
import {
  createAllowed,
  notAllowed,
  patternsOf,
  rangesOf,
  readEntry,
  readValues,
  sameWithheld,
  touching,
  unionOf,
  fromWhom,
  type Allowed,
  type AllowedEntry,
  type ReadEntry,
  type ReadValues,
} from './allowed.ts';
import { isSameEntry, writeAllowed, type StoredEntry } from './allowed.sql.ts';
import { countOfAddresses, covering } from './covering.ts';
import { createRow } from './decisions.sql.ts';
import { listed, listedEntry, type Listed, type ListedEntry } from './listing.ts';
import type { Change, Mirror } from './memory.ts';
import { asWithheld, hasJustFailed, removal, tryToWrite, write, type Store } from './mirror.ts';
import { samePatterns } from './patterns.ts';
import { allPieces, type Pieces } from './pieces.ts';

/** Of one turn: values that are read, networks that are read to judge decisions, and decisions that change. 10 ms at most. */
export const sliceValues = 1_000;
const sliceCost = 2_000;
export const sliceChanges = 250;

/** Takes all entries as D1 has them, and judges all decisions by them. Throws an error that `isUnwritable` recognises. */
export function setAllowList(store: Store, entries: readonly AllowedEntry[], clock: Clock): Promise<void> {
  return replace(store, entries, (before) => [...before.filter(({ from }) => from), ...entries], clock);
}

/** Of all engines together: a change of one's looks at all. */
const mostEngineEntries = 10_000;

/** The same with all entries of one engine's own lists. Throws if engines have too many together. */
export function setEngineAllowLists(
  store: Store,
  engine: string,
  found: readonly EngineEntry[],
  clock: Clock,
): Promise<void> {
  if (hasEngineEntries(store, engine, found)) return Promise.resolve();
  const entries = found.map(({ list, value, expiresMs }) => ({
    id: 0,
    value,
    expiresMs,
    from: { engine, list },
  }));
  return replace(
    store,
    entries,
    (before) => {
      const others = before.filter(({ from }) => from?.engine !== engine);
      // Here, since another engine's may have come while these were read.
      const count = entries.length + others.filter(({ from }) => from).length;
      if (count > mostEngineEntries) {
        throw new Error(
          `all engines may have ${mostEngineEntries} entries together, and would have ${count}`,
        );
      }
      const ids = new Map(
        before
          .filter(({ from }) => from?.engine === engine)
          .map(({ id, value, from }) => [`${from?.list}\n${value}`, id]),
      );
      let lowest = before.reduce((least, { id }) => Math.min(least, id), 0);
      const numbered = entries.map((entry) => ({
        ...entry,
        id: ids.get(`${entry.from.list}\n${entry.value}`) ?? --lowest,
      }));
      return [...others, ...numbered].sort((a, b) => a.id - b.id);
    },
    clock,
  );
}

/** Whether they are the ones that are there: it is asked once a minute, and mostly they are. */
function hasEngineEntries(
  { allowList, state }: Store,
  engine: string,
  found: readonly EngineEntry[],
): boolean {
  const own = allowList.entries.filter(({ from }) => from?.engine === engine);
  if (state.sequence === 0 || own.length !== found.length) return false;
  const ends = new Map(own.map(({ from, value, expiresMs }) => [`${from?.list}\n${value}`, expiresMs]));
  return found.every(({ list, value, expiresMs }) => ends.get(`${list}\n${value}`) === expiresMs);
}

/** An entry of an engine's own allow-list. */
export interface EngineEntry extends Pick<AllowedEntry, 'value' | 'expiresMs'> {
  readonly list: string;
}

/** How many entries an engine has that hold. */
export function countEngineEntries({ mirror }: Store, engine: string): number {
  return mirror.allowed.entries.filter(({ from }) => from?.engine === engine).length;
}

async function replace(
  store: Store,
  entries: readonly AllowedEntry[],
  all: (before: readonly StoredEntry[]) => readonly AllowedEntry[],
  clock: Clock,
): Promise<void> {
  const known = readValues(store.mirror.allowed);
  let read = 0;
  for (const entry of entries) {
    if (known.has(entry.value)) continue;
    const own = readEntry(entry);
    if (own) known.set(entry.value, own);
    if (++read % sliceValues === 0) await clock.pause();
  }
  take(store, all(store.allowList.entries), known, clock.now());
  await judge(store, clock);
}

/** From here on what comes is judged by these entries. */
function take(store: Store, entries: readonly AllowedEntry[], known: ReadValues, nowMs: number): void {
  const { mirror, allowList, unjudged } = store;
  const stored = entries.map(({ id, value, expiresMs, from, bouncers }): StoredEntry => {
    return { id, value, expiresMs, applied: expiresMs === null || expiresMs > nowMs, from, bouncers };
  });
  const live = stored.filter(({ applied }) => applied);
  const after = { entries: stored, atMs: nowMs, nextMs: nextEnd(live) };
  // The first list of a feed takes a sequence, even if it is empty: from then on the feed has one.
  if (isSame(allowList.entries, stored) && store.state.sequence > 0) {
    store.allowList = after;
    return;
  }
  const allowed = createAllowed(live, known);
  const changed = [...difference(mirror.allowed, allowed), ...difference(allowed, mirror.allowed)];
  // Where no row changes, look-ups do, and isolates remember them by the sequence.
  const state = { ...store.state, sequence: store.state.sequence + 1 };
  write(store, { again: [], removed: [], added: [], sequence: state.sequence }, state, (sql) => {
    writeAllowed(sql, allowList.entries, stored);
  });
  mirror.allowed = allowed;
  setPatterns(mirror, unionOf([mirror.patterns, patternsOf(allowed)]));
  store.allowList = after;
  unjudged.pieces.push(piecesOn(mirror, changed));
}

/** Judges all that is not judged yet; the first slice at once. */
function judge(store: Store, clock: Clock): Promise<void> {
  const { unjudged } = store;
  if (unjudged.judging) return unjudged.judging;
  let isOver = false;
  const judgeAll = async (): Promise<void> => {
    try {
      while (judgeSlice(store, clock.now())) await clock.pause();
      setPatterns(store.mirror, patternsOf(store.mirror.allowed));
    } finally {
      // In the same turn: what comes later must not wait for this.
      isOver = true;
      unjudged.judging = null;
    }
  };
  const judging = judgeAll();
  if (!isOver) unjudged.judging = judging;
  return judging;
}

/** What is known of each name is kept while the patterns are the same. */
function setPatterns(mirror: Mirror, patterns: readonly string[]): void {
  if (!samePatterns(mirror.patterns, patterns)) mirror.patterns = patterns;
}

/** Returns whether there is more. */
function judgeSlice(store: Store, nowMs: number): boolean {
  const { mirror, unjudged } = store;
  const changed = new Set<Row>();
  for (let cost = 0; cost < sliceCost && changed.size < sliceChanges;) {
    const next = unjudged.pieces[0]?.next();
    if (!next) break;
    if (next.done === true) {
      unjudged.pieces.shift();
      continue;
    }
    cost += next.value.cost;
    for (const row of next.value.rows) {
      if (!sameWithheld(row.withheld, fromWhom(mirror.allowed, row))) changed.add(row);
    }
  }
  try {
    if (changed.size > 0) change(store, [...changed], nowMs);
  } catch (error) {
    // What was taken from the pieces is not known any more.
    unjudged.pieces.splice(0, Infinity, allPieces(mirror));
    throw error;
  }
  return unjudged.pieces.length > 0;
}

/** Has some rows withheld from those from whom they are to be, and served to the others. */
function change(store: Store, rows: readonly Row[], nowMs: number): void {
  const state = { ...store.state };
  const { allowed } = store.mirror;
  const served = rows.filter((row) => row.withheld !== true);
  const removals = removal(store.mirror, served, state, nowMs);
  const added: Change['added'][number][] = [];
  const next = (row: Row, rowId: number): Row => {
    const created = createRow({ ...row, rowId }, row, state.sequence);
    return { ...asWithheld(created, fromWhom(allowed, row)), ...provenBy(row) };
  };
  // A row that some bouncer was served leaves its tombstone, so the one that goes on is another.
  for (const row of served) added.push({ row: next(row, ++state.sequence) });
  for (const row of rows) {
    if (row.withheld !== true) continue;
    state.sequence++;
    added.push({ row: next(row, row.rowId), renewed: row });
  }
  write(store, { ...removals, added, sequence: state.sequence }, state);
}

/** What a row says of its engine's database does not change with the allow-list: the engine added it when it did. */
function provenBy(row: Row): Pick<Row, 'provenSeq'> {
  return { provenSeq: knownSince(row) };
}

/** Ends the entries whose time is over. Called before every answer. */
export function sweepAllowList(store: Store, clock: Clock): void {
  const { mirror, unjudged, allowList } = store;
  const nowMs = clock.now();
  // With the clock set back an entry may not have ended yet.
  const isDue = nowMs < allowList.atMs || nowMs >= allowList.nextMs;
  if ((!isDue && unjudged.pieces.length === 0) || hasJustFailed(store, nowMs)) return;
  if (isDue)
    tryToWrite(store, nowMs, () => take(store, allowList.entries, readValues(mirror.allowed), nowMs));
  // A write that failed is in the log, and the next sweep goes on.
  void judge(store, clock).catch(() => undefined);
}

function nextEnd(entries: readonly AllowedEntry[]): number {
  return entries.reduce((next, { expiresMs }) => Math.min(next, expiresMs ?? Infinity), Infinity);
}

function isSame(before: readonly StoredEntry[], after: readonly StoredEntry[]): boolean {
  return (
    before.length === after.length &&
    before.every((entry, at) => isSameEntry(entry, after[at] as StoredEntry))
  );
}

/** The entries of the one whose value no entry of the other has for the same bouncers. */
function difference(of: Allowed, other: Allowed): ReadEntry[] {
  const keyOf = ({ value, bouncers }: AllowedEntry): string => `${value} ${bouncers?.join() ?? ''}`;
  const keys = new Set(other.entries.map(keyOf));
  return of.entries.filter((entry) => !keys.has(keyOf(entry)));
}

/** So many wide networks are looked for by the beginnings of texts. */
const mostStarts = 8;

/** Rows on addresses that may share one with some networks. Where all are single addresses, it does not look at every row. */
function* piecesOn(mirror: Mirror, networks: readonly Pick<ReadEntry, 'network'>[]): Pieces {
  const { v4, v6 } = mirror.prefixes;
  for (const { network } of networks) yield { rows: covering(mirror, network), cost: v4.size + v6.size };
  const wide = networks.filter(({ network }) => network.prefixBits < network.bytes.length * 8);
  if (wide.length === 0) return;
  const starts = wide.map(({ network }) => startOf(network));
  const isLikely = ({ canonicalValue }: Row): boolean =>
    starts.length > mostStarts ||
    starts.some((start) => (start === ':' ? canonicalValue.includes(':') : canonicalValue.startsWith(start)));
  yield* allPieces(mirror, isLikely);
}

/** What the texts of all networks inside begin with; `:`: they have one. */
function startOf({ bytes, prefixBits }: Network): string {
  if (bytes.length > 4) return ':';
  const octets = bytes.slice(0, prefixBits >> 3);
  return octets.map((octet) => `${octet}.`).join('');
}

/** What an entry withholds. */
export interface AllowEffect {
  /** The entries that share an address with it. */
  readonly entries: readonly ListedEntry[];
  /** How many decisions touch it, whether another entry withholds them already or not. */
  readonly decisions: number;
  /** The ranges among them that are wider, and how many of their addresses are let free though nobody allowed them. */
  readonly ranges: readonly {
    readonly decision: Listed;
    readonly prefixBits: number;
    readonly freed: string;
  }[];
  /** Active decisions on countries and the like, from which no entry can except an address. */
  readonly beyond: number;
}

/**
 * What an entry for a value withholds, or would. Nothing unless it is an address or a range. `bouncers`: for which ones it is;
 * null: for all.
 */
export async function effectOf(
  store: Store,
  { scope, value, bouncers }: { scope: string; value: string; bouncers: readonly string[] | null },
  pause: Clock['pause'],
): Promise<AllowEffect> {
  const { mirror } = store;
  const beyond = mirror.byId.size - countOfAddresses(mirror.prefixes);
  const entry = { id: 0, value, expiresMs: null };
  const own = isOfAddresses(scope) ? readEntry(entry) : undefined;
  if (!own) return { entries: [], decisions: 0, ranges: [], beyond };
  const alone = createAllowed([entry]);
  // By their ids in the log, which stay when one is renewed meanwhile.
  const rows = new Map<number, Row>();
  let cost = 0;
  for (const piece of piecesOn(mirror, [own])) {
    for (const row of piece.rows) if (fromWhom(alone, row)) rows.set(row.rowId, row);
    cost += piece.cost;
    if (cost < sliceCost) continue;
    cost = 0;
    await pause();
  }
  const { v4, v6, entries: all } = mirror.allowed;
  // Others that hold for all of the same bouncers. A `*` of a name is matched by a `*` alone.
  const forThem = all.filter((each) =>
    bouncers?.every((own) => each.bouncers?.some((pattern) => matchesGlob(pattern, own))),
  );
  const allowed = rangesOf([...v4, ...v6, ...forThem, own]);
  const wider = [...rows.values()].flatMap((row) => {
    const network = parseNetwork(row.canonicalValue);
    return network && network.prefixBits < own.network.prefixBits ? [{ row, network }] : [];
  });
  const decisions = listed(
    store,
    wider.map(({ row }) => row),
  );
  const ranges = wider.map(({ network }, at) => {
    const freed = notAllowed(allowed, network).toString();
    return { decision: decisions[at] as Listed, prefixBits: network.prefixBits, freed };
  });
  const entries = touching(mirror.allowed, own).map((entry) => listedEntry(store, entry));
  return { entries, decisions: rows.size, ranges, beyond };
}
