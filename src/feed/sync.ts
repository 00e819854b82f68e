// One round of sync, as a plan: what the engine said × what the mirror holds → what changes. Pure; the
// caller (rounds.ts) fetched the answer, and applies the plan in one transaction.
// What a mistake here does: drop a ban that the engine still has, or keep one that it took back.
//
// A LAPI stream loses changes (rows committed after a poll that started later than they did, slow deletes,
// every hard delete), so a delta only ever adds, or ends what it names; only the full list can show that
// something is missing, and a large gap in it needs a second look.

import { firstLocalId, isLocal, sameContent, type Decision, type Row } from './decision.ts';
import { isActive, rowsOf, type Mirror } from './mirror.ts';

export type RoundKind = 'delta' | 'full' | 'tail';

export interface Plan {
  readonly add: readonly Decision[];
  /** The same decision under a new id: a community pull replaced it, or its database came back. */
  readonly renew: readonly Renewal[];
  readonly remove: readonly Row[];
  /** Rows of a database that is gone: no engine knows them any more, and they live to their own end. */
  readonly orphan: readonly Row[];
  /** The engine's ids that the full list misses and that are kept until another full list misses them too. */
  readonly held: ReadonlySet<number>;
  /** Why the answer needs a (further) full list to be believed; undefined when it is plain. */
  readonly doubt: string | undefined;
}

export interface Renewal {
  readonly row: Row;
  readonly decision: Decision;
}

/** Sequence and the engine's highest id as of the last believed full list: what is newer may be another database's. */
export interface Trusted {
  readonly sequence: number;
  readonly highestId: number;
}

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
}

/**
 * What is taken for gone when the full list misses it. `judge`: what that looks right for. `own`: all of it, however much,
 * where it is the database that we know, since a machine deleted alerts there; what another one left behind stands.
 * `all`: that, too, since an operator vouches for the engine.
 */
export const beliefs = ['judge', 'own', 'all'] as const;
export type Belief = (typeof beliefs)[number];

export interface Planner {
  take(list: 'new' | 'deleted', decision: Decision): void;
  /** To be called in the same turn as the plan is applied. */
  finish(nowMs: number): Plan;
}

interface Settled {
  readonly plan: Plan;
  /** Rows that renewals and replacements took the place of. */
  readonly replaced: ReadonlySet<Row>;
  readonly replacements: number;
}

/** Rounding of durations, and how long the engine took to answer, move `until` by this much at most. */
const untilToleranceMs = 30_000;

/** A full list that misses more than this share of the mirror is believed when a second one agrees. */
const largeShare = 1 / 3;

