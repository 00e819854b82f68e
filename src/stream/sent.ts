// Which bouncers have been sent a decision, as far as the feed's object knows. An answer that has it was made for the
// bouncer; nobody can know that it arrived. Isolates report what they have answered up to a poll later, so a bouncer may have
// been sent more than is said here, and not less. A mistake here has an operator think that an address is banned where it
// is not.

import { sameText, type Row } from '../formats/decision.ts';
import type { Names } from '../mirror/engine-names.ts';
import { concerning, listed, type Listed } from '../mirror/listing.ts';
import type { Mirror } from '../mirror/memory.ts';
import type { Store } from '../mirror/mirror.ts';
import { resolveNames } from '../mirror/patterns.ts';
import {
  limitsKey,
  matcher,
  passing,
  patternsKey,
  viewOf,
  withheldFrom,
  type Filters,
  type Limits,
  type View,
} from '../mirror/view.ts';
import type { Baselines } from './baselines.ts';
import type { ViewCursor } from './client-records.ts';
import { placesOf, type Clients, type Place, type Places } from './clients.ts';
import { longest, outlives } from './selection.ts';

/**
 * `twice`: in two answers, or in a full list that the client asked for; it is not sent again. `once`: in one answer, and in
 * the next one again. `not-yet`: the next poll gets it. `never`: as things stand it is not sent (`Why`). `asks`: no place in
 * the stream is known; it asks about single addresses, or its next poll gets the full list. `unknown`: it was never seen.
 */
export const sentStates = ['twice', 'once', 'not-yet', 'never', 'asks', 'unknown'] as const;
export type SentState = (typeof sentStates)[number];

const refusals = ['paused', 'no-valid-key'] as const;
const filterNames = [
  'engines',
  'scopes',
  'origins',
  'scenarios_containing',
  'scenarios_not_containing',
] as const;

/**
 * `request.…`: what the bouncer asks for leaves it out. `view.…`: its limits do. `allow-list`: an
 * entry for all bouncers, or for this one, withholds it.
 */
export const whys = [
  ...refusals,
  'allow-list',
  ...filterNames.flatMap((name) => [`request.${name}`, `view.${name}`] as const),
  'request.type',
  'request.value',
  'view.max_decisions',
] as const;
export type Why = (typeof whys)[number];

/** A bouncer that is asked about. `limits`: with names of engines. `refused`: why its requests are; null: they are not. */
export interface SentAsk {
  readonly bouncerId: number;
  readonly name: string;
  readonly limits: Limits | null;
  readonly refused: (typeof refusals)[number] | null;
}

/** What a bouncer has been sent of one decision. */
export interface Sent {
  readonly id: number;
  /** Of the client that has got least of it, but for those that never do. */
  readonly state: SentState;
  readonly why: readonly Why[];
  /** The decision that is sent in its place: the longest one of the same text. Null: it is sent itself. */
  readonly insteadId: number | null;
  /** How many of its clients that were seen in the last day, or of all where none was. */
  readonly clients: { readonly [State in 'twice' | 'once' | 'not-yet' | 'never']: number };
}

export interface SentTo {
  /** When a client was last seen; null: none is known. */
  readonly seenMs: number | null;
  readonly clients: number;
  readonly decisions: readonly Sent[];
}

/** `isCut`: there are more decisions than these. `bouncers`: in the order of the question, and none without a decision. */
export interface SentAnswer {
  readonly decisions: readonly Listed[];
  readonly isCut: boolean;
  readonly bouncers: readonly SentTo[];
}

/** `value`: in any spelling. */
export interface SentMatch {
  readonly value: string;
  readonly scope?: string | undefined;
}

const mostDecisions = 100;
const recentMs = 86_400_000;
/** Decisions, each of each client of a bouncer, between two pauses: a few milliseconds. */
const sliceSteps = 2_000;

/** What some bouncers have been sent of the decisions on a value. `pause` lets others run. */
export async function answerSent(
  store: Store,
  { baselines, clients }: { readonly baselines: Baselines; readonly clients: Clients },
  asks: readonly SentAsk[],
  { value, scope }: SentMatch,
  nowMs: number,
  pause: () => Promise<unknown>,
): Promise<SentAnswer> {
  const { mirror, names } = store;
  const all = [...concerning(mirror, value)].filter((row) => scope === undefined || row.scope === scope);
  const rows = all.sort((a, b) => a.id - b.id).slice(0, mostDecisions);
  const decisions = listed(store, rows);
  const isCut = all.length > rows.length;
  if (rows.length === 0) return { decisions, isCut, bouncers: [] };
  const bouncerIds = asks.map(({ bouncerId }) => bouncerId);
  const places = placesOf(clients, bouncerIds);
  const sentTo = createSentTo(mirror, baselines, names, rows);
  const bouncers: SentTo[] = [];
  let steps = 0;
  for (const [index, ask] of asks.entries()) {
    const known = places[index] as Places;
    const { sentOf, ...seen } = sentTo(ask, known, nowMs);
    const sent: Sent[] = [];
    for (const at of rows.keys()) {
      sent.push(sentOf(at));
      steps += Math.max(1, known.following.length);
      if (steps < sliceSteps) continue;
      steps = 0;
      await pause();
    }
    bouncers.push({ ...seen, decisions: sent });
  }
  return { decisions, isCut, bouncers };
}

