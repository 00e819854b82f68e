// What an entry of `UPSTREAMS` may be: an engine, or a source of decisions that is no engine. Pure. A mistake here bans
// what nobody meant to ban, or asks a stranger's server too often.

import * as z from 'zod';
import { engine, engineKey, headers, lapiUrl, upstreamName, type EngineSettings } from './engines.ts';
import { fields, parsed } from './fields.ts';

/** A text at an address: each line begins with an address or a range to ban. */
export interface ListSettings {
  readonly kind: 'list';
  /** Operators' name for it, and the scenario of its decisions. */
  readonly name: string;
  readonly url: string;
  /** Sent with every request to the host of `url`. */
  readonly headers: Readonly<Record<string, string>>;
  /** How long it may be silent, before an answer and within one. */
  readonly timeoutMs: number;
  /** How often it is fetched. */
  readonly intervalMs: number;
  /** Private and reserved networks in it are banned, too. */
  readonly allowReserved: boolean;
  /** A list with more networks is refused as a whole. */
  readonly maxDecisions: number;
  /** One that has become empty is taken as such. */
  readonly mayBeEmpty: boolean;
}

/** A hosted integration of CrowdSec: a start-up of LAPI's stream, once in an interval of its plan. */
export interface HostedSettings {
  readonly kind: 'hosted';
  /** Operators' name for it. */
  readonly name: string;
  /** Its address, without a trailing slash and without `/v1`. */
  readonly url: string;
  readonly apiKey: string;
  /** Which setting holds the key, for an operator to read. */
  readonly keyName: string;
  /** Sent with every request. */
  readonly headers: Readonly<Record<string, string>>;
  /** How long it may be silent, before an answer and within one. */
  readonly timeoutMs: number;
  /** How often it may be asked. */
  readonly intervalMs: number;
}

/** Anything that decisions are mirrored from. */
export type UpstreamSettings = EngineSettings | ListSettings | HostedSettings;

/** `lapi`: an engine. All others give a complete picture, once in an interval, and nothing between. */
export const upstreamKinds = [
  'lapi',
  'list',
  'hosted',
] as const satisfies readonly UpstreamSettings['kind'][];

export function isEngine(upstream: UpstreamSettings): upstream is EngineSettings {
  return upstream.kind === 'lapi';
}

/** Whether its own allow-lists are read. */
export function readsAllowLists(upstream: UpstreamSettings): boolean {
  return isEngine(upstream) && upstream.allowLists !== null;
}

const sourceUrl = parsed('an http:// or https:// address without user and fragment', (address) => {
  if (!URL.canParse(address)) return null;
  const { protocol, username, password, hash } = new URL(address);
  return /^https?:$/.test(protocol) && username + password + hash === '' ? address : null;
});

function integer(least: number, most: number) {
  const mustBe = `a whole number from ${least} to ${most}`;
  return z.int(mustBe).min(least, mustBe).max(most, mustBe);
}

/** The longest interval is a week. */
const intervalMinutes = integer(5, 10_080);

const list = fields({
  kind: z.literal('list'),
  name: upstreamName,
  url: sourceUrl,
  headers: headers.default({}),
  interval_minutes: intervalMinutes.default(60),
  allow_reserved: z.boolean('true or false').default(false),
  max_decisions: integer(1, 1_000_000).default(100_000),
  may_be_empty: z.boolean('true or false').default(false),
});

const hosted = fields({
  kind: z.literal('hosted'),
  name: upstreamName,
  url: lapiUrl,
  key: engineKey,
  headers: headers.default({}),
  /** The free plan allows one pull a day. */
  interval_minutes: intervalMinutes.default(1440),
});

/** An entry of `UPSTREAMS`. */
export const upstream = z.discriminatedUnion('kind', [engine, list, hosted], {
  error: ({ code }) => (code === 'invalid_union' ? upstreamKinds.join(' or ') : 'a JSON object'),
});

/** What all engines have in common. */
type Common = Pick<EngineSettings, 'timeoutMs' | 'scopes'>;

/** `setting`: the one that the entry is in. */
export function upstreamOf(
  entry: z.output<typeof upstream>,
  setting: string,
  { timeoutMs, scopes }: Common,
): UpstreamSettings {
  if (entry.kind === 'list') {
    const { interval_minutes, allow_reserved, max_decisions, may_be_empty, ...list } = entry;
    return {
      ...list,
      timeoutMs,
      intervalMs: interval_minutes * 60_000,
      allowReserved: allow_reserved,
      maxDecisions: max_decisions,
      mayBeEmpty: may_be_empty,
    };
  }
  if (entry.kind === 'hosted') {
    const { interval_minutes, key: apiKey, ...rest } = entry;
    const keyName = `the key of ${entry.name} in ${setting}`;
    return { ...rest, apiKey, keyName, timeoutMs, intervalMs: interval_minutes * 60_000 };
  }
  const { key: apiKey, registration_token: registrationToken, allowlists: allowLists, ...rest } = entry;
  const keyName = `the key of engine ${entry.name} in ${setting}`;
  return { ...rest, kind: 'lapi', apiKey, keyName, registrationToken, allowLists, timeoutMs, scopes };
}

/** The field of an upstream that another one has already; undefined: none. */
export function takenField(
  upstream: UpstreamSettings,
  others: readonly UpstreamSettings[],
): 'name' | 'url' | 'hosts' | undefined {
  if (others.some(({ name }) => name === upstream.name)) return 'name';
  if (others.some(({ url }) => url === upstream.url)) return 'url';
  const hosts = others.filter(isEngine).flatMap((engine) => engine.hosts);
  return isEngine(upstream) && upstream.hosts.some((host) => hosts.includes(host)) ? 'hosts' : undefined;
}
