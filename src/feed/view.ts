// A view: the filters of one request, and whether a decision passes them. Pure.
// Semantics are LAPI's (pkg/database/decisionfilter.go), but filters come before the choice of the longest
// decision: LAPI chooses first and so loses bans (crowdsec#3373).

import { covers, parseNetwork, type Network } from '../lapi/ip.ts';
import type { Decision } from './decision.ts';

/** `null` means "no filter"; an empty list matches nothing. */
export interface View {
  readonly scopes: readonly string[] | null;
  readonly origins: readonly string[] | null;
  /** Lower case; passes when the scenario contains any of them. */
  readonly scenariosContaining: readonly string[] | null;
  /** Lower case; passes when the scenario contains none of them. */
  readonly scenariosNotContaining: readonly string[] | null;
  readonly value: string | null;
  readonly type: string | null;
  readonly within: Within | null;
  /** Whether only the longest decision per (scope, type, value) is answered. */
  readonly dedup: boolean;
}

/** `covering`: decisions whose range holds the network (LAPI's `contains=true`); else decisions inside it. */
export interface Within {
  readonly network: Network;
  readonly covering: boolean;
}

/** Equal for equal views: part of a cursor's and of a snapshot's name. */
export function viewKey(view: View): string {
  return JSON.stringify([
    view.scopes,
    view.origins,
    view.scenariosContaining,
    view.scenariosNotContaining,
    view.value,
    view.type,
    view.within && [view.within.network.bytes, view.within.network.prefixBits, view.within.covering],
    view.dedup,
  ]);
}

/** The view as a predicate. Scenarios repeat thousands of times, so their verdicts are remembered. */
export function matcher(view: View): (decision: Decision) => boolean {
  const scopes = view.scopes && new Set(view.scopes);
  const origins = view.origins && new Set(view.origins);
  const scenarios = new Map<string, boolean>();
  const filtersScenarios = view.scenariosContaining !== null || view.scenariosNotContaining !== null;

  const scenarioPasses = (scenario: string): boolean => {
    const known = scenarios.get(scenario);
    if (known !== undefined) return known;
    const lower = scenario.toLowerCase();
    const passes =
      (view.scenariosContaining?.some((part) => lower.includes(part)) ?? true) &&
      !(view.scenariosNotContaining?.some((part) => lower.includes(part)) ?? false);
    scenarios.set(scenario, passes);
    return passes;
  };

  return (decision) =>
    (scopes === null || scopes.has(decision.scope)) &&
    (view.type === null || view.type === decision.type) &&
    (view.value === null || view.value === decision.value) &&
    (origins === null || origins.has(decision.origin)) &&
    (!filtersScenarios || scenarioPasses(decision.scenario)) &&
    (view.within === null || isWithin(view.within, decision));
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
