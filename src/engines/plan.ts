// One round of sync as a plan: what an engine answered, compared with the mirror, gives what changes. Pure. rounds.ts
// fetches the answer and applies the plan in one transaction. A mistake here drops a ban that the engine still has, or
// keeps one that it removed.
//
// A LAPI stream loses changes: rows that are committed after a later poll started, slow deletes, and every hard delete.
// So a delta only adds decisions and removes those that it names. Only a full list can show that a decision is missing,
// and if much of it is missing, a second list has to confirm it. A full list may take minutes: deltas are applied
// meanwhile, and what they changed since the list was asked for stands.

import { canonicalValue } from '../formats/canonical.ts';
import { isLocal, knownSince, sameContent, type Decision, type Row } from '../formats/decision.ts';
import { isActive, removedSince, rowsOf, type Mirror } from '../mirror/memory.ts';
import type { Store } from '../mirror/mirror.ts';
import type { Plan, Renewal } from '../mirror/sync.ts';
import type { Trusted } from '../mirror/progress.ts';
import { isOwn } from '../stream/selection.ts';
import { isPulled, someKnownBefore } from './known-before.ts';

export type RoundKind = 'delta' | 'full' | 'tail';

/** What a round starts from. */
export interface RoundStart {
  readonly kind: RoundKind;
  /** The engine's handle. */
  readonly engine: string;
  /** Its address is another than at the last accepted full list: it may be another engine. */
  readonly moved: boolean;
  /** Its decisions have ids of ours (pictures.ts), which say nothing about its database. */
  readonly numbered: boolean;
  /** The mirror's sequence when the request went out. Its answer can't miss later rows. */
  readonly sequence: number;
  readonly trusted: Trusted;
  /** `Plan.held` of the last full list. */
  readonly held: ReadonlySet<number>;
  readonly policy: RemovalPolicy;
  /** The most decisions that the feed holds (`MAX_DECISIONS`). */
  readonly most: number;
}

/**
 * When decisions that a full list misses are removed. `confirm`: at once if they are few, otherwise when a second list
 * misses them too. `same-database`: at once however many they are, if the list is of the database that we know, since a
 * machine deleted alerts there. `force`: at once, orphans of a replaced database included, since an operator says so.
 */
export const removalPolicies = ['confirm', 'same-database', 'force'] as const;
export type RemovalPolicy = (typeof removalPolicies)[number];

export interface Planner {
  /** `spreadMs`: the decision may end so much later than it says. */
  take(list: 'new' | 'deleted', decision: Decision, spreadMs?: number): void;
  /** An element that can't be read. Its id is active; without an id it may be any of the missing decisions. */
  passOver(list: 'new' | 'deleted', id: number | null): void;
  /**
   * To be called in the same turn as the plan is applied. `isMeasured`: an answer that was cut would have shown it. Engines'
   * JSON does.
   */
  finish(nowMs: number, isMeasured?: boolean): Plan;
}

/** Rounding of durations moves `until` by this much at most. */
const untilToleranceMs = 30_000;

/** If a full list misses more than this share of the mirror, a second one has to confirm it. */
const largeShare = 1 / 3;
/** A list that nobody's database is behind may change as a whole from day to day. It has to be confirmed if it shrinks so. */
const shrunkShare = 1 / 2;
/** One that nobody measured may have been cut: if it shrinks so. */
const unmeasuredShare = 9 / 10;

/** What a full list says about the decisions that it misses. */
type Verdict =
  /** It is complete: they are removed. */
  | 'same'
  /** They may be among the elements that can't be read: a second list has to miss them too. */
  | 'unreadable'
  /** They are too many: a second list has to miss them too. */
  | 'gap'
  /** It is of another database (an emptied or a restored one), which says nothing about them: a second list decides. */
  | 'other-database'
  /** The second such list: they stay until their own ends, as orphans. */
  | 'replaced';

/** What an answer says by itself: additions, renewals and the removals that it names. */
interface Settled {
  readonly plan: Plan;
  /** Rows that renewals and additions replace. */
  readonly replaced: ReadonlySet<Row>;
  readonly replacements: number;
}

