// What a bouncer's keys may do: which decisions they read, from where, how often, and whether anything at all. A policy is read from operators (each
// refusal names the field), stored as JSON, read back, and applied to a request. A mistake here shows a bouncer decisions
// that it must not see, or locks it out.

import * as z from 'zod';
import type { Bouncer } from './bouncers.sql.ts';
import type { Limits } from '../mirror/view.ts';
import { covers, formatNetwork, parseNetwork, type Network } from '../formats/ip.ts';
import { scopeName } from '../formats/lapi-json.ts';
import { formatDuration } from '../formats/duration.ts';
import { duration, isoTime, time } from '../operations/fields.ts';
import { rateTiers, type RateTier } from '../http/rate-limit.ts';
import {
  limitMustBe,
  mostLines,
  placeholderMustBe,
  readPlaceholder,
  type FixedOptions,
} from '../lists/options.ts';

/** Null: no limit. */
export interface Policy {
  readonly limits: Limits | null;
  /** Of the lists that it gets as an appliance. */
  readonly list: FixedOptions | null;
  readonly allow: readonly Network[] | null;
  readonly perMinute: RateTier | null;
  /** All its keys are refused, and nothing else changes. */
  readonly paused: boolean;
}

/** A policy as D1 stores it. */
type PolicyColumns = Pick<Bouncer, 'viewJson' | 'allowJson' | 'rateLimit' | 'pausedMs'>;

/** What operators see beside it. */
type ShownColumns = PolicyColumns & Pick<Bouncer, 'silentAfterMs'>;

/** The feed remembers what a capped bouncer has, by decision: `mostHeld` in stream/baselines.ts. */
const largestCap = 20_000;

const mostFilters = 30;
const mostNetworks = 100;
const longestFilter = 100;

const filterMustBe = `must be a list of 1 to ${mostFilters} texts of 1 to ${longestFilter} characters`;

function filter(normal: (text: string) => string, description: string) {
  return z
    .array(z.string(filterMustBe).min(1, filterMustBe).max(longestFilter, filterMustBe), filterMustBe)
    .min(1, filterMustBe)
    .max(mostFilters, filterMustBe)
    .transform((texts) => [...new Set(texts.map(normal))])
    .nullish()
    .meta({ description });
}

const lower = (text: string): string => text.toLowerCase();
const same = (text: string): string => text;
const capMustBe = `must be a whole number from 1 to ${largestCap}`;

const view = z
  .strictObject(
    {
      engines: filter(same, 'Only decisions of these engines, and those of operators of Lapidary.'),
      scopes: filter(scopeName, 'Only decisions of these scopes.'),
      origins: filter(same, 'Only decisions of these origins.'),
      scenarios_containing: filter(lower, 'Only decisions whose scenario has one of these texts in it.'),
      scenarios_not_containing: filter(lower, 'No decisions whose scenario has one of these texts in it.'),
      max_decisions: z.int(capMustBe).min(1, capMustBe).max(largestCap, capMustBe).nullish().meta({
        description: 'For devices with small tables: bans of local origin first, then the longest.',
      }),
    },
    'must be an object or null',
  )
  .transform((read): Limits | null => {
    const limits = {
      engines: read.engines ?? null,
      scopes: read.scopes ?? null,
      origins: read.origins ?? null,
      scenariosContaining: read.scenarios_containing ?? null,
      scenariosNotContaining: read.scenarios_not_containing ?? null,
      maxDecisions: read.max_decisions ?? null,
    };
    return Object.values(limits).every((limit) => limit === null) ? null : limits;
  });

const address = z.string(placeholderMustBe).transform((text, context): string => {
  const read = readPlaceholder(text);
  if (read !== undefined) return read;
  context.addIssue({ code: 'custom', message: placeholderMustBe });
  return z.NEVER;
});

