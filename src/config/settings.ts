// The one table of settings, and how it is read. Documents, wrangler.toml and the Nix options are made from the table or
// checked against it (scripts/settings-docs.mjs, test/e2e/settings-table.test.ts). A bad setting stops the start and is
// named; its value is never repeated, since it may be a secret in the wrong place.

import * as z from 'zod';
import {
  engineKey,
  headers,
  lapiUrl,
  machineAccount,
  registrationToken,
  type EngineSettings,
} from './engines.ts';
import { commaList, json, jsonList, parsed, text, wholeNumber } from './fields.ts';
import { hostIssuer, operatorIssuer } from './issuers.ts';
import { feedLocations, type FeedLocation } from './location.ts';
import { parsePublicUrl, publicUrlMustBe } from './public-url.ts';
import { isEngine, takenField, upstream, upstreamOf, type UpstreamSettings } from './upstreams.ts';
import { parseNetwork } from '../formats/ip.ts';

const dayMs = 86_400_000;
const secret = { secret: true };
const upstreams = jsonList('engines', upstream).default([]);
const network = parsed('an address or a CIDR range', parseNetwork);
const bootstrapSecret = z.string().min(32, 'at least 32 characters long').optional();
// Not shorter than a tombstone may live: the log tells which bouncers there were (bouncers/bouncers.sql.ts).
const auditDays = wholeNumber(0, 36_500).refine(
  (days) => days === 0 || days >= 90,
  '0, or a whole number from 90 to 36500',
);
const scope = text(/^[\w-]+$/, 'the name of a scope');

/**
 * Every setting: what its text must be and becomes. The comment above it is what operators read of it in the documents,
 * and `prefault` its default as they would write it. A text that is empty or blank counts as none.
 */
