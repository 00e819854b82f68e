// What an answer of the stream carries: the full state of a view, or what changed since the bouncer's last answers. Pure.
//
// Three rules keep a bouncer's set equal to its view:
// - When the longest decision of a value is removed and another one stays, that one is announced again.
// - A value is in `deleted` only when nothing bans it any more.
// - No value is in both lists. Half of the bouncers apply `new` first, half `deleted`.
// Most bouncers compare texts, but kernel sets compare networks. So `new` has one decision for each spelling of a network,
// and a removal is kept back while its network is banned under any spelling. The last removal of a network brings them all.

import { sameNetwork } from '../formats/canonical.ts';
import { sameText, type Row } from '../formats/decision.ts';
import { isActive, removedSince, type Mirror } from '../mirror/memory.ts';
import { changesIn } from '../mirror/view-changes.ts';
import { matcher, type View } from '../mirror/view.ts';
import type { DeliveredState } from './baselines.ts';
import type { PendingRemoval } from './cursor.ts';
import { bansOn, keyOf, longest, selectedRows, type Selection } from './selection.ts';

export interface Answer {
  /** The sequence that this answer brings a bouncer to. */
  readonly sequence: number;
  readonly added: readonly Row[];
  readonly removed: readonly Row[];
}

/** Every decision of the selection, and the tombstones after `since` whose network nothing bans any more. */
export function fullState(mirror: Mirror, selection: Selection, since: number): Answer {
  const { view } = selection;
  const matches = matcher(view);
  const bansOf = bansOn(mirror, selection);
  const unbanned = removedSince(mirror, since).filter((row) => matches(row) && bansOf(row).length === 0);
  return {
    sequence: mirror.sequence,
    added: selectedRows(mirror, selection),
    removed: view.dedup ? lastOfEach(unbanned) : unbanned,
  };
}

/**
 * The full state for a bouncer that asked for changes, but whose cursor is lost. What it has is not known: with limits it
 * may have all that it had before it was limited. So everything that it may ask for and is not to have is removed. Before
 * `since` the bouncer had nothing.
 */
export function fromNothing(mirror: Mirror, selection: Selection, since: number): Answer {
  const { sequence, added, removed } = fullState(mirror, selection, since);
  const rows = [...removed];
  const { view } = selection;
  if (view.limits) {
    const bansOf = bansOn(mirror, selection);
    const asked = matcher({ ...view, limits: null });
    for (const row of removedSince(mirror, since)) if (asked(row) && bansOf(row).length === 0) rows.push(row);
    for (const row of mirror.byId.values()) if (asked(row) && bansOf(row).length === 0) rows.push(row);
  }
  return { sequence, added, removed: allRemovals(mirror, view, rows) };
}

/** What changed in the view after `since`, which the caller has checked against `mirror.purgedSequence`. */
export function changesSince(mirror: Mirror, view: View, since: number): Answer {
  const matches = matcher(view);
  const changes = changesIn(mirror, view, matches, since);

  const added = new Set<Row>();
  for (const row of changes.added) {
    if (!isActive(mirror, row)) continue;
    if (!view.dedup || longest(mirror, row, matches) === row) added.add(row);
  }
  const bansOf = bansOn(mirror, { view, capped: null });
  const unbanned: Row[] = [];
  for (const row of changes.removed) {
    const bans = bansOf(row);
    if (bans.length === 0) unbanned.push(row);
    for (const ban of announcedAgain(view, row, bans)) added.add(ban);
  }
  return { sequence: mirror.sequence, added: [...added], removed: allRemovals(mirror, view, unbanned) };
}

/**
 * The way from what a bouncer was delivered to what it is to have, when its limits changed or it has a cap. Nobody knows
 * which of its last answers arrived, so the answer is right for each of these states. It may announce what the bouncer
 * has and remove what it never had; both are harmless, the opposite is not.
 */
export function transition(mirror: Mirror, selection: Selection, from: readonly DeliveredState[]): Answer {
  const { view } = selection;
  const bansOf = bansOn(mirror, selection);
  const selected = new Set(selectedRows(mirror, selection));
  const added = new Set<Row>();
  const removed = new Set<Row>();
  for (const state of from) {
    const { rows, had } = whatItHad(mirror, view, state);
    const common = state.common && new Set(state.common);
    const surelyHad = common ? (row: Row) => common.has(row.rowId) : had;
    for (const row of selected) if (row.addedSeq > state.sequence || !surelyHad(row)) added.add(row);
    for (const row of rows) {
      if (selected.has(row)) continue;
      const bans = bansOf(row);
      if (bans.length === 0) removed.add(row);
      for (const ban of announcedAgain(view, row, bans)) added.add(ban);
    }
  }
  return {
    sequence: mirror.sequence,
    added: [...added],
    removed: allRemovals(mirror, view, [...removed]),
  };
}

