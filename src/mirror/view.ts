// A view: the filters of one request, the limits of the bouncer that made it, and whether a decision passes both.
// Pure.
// Semantics are LAPI's (pkg/database/decisionfilter.go), but filters come before the choice of the longest
// decision: LAPI chooses first and so loses bans (crowdsec#3373).

import { covers, parseNetwork, type Network } from '../formats/ip.ts';
import type { Decision, Row } from '../formats/decision.ts';

/** `null` means "no filter"; an empty list matches nothing. */
export interface Filters {
  /**
   * Names of engines; what was decided here passes all the same. Not there in what was kept before an engine could be
   * chosen.
   */
  readonly engines?: readonly string[] | null | undefined;
  readonly scopes: readonly string[] | null;
  readonly origins: readonly string[] | null;
  /** Lower case; passes when the scenario contains any of them. */
  readonly scenariosContaining: readonly string[] | null;
  /** Lower case; passes when the scenario contains none of them. */
  readonly scenariosNotContaining: readonly string[] | null;
}

/**
 * What a bouncer may read, whatever it asks for. It only ever takes away: a bouncer that is allowed countries and
 * does not ask for them gets none, since the stream's default of addresses and ranges is part of what it asks.
 */
export interface Limits extends Filters {
  /** For devices with small tables: only so many decisions (`chosen` in target.ts says which). Null: all. */
  readonly maxDecisions: number | null;
}

export interface View extends Filters {
  readonly value: string | null;
  readonly type: string | null;
  readonly within: Within | null;
  /** Whether only the longest decision per (scope, type, value) is answered. */
  readonly dedup: boolean;
  /** The operator's word, not the request's. */
  readonly limits: Limits | null;
}

/** `covering`: decisions whose range holds the network (LAPI's `contains=true`); else decisions inside it. */
export interface Within {
  readonly network: Network;
  readonly covering: boolean;
}

/** Whether it asks about one address or value. */
export function isLookup({ within, value }: View): boolean {
  return (within?.covering ?? false) || value !== null;
}

/** Equal for equal views, limits included: part of a snapshot's name. */
export function viewKey(view: View): string {
  return view.limits ? `${requestKey(view)} ${limitsKey(view.limits)}` : requestKey(view);
}

export function limitsKey(limits: Limits): string {
  const { scopes, origins, scenariosContaining, scenariosNotContaining, maxDecisions } = limits;
  return JSON.stringify([
    scopes,
    origins,
    scenariosContaining,
    scenariosNotContaining,
    maxDecisions,
    ...engineKey(limits),
  ]);
}

/** Equal for equal requests, whatever the bouncer may read: the name of a cursor, which outlives its limits. */
export function requestKey(view: View): string {
  return JSON.stringify([
    view.scopes,
    view.origins,
    view.scenariosContaining,
    view.scenariosNotContaining,
    view.value,
    view.type,
    view.within && [view.within.network.bytes, view.within.network.prefixBits, view.within.covering],
    view.dedup,
    ...engineKey(view),
  ]);
}

const partsOfEveryKey = 8;

/** Whether a request chooses engines, by its key. */
export function choosesEngines(key: string): boolean {
  return (JSON.parse(key) as unknown[]).length > partsOfEveryKey;
}

/** Nothing where no engine is chosen: keys are kept, and are older than the choice. */
function engineKey({ engines }: Filters): (readonly string[])[] {
  return engines ? [engines] : [];
}

/** Whether a view has what an engine decided, by the engine's handle, as the view names it, too. */
export function isChosen({ engines, limits }: View, handle: string): boolean {
  return (engines?.includes(handle) ?? true) && (limits?.engines?.includes(handle) ?? true);
}

export type Matches = (row: Decision & Pick<Row, 'engine'>) => boolean;

/** The view as a predicate: what was asked for and is allowed. */
export function matcher(view: View): Matches {
  const passes = filter(view);
  const allowed = view.limits && filter(view.limits);
  return (row) =>
    (view.type === null || view.type === row.type) &&
    (view.value === null || view.value === row.value) &&
    passes(row) &&
    (allowed === null || allowed(row)) &&
    (view.within === null || isWithin(view.within, row));
}

/** Scenarios repeat thousands of times, so their verdicts are remembered. */
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

/** The addresses a decision speaks of; LAPI gives bounds to the scopes Ip and Range only. */
export function networkOf(decision: Decision): Network | undefined {
  return decision.scope === 'Ip' || decision.scope === 'Range' ? parseNetwork(decision.value) : undefined;
}
