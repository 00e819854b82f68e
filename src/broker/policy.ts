// What a bouncer's keys may do: which decisions they read, from where, how often. Read from operators (each
// refusal names the field), kept as JSON, read back, and applied to a request. A mistake here shows one bouncer
// another's decisions, or locks it out.

import type { Bouncer } from '../db/bouncers.ts';
import { badInput, succeed, type Result } from '../failure.ts';
import type { Limits } from '../feed/view.ts';
import { covers, formatNetwork, parseNetwork, type Network } from '../lapi/ip.ts';
import { scopeName } from '../lapi/wire.ts';

/** Null is "no limit", each. */
export interface Policy {
  readonly limits: Limits | null;
  readonly allow: readonly Network[] | null;
  readonly perMinute: RateTier | null;
}

/** What a policy is kept as. */
export type PolicyColumns = Pick<Bouncer, 'viewJson' | 'allowJson' | 'rateLimit'>;

/** What an operator changes; a field that is not there stays as it is. */
export interface PolicyChange {
  readonly view?: Limits | null;
  readonly allowed?: readonly string[] | null;
  readonly perMinute?: RateTier | null;
}

/**
 * The rates there are. A rate limit of Cloudflare's is a binding with a number of its own (wrangler.toml), so only
 * what is bound can be offered.
 */
export const rateTiers = [10, 60, 600] as const;
export type RateTier = (typeof rateTiers)[number];

/** The feed remembers what a capped bouncer has, by decision: `mostHeld` in feed/basis.ts. */
export const largestCap = 20_000;

const mostFilters = 30;
const mostNetworks = 100;
const longestFilter = 100;

export function parsePolicyChange(json: object): Result<PolicyChange> {
  const { view, allowed_addresses: allowed, rate_limit: rate, ...rest } = json as Record<string, unknown>;
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) return badInput(unknown, 'unknown field');
  if (view === undefined && allowed === undefined && rate === undefined) {
    return badInput('body', 'must have at least one of view, allowed_addresses and rate_limit');
  }
  const limits = view === undefined || view === null ? succeed(view) : parseLimits(view);
  if (!limits.ok) return limits;
  const networks = allowed === undefined || allowed === null ? succeed(allowed) : parseNetworks(allowed);
  if (!networks.ok) return networks;
  const perMinute = rate === undefined || rate === null ? succeed(rate) : parseRate(rate);
  if (!perMinute.ok) return perMinute;
  return succeed({
    ...(limits.value === undefined ? {} : { view: limits.value }),
    ...(networks.value === undefined ? {} : { allowed: networks.value }),
    ...(perMinute.value === undefined ? {} : { perMinute: perMinute.value }),
  });
}

function parseLimits(view: unknown): Result<Limits | null> {
  if (!isObject(view)) return badInput('view', 'must be an object or null');
  const {
    scopes,
    origins,
    scenarios_containing: containing,
    scenarios_not_containing: notContaining,
    max_decisions: most,
    ...rest
  } = view;
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) return badInput(`view.${unknown}`, 'unknown field');
  if (most !== undefined && most !== null) {
    if (!Number.isInteger(most) || (most as number) < 1 || (most as number) > largestCap) {
      return badInput('view.max_decisions', `must be a whole number from 1 to ${largestCap}`);
    }
  }
  const lists = {
    scopes,
    origins,
    scenarios_containing: containing,
    scenarios_not_containing: notContaining,
  };
  for (const [name, value] of Object.entries(lists)) {
    if (value !== undefined && value !== null && !isFilter(value)) {
      const mustBe = `must be a list of 1 to ${mostFilters} texts of 1 to ${longestFilter} characters`;
      return badInput(`view.${name}`, mustBe);
    }
  }
  const list = (value: unknown, normal: (text: string) => string): string[] | null => {
    return Array.isArray(value) ? [...new Set((value as string[]).map(normal))] : null;
  };
  const lower = (text: string): string => text.toLowerCase();
  const limits = {
    scopes: list(scopes, scopeName),
    origins: list(origins, (text) => text),
    scenariosContaining: list(containing, lower),
    scenariosNotContaining: list(notContaining, lower),
    maxDecisions: typeof most === 'number' ? most : null,
  };
  return succeed(Object.values(limits).every((limit) => limit === null) ? null : limits);
}