/** Feeds on the decisions of one answer as they stream in; keeps only what the mirror does not know. */
export function createPlanner(mirror: Mirror, start: RoundStart): Planner {
  const own = rowsOf(mirror, start.engine);
  // Ids here are the engine's.
  const seen = new Set<number>();
  const fresh = new Map<number, Decision>();
  const ended = new Set<Row>();
  const reused = new Set<Row>();
  const shifted = new Map<Row, Decision>();
  let highestId = 0;

  const take: Planner['take'] = (list, decision) => {
    const known = own.get(decision.id);
    if (list === 'deleted') {
      if (known) (sameContent(known, decision) ? ended : reused).add(known);
      return;
    }
    highestId = Math.max(highestId, decision.id);
    if (known && sameContent(known, decision)) {
      seen.add(decision.id);
      // A decision's end never moves at an engine; its clock may, and all its durations with it.
      if (!sameUntil(known, decision)) shifted.set(known, decision);
    } else {
      if (known) reused.add(known);
      fresh.set(decision.id, decision);
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
    const plan = { add, renew, remove, orphan: [], held: start.held, doubt: undefined };
    return { plan, replaced, replacements };
  };

  /** What a full list says by what it misses. */
  const judgeFull = ({ plan, replaced, replacements }: Settled): Plan => {
    const { add, renew, remove } = plan;
    const candidates = [...own.values(), ...(start.belief === 'all' ? orphans(mirror, start) : [])];
    const missing = candidates.filter(
      (row) => row.addedSeq <= start.sequence && !seen.has(row.engineId) && !replaced.has(row),
    );
    const believed = { ...plan, remove: [...remove, ...missing], held: new Set<number>() };
    if (start.belief === 'all') return believed;

    const held = new Set(missing.map((row) => row.engineId));
    const again = missing.every((row) => start.held.has(row.engineId));
    /** Nothing may come in under the id of a row that stays; so what would take a row's place takes none away yet. */
    const holding = (doubt: string): Plan => ({
      ...plan,
      remove: remove.filter((row) => !replaced.has(row)),
      add: add.filter(({ id }) => !held.has(id)),
      renew: renew.filter(({ row, decision }) => row.engineId === decision.id || !held.has(decision.id)),
      held,
      doubt,
    });
    const isBack = !start.moved && renew.some(({ row }) => isLocal(row));
    // Where it moved: two engines have pulls in common, under the same ids even, where both were new then.
    const proves = (row: Row | undefined): boolean =>
      row !== undefined && row.addedSeq <= start.trusted.sequence && !(start.moved && isPulled(row));
    const shared = (!start.moved && replacements > 0) || [...seen].some((id) => proves(own.get(id)));
    const reaches = !start.moved && highestId > start.trusted.highestId;
    // What was deleted may be all of it. Higher ids alone prove little: a new database may have come as far.
    const isOurs = shared || seen.size + fresh.size === 0;
    if (start.belief === 'own' && isOurs && !start.moved && reused.size === 0) return believed;
    const another = !isBack && (reused.size > 0 || (!shared && !reaches));
    if (another && missing.length > 0) {
      // Twice another database, and one in use: what we hold steps aside, so that its ids can come in.
      if (again && seen.size + fresh.size > 0) return { ...plan, orphan: missing, held: new Set() };
      return holding(anotherDatabase(missing.length));
    }
    const all = seen.size + replacements + missing.length;
    if (again || missing.length <= all * largeShare) return believed;
    const confirmed = missing.filter((row) => start.held.has(row.engineId));
    const gap = `the full list misses ${missing.length} of ${all} decisions: kept until a second one agrees`;
    const gapped = holding(gap);
    return { ...gapped, remove: [...gapped.remove, ...confirmed] };
  };

  const finish: Planner['finish'] = (nowMs) => {
    if (start.kind === 'full') return judgeFull(settle(nowMs));
    // A delta can't tell which of the two databases is right: the full list will.
    for (const row of reused) fresh.delete(row.engineId);
    const doubt = reused.size > 0 ? 'an id came back with other content' : undefined;
    return { ...settle(nowMs).plan, doubt };
  };

  return { take, finish };
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

function sameUntil(known: Decision, decision: Decision): boolean {
  return Math.abs(known.untilMs - decision.untilMs) <= untilToleranceMs;
}

/** Rows of this engine's that it does not know any more. */
function orphans(mirror: Mirror, { engine }: RoundStart): Row[] {
  return [...mirror.byId.values()].filter((row) => isLocal(row) && row.engine === engine);
}

function isPulled({ origin }: Decision): boolean {
  return origin === 'CAPI' || origin === 'lists';
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
  return (mirror.byValue.get(decision.value) ?? []).filter((row) => {
    if (row.engine !== engine || row.origin !== decision.origin) return false;
    if (moved && pulled && !saysAsMuch(row)) return false;
    if (!isLocal(row)) return pulled && row.engineId < decision.id;
    return pulled || (sameContent(row, decision) && sameUntil(row, decision));
  });
}

/** Whether a decision read from an engine can be mirrored under its own id. */
export function isEngineId(id: number): boolean {
  return Number.isInteger(id) && id > 0 && id < firstLocalId;
}