/** A bouncer's answer, of which each decision is evaluated when it is asked for, by its place among the rows. */
type SentOf = Omit<SentTo, 'decisions'> & { readonly sentOf: (at: number) => Sent };

/** A decision in a view. */
interface Looked {
  readonly why: readonly Why[];
  readonly target: Row;
}

/**
 * The decisions in a view with limits. `givenFrom`: the sequences from which on an answer by a baseline brings a bouncer to
 * have each of the targets; `Infinity`: none does.
 */
interface Looks {
  readonly of: readonly Looked[];
  readonly givenFrom: (baseline: number) => readonly number[];
}

/** What one client has been sent of one decision. */
interface Got extends Looked {
  readonly state: 'twice' | 'once' | 'not-yet' | 'never';
}

const ranks = { never: 0, 'not-yet': 1, once: 2, twice: 3 } as const;

/** Evaluates bouncers. Views repeat thousands of times, so what is found for one is remembered. Pure. */
export function createSentTo(
  mirror: Mirror,
  baselines: Baselines,
  names: Names,
  rows: readonly Row[],
): (ask: SentAsk, places: Places, nowMs: number) => SentOf {
  const byBounds = new Map<string, Map<string, Looks>>();
  const onValues = siblingsOf(mirror, rows);

  /** What each view has, by its key. `bounds`: the limits and the patterns of its bouncer. */
  const looksWith = (bounds: View): ((key: string) => Looks) => {
    const { limits, patterns } = bounds;
    const boundBy = `${limits ? limitsKey(limits) : ''} ${patternsKey(bounds)}`;
    const byView = byBounds.get(boundBy) ?? new Map<string, Looks>();
    byBounds.set(boundBy, byView);
    return (key) => {
      const view = { ...viewOf(key), limits, patterns };
      const known = byView.get(key) ?? lookAt(mirror, baselines, onValues, rows, view);
      byView.set(key, known);
      return known;
    };
  };

  return ({ name, limits: named, refused }, { clients, seenMs, following: all }, nowMs) => {
    const bounds = resolveNames({ ...everything, limits: named, bouncer: name }, names, mirror.patterns);
    const { limits } = bounds;
    const isWithheld = withheldFrom(bounds);
    const looksOf = looksWith(bounds);
    const following = recentOf(all, nowMs);
    return { seenMs, clients, sentOf };

    function sentOf(at: number): Sent {
      const row = rows[at] as Row;
      const counted = { twice: 0, once: 0, 'not-yet': 0, never: 0 };
      const refusedBy = refused ? [refused] : [];
      if (following.length === 0) {
        const why: Why[] = [...refusedBy];
        if (isWithheld(row)) why.push('allow-list');
        if (limits) why.push(...leftOutBy('view', limits, row));
        const state = why.length > 0 ? 'never' : clients > 0 ? 'asks' : 'unknown';
        return { id: row.id, state, why, insteadId: null, clients: counted };
      }
      let least: Got | undefined;
      for (const { cursors } of following) {
        const got = gotBy(cursors, at);
        counted[got.state]++;
        if (!least || least.state === 'never' || (got.state !== 'never' && isLess(got, least))) least = got;
      }
      const { state, why, target } = least as Got;
      const insteadId = target === row ? null : target.id;
      return { id: row.id, state, why, insteadId, clients: counted };
    }

    /** In the view that brought most of it: a client that was set up anew leaves the places of its old views behind. */
    function gotBy(cursors: readonly ViewCursor[], at: number): Got {
      const all = cursors.map((cursor) => gotIn(cursor, looksOf(cursor.view), at));
      return all.reduce((most, got) => (isLess(got, most) ? most : got));
    }

    function gotIn(cursor: ViewCursor, looks: Looks, at: number): Got {
      const { why, target } = looks.of[at] as Looked;
      const { lastSequence, lastBaseline, beforeSequence, beforeBaseline, others } = cursor;
      const has = (sequence: number, baseline: number): boolean =>
        sequence >= mirror.purgedSequence && sequence >= (looks.givenFrom(baseline)[at] ?? Infinity);
      if (has(lastSequence, lastBaseline)) {
        const isTwice = [beforeBaseline, ...others].every((id) => has(beforeSequence, id));
        return { state: isTwice ? 'twice' : 'once', why, target };
      }
      // Under a cap an answer that came late enough had others in its place.
      const isCapped = limits?.maxDecisions != null && baselines.byId.get(lastBaseline)?.held != null;
      const isBeyondCap = isCapped && why.length === 0 && lastSequence >= target.addedSeq;
      const because: Why[] = [...(refused ? [refused] : []), ...why];
      if (isBeyondCap) because.push('view.max_decisions');
      return { state: because.length > 0 ? 'never' : 'not-yet', why: because, target };
    }
  };
}