function isFilter(value: unknown): boolean {
  if (!Array.isArray(value) || value.length === 0 || value.length > mostFilters) return false;
  return value.every((text) => typeof text === 'string' && text !== '' && text.length <= longestFilter);
}

function parseNetworks(allowed: unknown): Result<string[]> {
  if (!Array.isArray(allowed) || allowed.length === 0 || allowed.length > mostNetworks) {
    return badInput(
      'allowed_addresses',
      `must be null or a list of 1 to ${mostNetworks} addresses and ranges`,
    );
  }
  const texts = new Set<string>();
  for (const [index, text] of allowed.entries()) {
    const network = typeof text === 'string' ? parseNetwork(text) : undefined;
    if (!network) return badInput(`allowed_addresses.${index}`, 'must be an IP address or a CIDR range');
    texts.add(formatNetwork(network));
  }
  return succeed([...texts]);
}

function parseRate(rate: unknown): Result<RateTier> {
  if (!isObject(rate)) return badInput('rate_limit', 'must be null or an object with per_minute');
  const { per_minute: perMinute, ...rest } = rate;
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) return badInput(`rate_limit.${unknown}`, 'unknown field');
  const tier = rateTiers.find((each) => each === perMinute);
  return tier === undefined
    ? badInput('rate_limit.per_minute', `must be one of ${rateTiers.join(', ')}`)
    : succeed(tier);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The columns that a change sets. */
export function policyColumns({ view, allowed, perMinute }: PolicyChange): Partial<PolicyColumns> {
  return {
    ...(view === undefined ? {} : { viewJson: view && JSON.stringify(view) }),
    ...(allowed === undefined ? {} : { allowJson: allowed && JSON.stringify(allowed) }),
    ...(perMinute === undefined ? {} : { rateLimit: perMinute }),
  };
}

export function readPolicy({ viewJson, allowJson, rateLimit }: PolicyColumns): Policy {
  return {
    limits: viewJson === null ? null : (JSON.parse(viewJson) as Limits),
    allow: allowJson === null ? null : readNetworks(JSON.parse(allowJson) as string[]),
    perMinute: rateTiers.find((tier) => tier === rateLimit) ?? null,
  };
}

function readNetworks(texts: readonly string[]): Network[] {
  return texts.map(parseNetwork).filter((network) => network !== undefined);
}

/** A policy as operators wrote it: `view`, `allowed_addresses`, `rate_limit`. */
export function describePolicy({ viewJson, allowJson, rateLimit }: PolicyColumns): Record<string, unknown> {
  const limits = viewJson === null ? null : (JSON.parse(viewJson) as Limits);
  const filters = limits && {
    scopes: limits.scopes,
    origins: limits.origins,
    scenarios_containing: limits.scenariosContaining,
    scenarios_not_containing: limits.scenariosNotContaining,
    max_decisions: limits.maxDecisions,
  };
  const set = filters && Object.entries(filters).filter(([, value]) => value !== null);
  return {
    view: set && Object.fromEntries(set),
    allowed_addresses: allowJson === null ? null : (JSON.parse(allowJson) as string[]),
    rate_limit: rateLimit === null ? null : { per_minute: rateLimit },
  };
}

/** Whether a client may use the key from where it is. An address that can't be read is nowhere. */
export function isAllowed({ allow }: Policy, address: string): boolean {
  if (allow === null) return true;
  const network = parseNetwork(address);
  return network !== undefined && allow.some((range) => covers(range, network));
}
