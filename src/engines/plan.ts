// One round of sync, as a plan: what the engine said × what the mirror holds → what changes. Pure; the
// caller (rounds.ts) fetched the answer, and applies the plan in one transaction.
// What a mistake here does: drop a ban that the engine still has, or keep one that it took back.
//
// A LAPI stream loses changes (rows committed after a poll that started later than they did, slow deletes,
// every hard delete), so a delta only ever adds, or ends what it names; only the full list can show that
// something is missing, and a large gap in it needs a second look. A full list may be slow: deltas are applied while it
// comes, and what they did since it was asked for stands.

import { removedSince } from '../stream/answer.ts';
import { canonicalValue } from '../formats/canonical.ts';
import { isListed, soonest } from './ceiling.ts';
import { isLocal, sameContent, type Decision, type Row } from '../formats/decision.ts';
import { isActive, rowsOf, type Mirror } from '../mirror/memory.ts';
import type { Plan, Renewal, Trusted } from '../mirror/plan.ts';

export type RoundKind = 'delta' | 'full' | 'tail';

/** What a round starts from. */
export interface RoundStart {
  readonly kind: RoundKind;
  /** Whose answer it is, by its handle. */
  readonly engine: string;
  /** It is elsewhere than when a full list was last believed: it may be another engine. */
  readonly moved: boolean;
  /** The mirror's sequence when the request went out: later rows cannot be missed by its answer. */
  readonly sequence: number;
  /** Where the mirror stood when a full list was last believed. */
  readonly trusted: Trusted;
  /** `Plan.held` of the last full list. */
  readonly held: ReadonlySet<number>;
  readonly belief: Belief;
  /** The most decisions that the feed holds. */
  readonly most: number;
}

/**
 * What is taken for gone when the full list misses it. `judge`: what that looks right for. `own`: all of it, however much,
 * where it is the database that we know, since a machine deleted alerts there; what another one left behind stands.
 * `all`: that, too, since an operator vouches for the engine.
 */
export const beliefs = ['judge', 'own', 'all'] as const;
export type Belief = (typeof beliefs)[number];

export interface Planner {
  /** `spreadMs`: the decision may end so much later than it says. */
  take(list: 'new' | 'deleted', decision: Decision, spreadMs?: number): void;
  /** An element that can't be read. With an id it is there, whatever it is; without, it may be any that is missing. */
  passOver(list: 'new' | 'deleted', id: number | null): void;
  /** To be called in the same turn as the plan is applied. */
  finish(nowMs: number): Plan;
}

/** Rounding of durations moves `until` by this much at most. */
const untilToleranceMs = 30_000;

/** A full list that misses more than this share of the mirror is believed when a second one agrees. */
const largeShare = 1 / 3;

