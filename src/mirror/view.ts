// A view: the filters of a request, the limits of its bouncer, and whether a decision passes both. Pure.
// The filters are LAPI's (pkg/database/decisionfilter.go), but here they come before the choice of the longest decision.
// LAPI chooses first, and so loses bans (crowdsec#3373).

import { isOfAddresses } from '../formats/canonical.ts';
import { covers, parseNetwork, type Network } from '../formats/ip.ts';
import type { Decision, Row } from '../formats/decision.ts';

/** `null` means "no filter"; an empty list matches nothing. */
export interface Filters {
  /** Names of engines. Decisions made here always pass. Undefined in what was stored before engines could be chosen. */
  readonly engines?: readonly string[] | null | undefined;
  readonly scopes: readonly string[] | null;
  readonly origins: readonly string[] | null;
  /** Lower case; passes when the scenario contains any of them. */
  readonly scenariosContaining: readonly string[] | null;
  /** Lower case; passes when the scenario contains none of them. */
  readonly scenariosNotContaining: readonly string[] | null;
}

/**
 * What a bouncer may read, whatever it asks for. Limits only take away: a bouncer that may read countries but does not ask
 * for them gets none, since the stream's default (addresses and ranges) is part of the request.
 */
export interface Limits extends Filters {
  /** The cap, for devices with small tables (`chosen` in selection.ts says which decisions stay). Null: all. */
  readonly maxDecisions: number | null;
}

export interface View extends Filters {
  readonly value: string | null;
  readonly type: string | null;
  readonly within: Within | null;
  /** Whether only the longest decision per (scope, type, value) is answered. */
  readonly dedup: boolean;
  /** Set by an operator, not by the request. */
  readonly limits: Limits | null;
  /** The name of the bouncer that asks. Absent: nobody's in particular. It is part of no key: bouncers share answers. */
  readonly bouncer?: string | undefined;
  /** The patterns of the allow-list that the name fits (patterns.ts). Absent: none. */
  readonly patterns?: readonly string[] | undefined;
}

/** `covering`: decisions whose range contains the network (LAPI's `contains=true`); otherwise decisions inside it. */
export interface Within {
  readonly network: Network;
  readonly covering: boolean;
}

/** Whether it asks about one address or value. */
export function isLookup({ within, value }: View): boolean {
  return (within?.covering ?? false) || value !== null;
}

/** Equal for equal views, with limits and patterns: part of the name of a rendered answer. */
export function viewKey(view: View): string {
  const { limits, patterns } = view;
  const key = limits ? `${requestKey(view)} ${limitsKey(limits)}` : requestKey(view);
  return patterns ? `${key} ${patternsKey(view)}` : key;
}

/** Equal for views from which the allow-list withholds the same. */
export function patternsKey({ patterns }: View): string {
  return patterns ? JSON.stringify(patterns) : '';
}

export function limitsKey(limits: Limits): string {
  return JSON.stringify([...filterKey(limits), limits.maxDecisions, ...engineKey(limits)]);
}

/** Equal for equal requests, without limits: the name of a cursor, which survives a change of limits. */
export function requestKey(view: View): string {
  const { value, type, within, dedup } = view;
  const place = within && [within.network.bytes, within.network.prefixBits, within.covering];
  return JSON.stringify([...filterKey(view), value, type, place, dedup, ...engineKey(view)]);
}

/** The view of a `requestKey`. */
export function viewOf(key: string): View {
  const [scopes, origins, scenariosContaining, scenariosNotContaining, value, type, place, dedup, engines] =
    JSON.parse(key) as KeyParts;
  const within = place && { network: { bytes: place[0], prefixBits: place[1] }, covering: place[2] };
  const filters = { scopes, origins, scenariosContaining, scenariosNotContaining };
  return { ...filters, value, type, within, dedup, limits: null, engines: engines ?? null };
}

type List = readonly string[] | null;
type Place = [bytes: readonly number[], prefixBits: number, covering: boolean];
type KeyParts = [List, List, List, List, string | null, string | null, Place | null, boolean, List?];

function filterKey({ scopes, origins, scenariosContaining, scenariosNotContaining }: Filters): unknown[] {
  return [scopes, origins, scenariosContaining, scenariosNotContaining];
}