/** The rows that a bouncer may have had in a delivered state, including those that were removed since. */
function whatItHad(
  mirror: Mirror,
  view: View,
  { sequence, baseline }: DeliveredState,
): { readonly rows: readonly Row[]; readonly had: (row: Row) => boolean } {
  const held = baseline?.held ? new Set(baseline.held) : null;
  const saw = matcher({ ...view, limits: baseline?.limits ?? null });
  // A renewed row keeps its `rowId`. Without a cap, rows that came after `sequence` count too: the cursor may be older
  // than the bouncer's last answer.
  const had = (row: Row): boolean => (held ? held.has(row.rowId) : saw(row));
  const rows = removedSince(mirror, sequence).filter(had);
  for (const row of mirror.byId.values()) if (had(row)) rows.push(row);
  return { rows, had };
}

const none: readonly Row[] = [];

/** The remaining bans of a removed row's network that have to be announced again. */
function announcedAgain({ dedup }: View, row: Row, bans: readonly Row[]): readonly Row[] {
  const winner = dedup ? bans.find((other) => sameText(other, row)) : undefined;
  // Its removal is kept back, but a kernel's set may have taken its duration.
  if (!winner) return bans;
  // The text stays, but not for as long.
  return row.untilMs > winner.untilMs ? [winner] : none;
}

function lastOfEach(rows: readonly Row[]): Row[] {
  return [...new Map(rows.map((row) => [keyOf(row), row])).values()];
}

/**
 * All removals that go out when nothing bans these rows' networks any more: their own, and those that were kept back,
 * which have other spellings or, without dedup, other ids. A bouncer without a clock would keep those for ever. The newest
 * come first.
 */
function allRemovals(mirror: Mirror, view: View, unbanned: readonly Row[]): Row[] {
  const several = view.dedup
    ? unbanned.filter(({ canonicalValue }) => mirror.respelled.has(canonicalValue))
    : unbanned;
  const rows = [...(several.length === 0 ? [] : keptBack(mirror, view, several)), ...unbanned];
  return (view.dedup ? lastOfEach(rows) : [...new Set(rows)]).toReversed();
}

/** Ignores the limits, since a bouncer may have had these rows before its limits changed. */
function keptBack(mirror: Mirror, view: View, unbanned: readonly Row[]): Row[] {
  const asked = matcher({ ...view, limits: null });
  const byValue = Map.groupBy(unbanned, ({ canonicalValue }) => canonicalValue);
  const isKeptBack = (row: Row): boolean => {
    const freed = byValue.get(row.canonicalValue);
    return freed !== undefined && freed.some((other) => sameNetwork(other, row)) && asked(row);
  };
  const values = [...byValue.keys()];
  const active = values.flatMap((value) => mirror.byCanonicalValue.get(value) ?? []);
  // Without dedup even a network with one spelling has removals that were kept back.
  const ended = view.dedup ? values.flatMap((value) => mirror.respelled.get(value) ?? []) : mirror.removed;
  const stored = values.flatMap((value) => (mirror.respelled.has(value) ? mirror.keptBack.of(value) : []));
  return [...stored, ...active, ...ended].filter(isKeptBack);
}

/** An answer, and the removals that it leaves for the next ones, in their order. */
export interface Delivery {
  readonly answer: Answer;
  readonly pending: readonly PendingRemoval[];
}

/**
 * The answer with only one spelling of each network in `removed`; the others stay pending. Pending removals come first,
 * and are dropped if the network is banned again. nftables refuses a whole batch that removes one element twice: Debian's
 * firewall bouncer 0.0.25 then loses all unbans of the batch, and so does the current one by its source
 * (nftables_context.go).
 */
export function oneSpellingEach(
  mirror: Mirror,
  selection: Selection,
  answer: Answer,
  pending: readonly PendingRemoval[],
): Delivery {
  if (pending.length === 0 && mirror.respelled.size === 0) return { answer, pending };
  const bansOf = bansOn(mirror, selection);
  const delivered = new Map<string, Row[]>();
  const removed: Row[] = [];
  /** False: another spelling of the network is in this answer. */
  const deliver = (row: Row): boolean => {
    const before = delivered.get(row.canonicalValue) ?? [];
    if (before.some((other) => sameNetwork(other, row) && !sameText(other, row))) return false;
    if (!before.includes(row)) removed.push(row);
    delivered.set(row.canonicalValue, [...before, row]);
    return true;
  };
  const waiting: PendingRemoval[] = [];
  const again: PendingRemoval[] = [];
  for (const { row, times } of pending) {
    if (bansOf(row).length > 0) continue;
    if (!deliver(row)) waiting.push({ row, times });
    else if (times > 1) again.push({ row, times: times - 1 });
  }
  const known = new Set(pending.map(({ row }) => row));
  for (const row of answer.removed) {
    if (!mirror.respelled.has(row.canonicalValue)) removed.push(row);
    else if (!deliver(row) && !known.has(row)) waiting.push({ row, times: 2 });
  }
  return { answer: { ...answer, removed }, pending: [...waiting, ...again] };
}