export const settings = {
  /** The LAPI of the first engine, `default`. Without any engine only local decisions are served. */
  UPSTREAM_URL: lapiUrl.optional(),
  /** A bouncer key of `default` that only Lapidary uses. Not needed where the engine's host sends one. */
  UPSTREAM_API_KEY: engineKey.optional().meta(secret),
  /** The `auto_registration.token` of `default`, with which it validates the machines of hosts at once. */
  UPSTREAM_REGISTRATION_TOKEN: registrationToken.optional().meta(secret),
  /** A JSON object of further headers for `default`, such as a Cloudflare Access service token. */
  UPSTREAM_HEADERS: json.pipe(headers).default({}).meta(secret),
  /** A JSON object with the `machine` and `password` by which the allow-lists of `default` are read. */
  UPSTREAM_ALLOWLISTS: json.pipe(machineAccount).optional().meta(secret),
  /** A JSON list of further engines, public lists, hosted integrations. Their fields are in docs/engines.md. */
  UPSTREAMS: upstreams.meta(secret),
  /** More engines, since Cloudflare takes 5 KB of a setting. */
  UPSTREAMS_2: upstreams.meta(secret),
  /** More engines, likewise. */
  UPSTREAMS_3: upstreams.meta(secret),
  /** More engines, likewise. */
  UPSTREAMS_4: upstreams.meta(secret),
  /** How long an engine may be silent, before an answer and within one. */
  UPSTREAM_TIMEOUT_SECONDS: wholeNumber(1, 300).prefault('10'),
  /** The scopes that engines are asked for changes of. Add your own; the full list has all scopes. */
  SCOPES: commaList.pipe(z.array(scope)).prefault('ip,range,country,as'),
  /** How often each engine is asked what changed. */
  SYNC_INTERVAL_SECONDS: wholeNumber(1, 3600).prefault('10'),
  /** How often the full list of each engine is compared. It mends what a delta lost. */
  RESYNC_INTERVAL_SECONDS: wholeNumber(5, 86_400).prefault('300'),
  /** How often engines from 1.5 on are asked for bans that a delta lost; else as `SYNC_INTERVAL_SECONDS`. */
  TAIL_INTERVAL_SECONDS: wholeNumber(1, 86_400).optional(),
  /** How many decisions are held at most. Those of public lists go first, then those of community lists. */
  MAX_DECISIONS: wholeNumber(1, 100_000_000).default(Infinity),
  /** How long an ended decision is remembered. A bouncer that was away longer gets the full list. */
  TOMBSTONE_DAYS: wholeNumber(1, 90).prefault('7'),
  /** How old rows of the audit log become: 90 days at least. `0` keeps them for ever. */
  AUDIT_RETENTION_DAYS: auditDays.prefault('400'),
  /** Opens all of `/api/v1` when nothing else does. 16 characters at least; each use is in the audit log. */
  OPERATOR_TOKEN: z.string().min(16, 'at least 16 characters long').optional().meta(secret),
  /** A JSON list of the OIDC issuers whose tokens name operators, with the rules that give them a role. */
  OPERATOR_ISSUERS: jsonList('issuers', operatorIssuer).default([]),
  /** Where the feed is made on Cloudflare: a location hint or a jurisdiction. It can not be changed later. */
  FEED_LOCATION: z.enum(feedLocations, `one of ${feedLocations.join(', ')}`).optional(),
  /** `true`: a key that is unknown here but good at the engine becomes a bouncer, `adopted-…`. */
  ADOPT_ENGINE_KEYS: z.enum(['true', 'false'], 'true or false').prefault('false'),
  /** The header whose last entry, your own proxy's, says where a client is; else the connection does. */
  CLIENT_ADDRESS_HEADER: text(/^[A-Za-z0-9-]+$/, 'one header name')
    .toLowerCase()
    .default(''),
  /** Lets hosts register keys: it signs their challenges and seals engines' keys. 32 characters at least. */
  BOOTSTRAP_SECRET: bootstrapSecret.meta(secret),
  /** The `BOOTSTRAP_SECRET` before, while it is being changed: it still opens what it made. */
  BOOTSTRAP_SECRET_PREVIOUS: bootstrapSecret.meta(secret),
  /** A JSON list of the OIDC issuers whose tokens prove which host an instance is. */
  HOST_ISSUERS: jsonList('issuers', hostIssuer).default([]),
  /** The address by which hosts know Lapidary, `PATH_PREFIX` included; else an operator's first request fixes it. */
  PUBLIC_URL: parsed(publicUrlMustBe, parsePublicUrl).default(''),
  /** `off`: no machine reaches an engine through here, and no host gets an account. */
  MACHINE_ROUTES: z.enum(['on', 'off'], 'on or off').prefault('on'),
  /** Addresses and CIDR ranges, with commas between them, that may delete alerts and register machines. */
  MACHINE_ALLOW: commaList
    .transform((parts) => parts.filter(Boolean))
    .pipe(z.array(network))
    .default([]),
  /** Webhooks go to `public` addresses by https; `private`: also to private ones, and by http to this machine. */
  WEBHOOK_ADDRESSES: z.enum(['public', 'private'], 'public or private').prefault('public'),
  /** A path in front of every route: `/lapi` for `https://example.net/lapi/v1/…`. */
  PATH_PREFIX: text(/^(\/[\w.~-]+)+$/, 'a path like /lapi without a slash at its end').default(''),
};

export type SettingName = keyof typeof settings;
type Given = { readonly [Name in SettingName]: z.output<(typeof settings)[Name]> };
type Source = Readonly<Record<string, unknown>>;

/** The variables that are read, for those who pass an environment on (scripts/). */
export const settingNames = Object.keys(settings) as readonly SettingName[];

/** Thrown by `readSettings` only: the message names the setting, entry and field, and what it must be. */
export class SettingError extends Error {
  constructor(path: readonly PropertyKey[], mustBe: string) {
    const parts = path.map((part) => (typeof part === 'number' ? `entry ${part + 1}` : String(part)));
    super(`${parts.join(', ')} must be ${mustBe}`);
  }
}

export interface BootstrapSecrets {
  /** Signs challenges and seals the engine's key. */
  readonly current: string;
  /** The one before: still opens what it made, makes nothing new. */
  readonly previous: string | null;
}

/** What `readSettings` makes of the table. Null and empty: not set. */
export type Settings = Readonly<ReturnType<typeof readSettings>>;