function isLess(a: Got, b: Got): boolean {
  return ranks[a.state] < ranks[b.state];
}

/** The clients that count: those of the last day, or all where there are none. */
function recentOf(clients: readonly Place[], nowMs: number): readonly Place[] {
  const recent = clients.filter(({ seenMs }) => nowMs - seenMs < recentMs);
  return recent.length > 0 ? recent : clients;
}

/** All rows of the rows' values, by value: the active ones, and the tombstones. */
function siblingsOf(mirror: Mirror, rows: readonly Row[]): ReadonlyMap<string, readonly Row[]> {
  const values = new Set(rows.map(({ canonicalValue }) => canonicalValue));
  const removed = mirror.removed.filter(({ canonicalValue }) => values.has(canonicalValue));
  const active = [...values].flatMap((value) => mirror.byCanonicalValue.get(value) ?? []);
  return Map.groupBy([...active, ...removed], ({ canonicalValue }) => canonicalValue);
}

function lookAt(
  mirror: Mirror,
  baselines: Baselines,
  onValues: ReadonlyMap<string, readonly Row[]>,
  rows: readonly Row[],
  view: View,
): Looks {
  const { limits } = view;
  const matches = matcher(view);
  const isWithheld = withheldFrom(view);
  const looked = rows.map((row): Looked => {
    const why: Why[] = isWithheld(row) ? ['allow-list'] : [];
    why.push(...leftOutByRequest(view, row));
    if (limits) why.push(...leftOutBy('view', limits, row));
    const winner = why.length === 0 && view.dedup ? longest(mirror, row, matches) : undefined;
    return { why, target: winner ?? row };
  });
  const known = new Map<number, readonly number[]>();
  const findFrom = (id: number): readonly number[] => {
    const baseline = baselines.byId.get(id);
    if (id !== 0 && !baseline) return [];
    const held = baseline?.held && new Set(baseline.held);
    const passes = passing({ ...view, limits: baseline?.limits ?? null });
    // Not as `matcher` has it: a decision may end while others are answered.
    const selects = (row: Row): boolean => !isWithheld(row) && passes(row);
    return looked.map(({ target }) => {
      const isGiven = held ? held.has(target.rowId) : selects(target);
      if (!isGiven) return Infinity;
      if (held || !view.dedup) return target.addedSeq;
      // While a longer one of the same text stood, only that was given.
      const longer = (onValues.get(target.canonicalValue) ?? []).filter(
        (row) => row !== target && sameText(row, target) && outlives(row, target) && selects(row),
      );
      return longer.reduce((from, { removedSeq }) => Math.max(from, removedSeq || Infinity), target.addedSeq);
    });
  };
  const givenFrom = (baseline: number): readonly number[] => {
    const found = known.get(baseline) ?? findFrom(baseline);
    known.set(baseline, found);
    return found;
  };
  return { of: looked, givenFrom };
}

const everything: View = {
  scopes: null,
  origins: null,
  scenariosContaining: null,
  scenariosNotContaining: null,
  value: null,
  type: null,
  within: null,
  dedup: false,
  limits: null,
};

/** Each filter alone. */
function leftOutBy<Of extends 'request' | 'view'>(of: Of, filters: Filters, row: Row) {
  const { engines, scopes, origins, scenariosContaining, scenariosNotContaining } = filters;
  const each = {
    engines: { engines },
    scopes: { scopes },
    origins: { origins },
    scenarios_containing: { scenariosContaining },
    scenarios_not_containing: { scenariosNotContaining },
  } satisfies Record<(typeof filterNames)[number], Partial<Filters>>;
  return filterNames
    .filter((name) => !passing({ ...everything, ...each[name] })(row))
    .map((name) => `${of}.${name}` as const);
}

function leftOutByRequest(view: View, row: Row): Why[] {
  const { value, within, type } = view;
  const why: Why[] = leftOutBy('request', view, row);
  if (!passing({ ...everything, type })(row)) why.push('request.type');
  if (!passing({ ...everything, value, within })(row)) why.push('request.value');
  return why;
}