/** Reads the decisions of one answer as they stream in, and keeps only those that the mirror does not know. */
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
  let leastShare = shrunkShare;
  let highestId = 0;
  let leftOut = 0;
  let mostFresh = 1.5 * start.most;

  /** An answer may be larger than memory: only as many new decisions stay as could find room. */
  const leaveOut = (): void => {
    const isNew = (decision: Decision): boolean =>
      (start.numbered || !isOwn(decision)) &&
      !own.has(decision.id) &&
      predecessors(mirror, start, decision).length === 0;
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
      // A decision's end never moves at an engine. Its clock may move, and all durations with it.
      if (sameUntil(known, decision, spreadMs)) shifted.delete(known);
      else shifted.set(known, decision);
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

  /** Changes that deltas made while a full list came are newer than the list. */
  const settleMeanwhile = (): void => {
    const since = removedSince(mirror, start.sequence);
    // Rows that ended by our clock do not count: if the list still has them, our clock is wrong.
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

  /** Sorts new decisions into additions and renewals. Returns the rows that they replace. */
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

  const settle = (nowMs: number): Settled => {
    const add: Decision[] = [];
    const renew: Renewal[] = [];
    const replaced = settleFresh(nowMs, add, renew);
    const replacements = renew.length;
    for (const [row, decision] of shifted) if (isActive(mirror, row)) renew.push({ row, decision });
    const renewed = new Set(renew.map(({ row }) => row));
    const remove = [...ended, ...replaced].filter((row) => isActive(mirror, row) && !renewed.has(row));
    const plan = { add, renew, remove, orphan: [], held: start.held, warning: undefined, leftOut, highestId };
    return { plan, replaced, replacements };
  };

  /** The rows that a full list misses. */
  const missingRows = ({ replaced }: Settled): Row[] => {
    const candidates = [...own.values(), ...(start.policy === 'force' ? orphans(mirror, start) : [])];
    return candidates.filter(
      (row) =>
        knownSince(row) <= start.sequence &&
        !seen.has(row.engineId) &&
        !unread.has(row.engineId) &&
        !replaced.has(row),
    );
  };

  /**
   * A full list is of another database if it has other content under a known id, or if it shares no row with the last
   * accepted list and reaches no id beyond the highest one of then. It is of the old database, which has returned, if it
   * has orphans of ours. An engine at a new address has to share a decision of its own making, whatever its ids are. A
   * list whose ids are ours has no database.
   */
  const verdictOn = (
    { plan, replacements }: Settled,
    missing: readonly Row[],
    isConfirmed: boolean,
  ): Verdict => {
    if (start.policy === 'force') return 'same';
    const { moved, trusted } = start;
    // At a new address, pulled decisions prove nothing: two new engines may have the same ones under the same ids.
    const proving = [...seen].flatMap((id) => own.get(id) ?? []).filter((row) => !(moved && isPulled(row)));
    const shared = (!moved && replacements > 0) || someKnownBefore(mirror, proving, trusted.sequence);
    const isEmpty = seen.size + fresh.size === 0;
    // A machine may have deleted all decisions. High ids prove little: a new database may have come as far.
    const isCertain = start.policy === 'same-database' && !moved && reused.size === 0 && (shared || isEmpty);
    const hasReturned = !moved && plan.renew.some(({ row }) => isLocal(row));
    const goesOn = shared || (!moved && highestId > trusted.highestId);
    const isOther =
      !start.numbered && !isCertain && !hasReturned && missing.length > 0 && (reused.size > 0 || !goesOn);
    if (isOther) return isConfirmed && !isEmpty ? 'replaced' : 'other-database';
    if (isConfirmed) return 'same';
    if (unreadWithoutId > 0) return 'unreadable';
    const all = seen.size + replacements + missing.length;
    if (start.numbered) return seen.size + fresh.size >= all * leastShare ? 'same' : 'gap';
    return isCertain || missing.length <= all * largeShare ? 'same' : 'gap';
  };

  const planFull = (settled: Settled): Plan => {
    const { plan, replaced, replacements } = settled;
    const missing = missingRows(settled);
    const confirmed = missing.filter((row) => start.held.has(row.engineId));
    const verdict = verdictOn(settled, missing, confirmed.length === missing.length);
    const held = idsOf(missing);
    /** The missing rows stay. No row may take the id of one of them, so nothing is replaced either. */
    const kept = (warning: string): Plan => ({
      ...plan,
      remove: plan.remove.filter((row) => !replaced.has(row)),
      add: plan.add.filter(({ id }) => !held.has(id)),
      renew: plan.renew.filter(({ row, decision }) => row.engineId === decision.id || !held.has(decision.id)),
      held,
      warning,
    });
    switch (verdict) {
      case 'same':
        return { ...plan, remove: [...plan.remove, ...missing], held: new Set() };
      case 'replaced':
        return { ...plan, orphan: missing, held: new Set() };
      case 'other-database':
        return kept(
          `the full list looks like another database's: ${missing.length} decisions kept until they end. ` +
            'If the engine is right: POST /api/v1/feed/sync?full=true&force=true',
        );
      case 'gap': {
        const all = seen.size + replacements + missing.length;
        const gap = kept(
          `the full list misses ${missing.length} of ${all} decisions: kept until a second one agrees`,
        );
        return { ...gap, remove: [...gap.remove, ...confirmed] };
      }
      case 'unreadable': {
        const unconfirmed = missing.filter((row) => !start.held.has(row.engineId));
        const warning =
          `${unconfirmed.length} missing decisions may be among those that can't be read: kept until a second full ` +
          'list misses them';
        return { ...plan, remove: [...plan.remove, ...confirmed], held: idsOf(unconfirmed), warning };
      }
    }
  };

  /** The allow-list may have put another row in the place of one that the answer names. */
  const settleWithheld = (): void => {
    for (const row of [...ended]) {
      const known = own.get(row.engineId);
      if (!known || known === row || !sameContent(known, row)) continue;
      ended.delete(row);
      ended.add(known);
    }
  };

  const finish: Planner['finish'] = (nowMs, isMeasured = true) => {
    leastShare = isMeasured ? shrunkShare : unmeasuredShare;
    settleWithheld();
    if (start.kind === 'full') {
      settleMeanwhile();
      return planFull(settle(nowMs));
    }
    // A delta can't tell which of the two decisions is right: the full list will.
    for (const row of reused) fresh.delete(row.engineId);
    const warning = reused.size > 0 ? 'an id came back with other content' : undefined;
    return { ...settle(nowMs).plan, warning };
  };

  return { take, passOver, finish };
}

function idsOf(rows: readonly Row[]): Set<number> {
  return new Set(rows.map(({ engineId }) => engineId));
}

function sameUntil(known: Decision, decision: Decision, spreadMs: number): boolean {
  const laterMs = known.untilMs - decision.untilMs;
  return laterMs >= -untilToleranceMs && laterMs <= untilToleranceMs + spreadMs;
}

/** Rows of this engine that it does not know any more. */
function orphans(mirror: Mirror, { engine }: RoundStart): Row[] {
  return [...mirror.byId.values()].filter((row) => isLocal(row) && row.engine === engine);
}

/** Whether a newer pull has replaced this decision since the list was asked for. */
function isOutdated(mirror: Mirror, { engine, sequence }: RoundStart, decision: Decision): boolean {
  if (!isPulled(decision)) return false;
  const { scope, value } = decision;
  const siblings = mirror.byCanonicalValue.get(canonicalValue(scope, value)) ?? [];
  return siblings.some(
    (row) =>
      row.value === value &&
      row.engine === engine &&
      row.origin === decision.origin &&
      knownSince(row) > sequence &&
      row.engineId > decision.id,
  );
}

/**
 * Rows of this engine that a new decision replaces. A pull of a community list hard-deletes older rows of the same origin
 * and value in the transaction that adds the new one, and no delta shows it (LAPI: apic.go UpdateCommunityBlocklist). An
 * orphan is replaced by the same decision of a database that has returned. At a new address a pull may be another
 * engine's, so it replaces only rows that say no more than it does.
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

/**
 * The plan without the decisions for which there is no room: an object that outgrows its memory dies, and dies again at
 * each start. Those of sources that are no engine are left out first, then those that engines have of lists; of each the
 * ones that end soonest, since they are worth least. What an engine or an operator decided itself always stays. What is
 * new of a source comes in where there is room, and takes nobody's: it ends later than what is there, so each pull would
 * put others out. `engine`: the handle of whom the plan is.
 */
export function withinCeiling(
  plan: Plan,
  engine: string,
  { mirror, sources }: Pick<Store, 'mirror' | 'sources'>,
  most: number,
): Plan {
  const excess = mirror.byId.size - plan.remove.length + plan.add.length - most;
  if (excess <= 0) return plan;
  const leaving = new Set<Row>(plan.remove);
  for (const { row } of plan.renew) leaving.add(row);
  const staying = [...mirror.byId.values()].filter((row) => !leaving.has(row));
  const renewed = plan.renew.map(({ decision }) => decision);
  const isOfSource = (row: Row): boolean => sources.has(row.engine);
  const isSource = sources.has(engine);
  const newest = isSource ? soonest(plan.add, excess) : [];
  const restCount = excess - newest.length;
  const first = [...staying.filter(isOfSource), ...(isSource ? renewed : [])];
  const others = isSource ? [] : [...renewed, ...plan.add];
  const then = [...staying.filter((row) => !isOfSource(row)), ...others].filter((each) => !isOwn(each));
  const out = new Set<Decision>([
    ...newest,
    ...soonest(first, restCount),
    ...soonest(then, restCount - first.length),
  ]);
  return {
    ...plan,
    add: plan.add.filter((decision) => !out.has(decision)),
    renew: plan.renew.filter(({ decision }) => !out.has(decision)),
    remove: [
      ...plan.remove,
      ...staying.filter((row) => out.has(row)),
      ...plan.renew.filter(({ decision }) => out.has(decision)).map(({ row }) => row),
    ],
    leftOut: plan.leftOut + out.size,
  };
}

/** The `count` decisions that end first. */
function soonest(decisions: readonly Decision[], count: number): Decision[] {
  if (count <= 0) return [];
  return decisions.toSorted((a, b) => a.untilMs - b.untilMs || b.id - a.id).slice(0, count);
}