/** Reads and checks every setting. Throws `SettingError` for the first bad one. */
export function readSettings(env: Source) {
  const given = Object.fromEntries(settingNames.map((name) => [name, readOne(name, env[name])])) as Given;
  const upstreams = readUpstreams(given);
  const engines = upstreams.filter(isEngine);
  checkIssuers(given, engines);
  const { BOOTSTRAP_SECRET: current, BOOTSTRAP_SECRET_PREVIOUS: previous } = given;
  return {
    /** All that decisions are mirrored from. */
    upstreams,
    /** Those of them that are engines. The first is the one that machines reach who name none. */
    engines,
    syncIntervalMs: given.SYNC_INTERVAL_SECONDS * 1000,
    resyncIntervalMs: given.RESYNC_INTERVAL_SECONDS * 1000,
    tailIntervalMs: (given.TAIL_INTERVAL_SECONDS ?? given.SYNC_INTERVAL_SECONDS) * 1000,
    maxDecisions: given.MAX_DECISIONS,
    tombstoneMs: given.TOMBSTONE_DAYS * dayMs,
    auditKeptMs: given.AUDIT_RETENTION_DAYS === 0 ? Infinity : given.AUDIT_RETENTION_DAYS * dayMs,
    operatorToken: given.OPERATOR_TOKEN ?? null,
    operatorIssuers: given.OPERATOR_ISSUERS,
    feedLocation: (given.FEED_LOCATION ?? '') as FeedLocation,
    adoptEngineKeys: given.ADOPT_ENGINE_KEYS === 'true',
    /** In lower case. */
    clientAddressHeader: given.CLIENT_ADDRESS_HEADER,
    bootstrap: current === undefined ? null : { current, previous: previous ?? null },
    hostIssuers: given.HOST_ISSUERS,
    publicUrl: given.PUBLIC_URL,
    machineRoutes: given.MACHINE_ROUTES === 'on',
    machineAllow: given.MACHINE_ALLOW,
    privateWebhooks: given.WEBHOOK_ADDRESSES === 'private',
    pathPrefix: given.PATH_PREFIX,
  };
}

function readOne(name: SettingName, value: unknown): unknown {
  if (value !== undefined && value !== null && typeof value !== 'string') {
    throw new SettingError([name], 'a text');
  }
  const read = settings[name].safeParse(value?.trim() || undefined);
  if (read.success) return read.data;
  const issue = read.error.issues[0] as z.core.$ZodIssue;
  throw new SettingError([name, ...issue.path], issue.message);
}

function readUpstreams(given: Given): readonly UpstreamSettings[] {
  const common = { timeoutMs: given.UPSTREAM_TIMEOUT_SECONDS * 1000, scopes: given.SCOPES };
  const all: UpstreamSettings[] = [];
  if (given.UPSTREAM_URL !== undefined) {
    if (given.UPSTREAM_API_KEY === undefined && given.BOOTSTRAP_SECRET === undefined) {
      const how =
        'the key of a bouncer of that engine (cscli bouncers add lapidary), since UPSTREAM_URL is set; ' +
        'or set BOOTSTRAP_SECRET, for a host to send one';
      throw new SettingError(['UPSTREAM_API_KEY'], how);
    }
    all.push({
      kind: 'lapi',
      name: 'default',
      url: given.UPSTREAM_URL,
      apiKey: given.UPSTREAM_API_KEY ?? null,
      keyName: 'UPSTREAM_API_KEY',
      registrationToken: given.UPSTREAM_REGISTRATION_TOKEN ?? null,
      allowLists: given.UPSTREAM_ALLOWLISTS ?? null,
      headers: given.UPSTREAM_HEADERS,
      hosts: [],
      ...common,
    });
  }
  for (const setting of ['UPSTREAMS', 'UPSTREAMS_2', 'UPSTREAMS_3', 'UPSTREAMS_4'] as const) {
    for (const [index, entry] of given[setting].entries()) {
      const read = upstreamOf(entry, setting, common);
      const taken = takenField(read, all);
      if (taken) throw new SettingError([setting, index, taken], 'one that no other engine has');
      all.push(read);
    }
  }
  return all;
}

function checkIssuers(given: Given, engines: readonly EngineSettings[]): void {
  const names = given.OPERATOR_ISSUERS.map(({ name }) => name);
  // Two with one name would share their operators' names, and with them their Idempotency-Keys.
  const second = names.findIndex((name, index) => names.indexOf(name) < index);
  if (second >= 0)
    throw new SettingError(['OPERATOR_ISSUERS', second], 'of an issuer that no other entry has');
  const known = [null, ...engines.map(({ name }) => name)];
  const stray = given.HOST_ISSUERS.findIndex(({ machine }) => !known.includes(machine));
  if (stray >= 0) throw new SettingError(['HOST_ISSUERS', stray, 'machine'], 'the name of an engine');
}