/** Feeds on the decisions of one answer as they stream in; keeps only what the mirror does not know. */
export function createPlanner(mirror: Mirror, start: RoundStart): Planner {
  const own = rowsOf(mirror, start.engine);
  // Ids here are the engine's.
  const seen = new Set<number>();
  const unread = new Set<number>();
  let unreadWithoutId = 0;
  const ended = new Set<Row>();
  const reused = new Set<Row>();
  const fresh = new Map<number, Decision>();
  const shifted = new Map<Row, Decision>();
  let highestId = 0;
  let leftOut = 0;
  let mostFresh = 1.5 * start.most;

  /** An answer may be longer than memory is large: of what is new to the mirror the most that could find room stays. */
  const leaveOut = (): void => {
    const isNew = (decision: Decision): boolean =>
      isListed(decision) && !own.has(decision.id) && predecessors(mirror, start, decision).length === 0;
    const coming = [...fresh.values()].filter(isNew);
    const out = soonest(coming, coming.length - start.most);
    for (const { id } of out) fresh.delete(id);
    leftOut += out.length;
    mostFresh = fresh.size + start.most / 2;
  };

  const take: Planner['take'] = (list, decision, spreadMs = 0) => {
    const known = own.get(decision.id);
    if (list === 'deleted') {
      if (known) (sameContent(known, decision) ? ended : reused).add(known);
      return;
    }
    highestId = Math.max(highestId, decision.id);
    if (known && sameContent(known, decision)) {
      seen.add(decision.id);
      // A decision's end never moves at an engine; its clock may, and all its durations with it.
      if (!sameUntil(known, decision, spreadMs)) shifted.set(known, decision);
    } else {
      if (known) reused.add(known);
      fresh.set(decision.id, decision);
      if (fresh.size > mostFresh) leaveOut();
    }
  };

  const passOver: Planner['passOver'] = (list, id) => {
    if (list === 'deleted') return;
    if (id === null) unreadWithoutId++;
    else unread.add(id);
  };

  /** What deltas did while a full list came is newer than what it says. */
  const settleMeanwhile = (): void => {
    const since = removedSince(mirror, start.sequence);
    // Those that ended by themselves are no news: the list would not have them, unless our clock is wrong.
    const takenBack = since.filter((row) => row.engine === start.engine && row.removedMs < row.untilMs);
    for (const row of takenBack) fresh.delete(row.engineId);
    for (const [id, decision] of fresh) {
      const known = own.get(id);
      if (known && sameContent(known, decision)) {
        fresh.delete(id);
        seen.add(id);
      } else if (known) reused.add(known);
      else if (isOutdated(mirror, start, decision)) fresh.delete(id);
    }
  };

  /** Sorts what is new into additions and renewals; returns what the renewals and replacements took away. */
  const settleFresh = (nowMs: number, add: Decision[], renew: Renewal[]): Set<Row> => {
    const replaced = new Set<Row>();
    for (const decision of fresh.values()) {
      if (decision.untilMs - nowMs < 1000) continue;
      const free = (row: Row): boolean =>
        !seen.has(row.engineId) && !fresh.has(row.engineId) && !ended.has(row) && !replaced.has(row);
      const old = predecessors(mirror, start, decision).filter(free);
      const same = old.find((row) => sameContent(row, decision));
      if (same) renew.push({ row: same, decision });
      else add.push(decision);
      for (const row of old) replaced.add(row);
    }
    return replaced;
  };

  /** What the answer says by itself: additions, renewals, and the ends that it names. */
  const settle = (nowMs: number): Settled => {
    const add: Decision[] = [];
    const renew: Renewal[] = [];
    const replaced = settleFresh(nowMs, add, renew);
    const replacements = renew.length;
    for (const [row, decision] of shifted) if (isActive(mirror, row)) renew.push({ row, decision });
    const renewed = new Set(renew.map(({ row }) => row));
    const remove = [...ended, ...replaced].filter((row) => isActive(mirror, row) && !renewed.has(row));
    const plan = { add, renew, remove, orphan: [], held: start.held, doubt: undefined, leftOut, highestId };
    return { plan, replaced, replacements };
  };

  /** Which database a full list is of. `missing`: of what it was expected to have. */
  const databaseOf = (
    { plan, replacements }: Settled,
    missing: readonly Row[],
  ): 'ours' | 'likely ours' | 'another' => {
    const isBack = !start.moved && plan.renew.some(({ row }) => isLocal(row));
    // Where it moved: two engines have pulls in common, under the same ids even, where both were new then.
    const proves = (row: Row | undefined): boolean =>
      row !== undefined && row.addedSeq <= start.trusted.sequence && !(start.moved && isPulled(row));
    const shared = (!start.moved && replacements > 0) || [...seen].some((id) => proves(own.get(id)));
    if (start.belief === 'own' && !start.moved && reused.size === 0) {
      // What was deleted may be all of it. Higher ids alone prove little: a new database may have come as far.
      if (shared || seen.size + fresh.size === 0) return 'ours';
    }
    const reaches = !start.moved && highestId > start.trusted.highestId;
    const another = !isBack && (reused.size > 0 || (!shared && !reaches));
    return another && missing.length > 0 ? 'another' : 'likely ours';
  };

  /** What a full list says by what it misses. */
  const judgeFull = (settled: Settled): Plan => {
    const { plan, replaced, replacements } = settled;
    const { add, renew, remove } = plan;
    const candidates = [...own.values(), ...(start.belief === 'all' ? orphans(mirror, start) : [])];
    const missing = candidates.filter(
      (row) =>
        row.addedSeq <= start.sequence &&
        !seen.has(row.engineId) &&
        !unread.has(row.engineId) &&
        !replaced.has(row),
    );
    const believed = { ...plan, remove: [...remove, ...missing], held: new Set<number>() };
    if (start.belief === 'all') return believed;

    const all = seen.size + replacements + missing.length;
    const confirmed = missing.filter((row) => start.held.has(row.engineId));
    const again = confirmed.length === missing.length;
    const held = new Set(missing.map((row) => row.engineId));
    /** Nothing may come in under the id of a row that stays; so what would take a row's place takes none away yet. */
    const holding = (doubt: string): Plan => ({
      ...plan,
      remove: remove.filter((row) => !replaced.has(row)),
      add: add.filter(({ id }) => !held.has(id)),
      renew: renew.filter(({ row, decision }) => row.engineId === decision.id || !held.has(decision.id)),
      held,
      doubt,
    });
    const database = databaseOf(settled, missing);
    if (database === 'another') {
      // Twice another database, and one in use: what we hold steps aside, so that its ids can come in.
      if (again && seen.size + fresh.size > 0) return { ...plan, orphan: missing, held: new Set() };
      return holding(anotherDatabase(missing.length));
    }
    if (again) return believed;
    if (unreadWithoutId > 0) {
      const first = missing.filter((row) => !start.held.has(row.engineId));
      const kept = new Set(first.map((row) => row.engineId));
      return { ...plan, remove: [...remove, ...confirmed], held: kept, doubt: unreadGap(first.length) };
    }
    if (database === 'ours' || missing.length <= all * largeShare) return believed;
    const gap = `the full list misses ${missing.length} of ${all} decisions: kept until a second one agrees`;
    const gapped = holding(gap);
    return { ...gapped, remove: [...gapped.remove, ...confirmed] };
  };

  const finish: Planner['finish'] = (nowMs) => {
    if (start.kind === 'full') {
      settleMeanwhile();
      return judgeFull(settle(nowMs));
    }
    // A delta can't tell which of the two databases is right: the full list will.
    for (const row of reused) fresh.delete(row.engineId);
    const doubt = reused.size > 0 ? 'an id came back with other content' : undefined;
    return { ...settle(nowMs).plan, doubt };
  };

  return { take, passOver, finish };
}