/** The parts of every key; that of a request that chooses engines has one more. */
const partsOfEveryKey = 8;

export function choosesEngines(key: string): boolean {
  return (JSON.parse(key) as unknown[]).length > partsOfEveryKey;
}

/** Nothing if no engine is chosen: stored keys are older than the choice of engines. */
function engineKey({ engines }: Filters): (readonly string[])[] {
  return engines ? [engines] : [];
}

/** By what a view has the decisions of some upstreams and not of others. */
export type OfSome = Pick<View, 'engines' | 'limits'>;

/** Whether a view includes the decisions of an engine. Both name it by its handle. */
export function isChosen({ engines, limits }: OfSome, handle: string): boolean {
  return (engines?.includes(handle) ?? true) && (limits?.engines?.includes(handle) ?? true);
}

type Matched = Decision & Pick<Row, 'engine' | 'withheld'> & Partial<Pick<Row, 'removedSeq'>>;

export type Matches = (row: Matched) => boolean;

/**
 * The view as a predicate: what was asked for and may be read, and is not withheld. What was withheld from some bouncers counts
 * as served to all once it ended: an isolate of the release before knows no patterns, and serves it.
 */
export function matcher(view: View): Matches {
  const passes = passing(view);
  const isWithheld = withheldFrom(view);
  return (row) => !(row.removedSeq ? row.withheld === true : isWithheld(row)) && passes(row);
}

/** Whether the allow-list withholds a row from a view's bouncer. */
export function withheldFrom({ patterns }: View): (row: Pick<Row, 'withheld'>) => boolean {
  if (!patterns) return ({ withheld }) => withheld === true;
  const own = new Set(patterns);
  // Rows share a few lists.
  const known = new Map<readonly string[], boolean>();
  const isOurs = (list: readonly string[]): boolean => {
    const before = known.get(list);
    if (before !== undefined) return before;
    const found = list.some((pattern) => own.has(pattern));
    known.set(list, found);
    return found;
  };
  return ({ withheld }) => withheld === true || (withheld !== undefined && isOurs(withheld));
}

/** The same, and what is withheld as well. */
export function passing(view: View): Matches {
  const passes = filter(view);
  const allowed = view.limits && filter(view.limits);
  return (row) =>
    (view.type === null || view.type === row.type) &&
    (view.value === null || view.value === row.value) &&
    passes(row) &&
    (allowed === null || allowed(row)) &&
    (view.within === null || isWithin(view.within, row));
}

/** A scenario repeats thousands of times, so its result is remembered. */
function filter(filters: Filters): Matches {
  const engines = filters.engines ? new Set([...filters.engines, '']) : null;
  const scopes = filters.scopes && new Set(filters.scopes);
  const origins = filters.origins && new Set(filters.origins);
  const { scenariosContaining, scenariosNotContaining } = filters;
  const scenarios = new Map<string, boolean>();
  const filtersScenarios = scenariosContaining !== null || scenariosNotContaining !== null;

  const scenarioPasses = (scenario: string): boolean => {
    const known = scenarios.get(scenario);
    if (known !== undefined) return known;
    const lower = scenario.toLowerCase();
    const passes =
      (scenariosContaining?.some((part) => lower.includes(part)) ?? true) &&
      !(scenariosNotContaining?.some((part) => lower.includes(part)) ?? false);
    scenarios.set(scenario, passes);
    return passes;
  };

  return (row) =>
    (engines === null || engines.has(row.engine)) &&
    (scopes === null || scopes.has(row.scope)) &&
    (origins === null || origins.has(row.origin)) &&
    (!filtersScenarios || scenarioPasses(row.scenario));
}

function isWithin(within: Within, decision: Decision): boolean {
  const network = networkOf(decision);
  if (!network) return false;
  return within.covering ? covers(network, within.network) : covers(within.network, network);
}

/** The addresses of a decision. LAPI gives bounds to the scopes Ip and Range only. */
export function networkOf(decision: Decision): Network | undefined {
  return isOfAddresses(decision.scope) ? parseNetwork(decision.value) : undefined;
}