const list = z
  .strictObject(
    {
      family: z.literal([4, 6], 'must be 4 or 6').nullish(),
      limit: z.int(limitMustBe).min(1, limitMustBe).max(mostLines, limitMustBe).nullish().meta({
        description: 'Lines at most: bans of local origin first, then the longest.',
      }),
      aggregate: z.boolean('must be true or false').nullish().meta({
        description: 'Whether networks are merged where that bans exactly the same addresses.',
      }),
      placeholder: address.nullish().meta({
        description: 'An address that is listed where nothing is banned.',
      }),
    },
    'must be an object or null',
  )
  .transform((read): FixedOptions | null => {
    const { family = null, limit = null, aggregate = null, placeholder = null } = read;
    const fixed = { family, limit, aggregate, placeholder };
    return Object.values(fixed).every((option) => option === null) ? null : fixed;
  });

const networkMustBe = 'must be an IP address or a CIDR range';
const networksMustBe = `must be null or a list of 1 to ${mostNetworks} addresses and ranges`;

const network = z.string(networkMustBe).transform((text, context): string => {
  const parsed = parseNetwork(text);
  if (parsed) return formatNetwork(parsed);
  context.addIssue({ code: 'custom', message: networkMustBe });
  return z.NEVER;
});

const networks = z
  .array(network, networksMustBe)
  .min(1, networksMustBe)
  .max(mostNetworks, networksMustBe)
  .transform((texts) => [...new Set(texts)]);

const rate = z.strictObject(
  { per_minute: z.literal(rateTiers, `must be one of ${rateTiers.join(', ')}`) },
  'must be null or an object with per_minute',
);

const policyFields = 'view, list, allowed_addresses, rate_limit, paused and silent_after';

/** A change by an operator. A field that is absent stays as it is. */
export const policyChange = z
  .strictObject({
    view: view.nullish().meta({ description: 'What its keys may read. Null: everything.' }),
    list: list.nullish().meta({
      description:
        'What its lists are like (`/lists/{format}`), whatever an appliance asks for. Null: as it asks.',
    }),
    allowed_addresses: networks
      .nullish()
      .meta({ description: 'Where its keys may be used: addresses and CIDR ranges. Null: anywhere.' }),
    rate_limit: rate.nullish().meta({ description: 'For all its clients together. Null: no limit.' }),
    paused: z.boolean('must be true or false').optional().meta({
      description:
        'True: its keys are answered 403, and hear of no unban either. False: it gets what it missed.',
    }),
    silent_after: duration(60_000, 30 * 86_400_000)
      .nullish()
      .meta({
        description:
          'How long it may be silent before webhooks are told. Null: that is learnt from its polls.',
      }),
  })
  .refine((change) => Object.values(change).some((field) => field !== undefined), {
    message: `must have at least one of ${policyFields}`,
  })
  .meta({ minProperties: 1 });

export type PolicyChange = z.output<typeof policyChange>;

/** The columns that a change sets. A bouncer that is paused again is paused since the first time. */
export function policyColumns(
  change: PolicyChange,
  before: Pick<PolicyColumns, 'viewJson' | 'pausedMs'>,
  nowMs: number,
): Partial<ShownColumns> {
  const {
    view,
    list,
    allowed_addresses: allowed,
    rate_limit: rate,
    paused,
    silent_after: silentAfterMs,
  } = change;
  const stored = readView(before.viewJson);
  const limits = view === undefined ? stored.limits : view;
  const fixed = list === undefined ? stored.list : list;
  return {
    ...(view === undefined && list === undefined ? {} : { viewJson: writeView(limits, fixed) }),
    ...(allowed === undefined ? {} : { allowJson: allowed && JSON.stringify(allowed) }),
    ...(rate === undefined ? {} : { rateLimit: rate && rate.per_minute }),
    ...(paused === undefined ? {} : { pausedMs: paused ? (before.pausedMs ?? nowMs) : null }),
    ...(silentAfterMs === undefined ? {} : { silentAfterMs }),
  };
}