interface Settled {
  readonly plan: Plan;
  /** Rows that renewals and replacements took the place of. */
  readonly replaced: ReadonlySet<Row>;
  readonly replacements: number;
}

/**
 * A full list with other content under an id that we know, or one that shares no row with what was last believed
 * and reaches no id beyond the highest of then, is another database (an emptied or a restored one): absence from
 * it says nothing of what was banned. One that has orphans of ours is the old database, come back. From another
 * address it has to share a decision of the engine's own making, whatever its ids and its orphans.
 */
function anotherDatabase(kept: number): string {
  return (
    `the full list looks like another database's: ${kept} decisions kept until they end. ` +
    'If the engine is right: POST /api/v1/feed/sync?full=true&believe=true'
  );
}

function unreadGap(kept: number): string {
  return `${kept} missing decisions may be among those that can't be read: kept until a second full list misses them`;
}

function sameUntil(known: Decision, decision: Decision, spreadMs: number): boolean {
  const laterMs = known.untilMs - decision.untilMs;
  return laterMs >= -untilToleranceMs && laterMs <= untilToleranceMs + spreadMs;
}

/** Rows of this engine's that it does not know any more. */
function orphans(mirror: Mirror, { engine }: RoundStart): Row[] {
  return [...mirror.byId.values()].filter((row) => isLocal(row) && row.engine === engine);
}

function isPulled({ origin }: Decision): boolean {
  return origin === 'CAPI' || origin === 'lists';
}

/** Whether a newer pull has taken the place of this one since the list was asked for. */
function isOutdated(mirror: Mirror, { engine, sequence }: RoundStart, decision: Decision): boolean {
  if (!isPulled(decision)) return false;
  const { scope, value } = decision;
  const siblings = mirror.byCanonicalValue.get(canonicalValue(scope, value)) ?? [];
  return siblings.some(
    (row) =>
      row.value === value &&
      row.engine === engine &&
      row.origin === decision.origin &&
      row.addedSeq > sequence &&
      row.engineId > decision.id,
  );
}

/**
 * Rows of this engine that this new decision takes the place of. A community or list pull hard-deletes older rows of the
 * same origin and value in the transaction that adds the new one, and no delta tells (LAPI: apic.go
 * UpdateCommunityBlocklist). An orphan yields to the same decision from a database that is back. What may be another
 * engine's pull takes the place of what says no more than it does.
 */
function predecessors(mirror: Mirror, { engine, moved }: RoundStart, decision: Decision): Row[] {
  const pulled = isPulled(decision);
  const saysAsMuch = (row: Row): boolean =>
    sameContent(row, decision) && decision.untilMs >= row.untilMs - untilToleranceMs;
  const { scope, value } = decision;
  return (mirror.byCanonicalValue.get(canonicalValue(scope, value)) ?? []).filter((row) => {
    if (row.value !== value || row.engine !== engine || row.origin !== decision.origin) return false;
    if (moved && pulled && !saysAsMuch(row)) return false;
    if (!isLocal(row)) return pulled && row.engineId < decision.id;
    return pulled || (sameContent(row, decision) && sameUntil(row, decision, 0));
  });
}