const noLimits: Limits = {
  engines: null,
  scopes: null,
  origins: null,
  scenariosContaining: null,
  scenariosNotContaining: null,
  maxDecisions: null,
};

/** What is fixed of lists is stored beside the limits: the release before reads those alone. */
function writeView(limits: Limits | null, list: FixedOptions | null): string | null {
  if (list === null) return limits && JSON.stringify(limits);
  return JSON.stringify({ ...(limits ?? noLimits), list });
}

/** What is stored of a view. */
export function readView(viewJson: string | null): Pick<Policy, 'limits' | 'list'> {
  if (viewJson === null) return { limits: null, list: null };
  const { list = null, ...limits } = JSON.parse(viewJson) as Limits & { readonly list?: FixedOptions };
  return { limits: Object.values(limits).every((limit) => limit === null) ? null : limits, list };
}

export function readPolicy({ viewJson, allowJson, rateLimit, pausedMs }: PolicyColumns): Policy {
  return {
    ...readView(viewJson),
    allow: allowJson === null ? null : readNetworks(JSON.parse(allowJson) as string[]),
    perMinute: rateTiers.find((tier) => tier === rateLimit) ?? null,
    // Absent in what the release before remembered.
    paused: typeof pausedMs === 'number',
  };
}

function readNetworks(texts: readonly string[]): Network[] {
  return texts.map(parseNetwork).filter((network) => network !== undefined);
}

/** A policy as operators read it. */
export const policyShape = {
  view: z
    .object({
      engines: z.array(z.string()).optional(),
      scopes: z.array(z.string()).optional(),
      origins: z.array(z.string()).optional(),
      scenarios_containing: z.array(z.string()).optional(),
      scenarios_not_containing: z.array(z.string()).optional(),
      max_decisions: z.int().optional(),
    })
    .nullable(),
  list: z
    .object({
      family: z.literal([4, 6]).optional(),
      limit: z.int().optional(),
      aggregate: z.boolean().optional(),
      placeholder: z.string().optional(),
    })
    .nullable()
    .meta({ description: 'What is fixed of its lists.' }),
  allowed_addresses: z.array(z.string()).nullable(),
  rate_limit: z.object({ per_minute: z.int() }).nullable(),
  paused: z.boolean().meta({ description: 'Its keys are answered 403.' }),
  paused_at: time.nullable().meta({ description: 'Since when; null: it is not paused.' }),
  silent_after: z.string().nullable().meta({ example: '30m0s' }),
};

/** A policy as operators wrote it. */
export function describePolicy({ viewJson, allowJson, rateLimit, pausedMs, silentAfterMs }: ShownColumns) {
  const { limits, list } = readView(viewJson);
  const filters = limits && {
    engines: limits.engines ?? null,
    scopes: limits.scopes,
    origins: limits.origins,
    scenarios_containing: limits.scenariosContaining,
    scenarios_not_containing: limits.scenariosNotContaining,
    max_decisions: limits.maxDecisions,
  };
  return {
    view: filters && setOnly(filters),
    list: list && setOnly(list),
    allowed_addresses: allowJson === null ? null : (JSON.parse(allowJson) as string[]),
    rate_limit: rateLimit === null ? null : { per_minute: rateLimit },
    paused: pausedMs !== null,
    paused_at: isoTime(pausedMs),
    silent_after: silentAfterMs === null ? null : formatDuration(silentAfterMs / 1000),
  };
}

/** The limits of a view as operators read it. */
export function limitsIn(shown: z.input<typeof policyShape.view>): Limits | null {
  return shown && view.parse(shown);
}

function setOnly(fields: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
}

/** Whether a client may use the key now, from this address. An address that can not be read is in no range. */
export function isAllowed({ allow, paused }: Policy, address: string): boolean {
  if (paused) return false;
  if (allow === null) return true;
  const network = parseNetwork(address);
  return network !== undefined && allow.some((range) => covers(range, network));
}
