// Every setting: its name, unit, default and consequence. A bad one stops the start and names itself; its
// value is never repeated, since it may be a secret in the wrong place.

import { parsePublicUrl, publicUrlMustBe } from './public-url.ts';
import {
  defaultEngineName,
  isHeaders,
  isHeaderText,
  isLapiAddress,
  isRegistrationToken,
  readEngines,
  registrationTokenMustBe,
  withoutSlash,
  type CommonSettings,
  type EngineSettings,
} from './engines.ts';
import { readHostIssuers, type HostIssuer } from './host-issuers.ts';
import { readIssuers, type Issuer } from './issuers.ts';
import { parseNetwork, type Network } from '../formats/ip.ts';
import { feedLocations, type FeedLocation } from './location.ts';

export interface Settings {
  /**
   * `UPSTREAM_URL` with `UPSTREAM_API_KEY`, `UPSTREAM_REGISTRATION_TOKEN` and `UPSTREAM_HEADERS`: the engine called
   * `default`. `UPSTREAMS`, `UPSTREAMS_2` to `UPSTREAMS_4`, JSON lists: further ones (Cloudflare takes 5 KB a variable).
   * The first of all is the one that machines reach who name none; without any only local decisions are served. For all: `UPSTREAM_TIMEOUT_SECONDS`, 10, and `SCOPES`,
   * `ip,range,country,as`.
   */
  readonly engines: readonly EngineSettings[];
  /** `SYNC_INTERVAL_SECONDS`, 10: how often the engine is asked what changed. */
  readonly syncIntervalMs: number;
  /** `RESYNC_INTERVAL_SECONDS`, 300: how often the full list is compared; bounds what a lossy delta costs. */
  readonly resyncIntervalMs: number;
  /**
   * `TAIL_INTERVAL_SECONDS`, as often as `SYNC_INTERVAL_SECONDS`: how often engines that know `id_gt` (1.5 on) are asked
   * for bans that no delta has; beside each sync where one was just found.
   */
  readonly tailIntervalMs: number;
  /**
   * `MAX_DECISIONS`, none: how many decisions are held at most; beyond it those of community lists that end soonest stay
   * out. Where memory is bounded (a Durable Object on Cloudflare has 128 MB) wrangler.toml sets it.
   */
  readonly maxDecisions: number;
  /** `TOMBSTONE_DAYS`, 7: how long an ended decision is remembered; a bouncer away longer gets the full state. */
  readonly tombstoneMs: number;
  /** `AUDIT_RETENTION_DAYS`, 400: how old a row of the audit log becomes; 0: rows are never removed. */
  readonly auditKeptMs: number;
  /** `OPERATOR_TOKEN`: opens all of `/api/v1`, for when nothing else does; each use is marked in the audit log. */
  readonly operatorToken: string | null;
  /** `OPERATOR_ISSUERS`, a JSON list, none: whose OIDC tokens name operators, and by which rules of what role. */
  readonly operatorIssuers: readonly Issuer[];
  /** `FEED_LOCATION`, empty: where the feed's object is made (location.ts). Once it is there, another one is refused. */
  readonly feedLocation: FeedLocation;
  /** `ADOPT_ENGINE_KEYS`, false: whether a key that is unknown here but good at the engine becomes a bouncer. */
  readonly adoptEngineKeys: boolean;
  /** `CLIENT_ADDRESS_HEADER`: who says where a client is, in its last entry. Empty: the connection itself. */
  readonly clientAddressHeader: string;
  /** `BOOTSTRAP_SECRET`, `BOOTSTRAP_SECRET_PREVIOUS`: without the first hosts can't register their keys themselves. */
  readonly bootstrap: BootstrapSecrets | null;
  /** `HOST_ISSUERS`, a JSON list, none: whose OIDC tokens prove which host an instance is. */
  readonly hostIssuers: readonly HostIssuer[];
  /**
   * `PUBLIC_URL`: the address by which hosts know us, `PATH_PREFIX` included. Empty, or an address of this machine: also
   * the one that an operator fixed (hosts/public-url.ts).
   */
  readonly publicUrl: string;
  /** `MACHINE_ROUTES`, on: whether log processors and cscli reach the engine through here. */
  readonly machineRoutes: boolean;
  /** `MACHINE_ALLOW`, none: addresses and ranges from where alerts are deleted and machines registered. */
  readonly machineAllow: readonly Network[];
  /** `PATH_PREFIX`, empty: a path in front of every route, `/lapi` for `https://example.net/lapi/v1/…`. */
  readonly pathPrefix: string;
}

export interface BootstrapSecrets {
  /** Signs challenges and seals the engine's key. */
  readonly current: string;
  /** The one before: still opens what it made, makes nothing new. */
  readonly previous: string | null;
}

/** Thrown by `readSettings` only: the message names the variable and what it must be. */
export class SettingError extends Error {
  constructor(name: SettingName, mustBe: string) {
    super(`${name} must be ${mustBe}`);
  }
}

/** The variables that are read, for those who pass an environment on (scripts/). */
export const settingNames = [
  'UPSTREAM_URL',
  'UPSTREAM_API_KEY',
  'UPSTREAM_REGISTRATION_TOKEN',
  'UPSTREAM_HEADERS',
  'UPSTREAMS',
  'UPSTREAMS_2',
  'UPSTREAMS_3',
  'UPSTREAMS_4',
  'UPSTREAM_TIMEOUT_SECONDS',
  'SCOPES',
  'SYNC_INTERVAL_SECONDS',
  'RESYNC_INTERVAL_SECONDS',
  'TAIL_INTERVAL_SECONDS',
  'MAX_DECISIONS',
  'TOMBSTONE_DAYS',
  'AUDIT_RETENTION_DAYS',
  'OPERATOR_TOKEN',
  'OPERATOR_ISSUERS',
  'FEED_LOCATION',
  'ADOPT_ENGINE_KEYS',
  'CLIENT_ADDRESS_HEADER',
  'BOOTSTRAP_SECRET',
  'BOOTSTRAP_SECRET_PREVIOUS',
  'HOST_ISSUERS',
  'PUBLIC_URL',
  'MACHINE_ROUTES',
  'MACHINE_ALLOW',
  'PATH_PREFIX',
] as const;

type SettingName = (typeof settingNames)[number];
type Source = Readonly<Record<string, unknown>>;

/** Reads and checks every setting. Throws `SettingError` for the first bad one. */
export function readSettings(env: Source): Settings {
  const syncIntervalMs = seconds(env, 'SYNC_INTERVAL_SECONDS', 10, 1, 3600);
  const prefix = text(env, 'PATH_PREFIX');
  if (prefix !== '' && !/^(\/[\w.~-]+)+$/.test(prefix)) {
    throw new SettingError('PATH_PREFIX', 'empty, or a path like /lapi without a slash at its end');
  }
  const header = text(env, 'CLIENT_ADDRESS_HEADER').toLowerCase();
  if (!/^[a-z0-9-]*$/.test(header))
    throw new SettingError('CLIENT_ADDRESS_HEADER', 'empty, or one header name');
  const operatorToken = text(env, 'OPERATOR_TOKEN');
  if (operatorToken !== '' && operatorToken.length < 16) {
    throw new SettingError('OPERATOR_TOKEN', 'at least 16 characters long');
  }
  const issuers = readIssuers(text(env, 'OPERATOR_ISSUERS'));
  if (!issuers.ok) throw new SettingError('OPERATOR_ISSUERS', issuers.mustBe);
  const hostIssuers = readHostIssuers(text(env, 'HOST_ISSUERS'));
  if (!hostIssuers.ok) throw new SettingError('HOST_ISSUERS', hostIssuers.mustBe);
  const bootstrap = readBootstrap(env);
  const engines = readUpstreams(env, bootstrap !== null);
  const names = [null, ...engines.map(({ name }) => name)];
  if (!hostIssuers.entries.every(({ machine }) => names.includes(machine))) {
    throw new SettingError('HOST_ISSUERS', 'such that machine, where it is given, is the name of an engine');
  }
  return {
    engines,
    syncIntervalMs,
    resyncIntervalMs: seconds(env, 'RESYNC_INTERVAL_SECONDS', 300, 5, 86_400),
    tailIntervalMs: seconds(env, 'TAIL_INTERVAL_SECONDS', syncIntervalMs / 1000, 1, 86_400),
    maxDecisions: wholeNumber(env, 'MAX_DECISIONS', Infinity, 1, 100_000_000),
    tombstoneMs: wholeNumber(env, 'TOMBSTONE_DAYS', 7, 1, 90) * 86_400_000,
    auditKeptMs: readAuditKept(env),
    operatorToken: operatorToken || null,
    operatorIssuers: issuers.entries,
    feedLocation: readLocation(env),
    adoptEngineKeys: flag(env, 'ADOPT_ENGINE_KEYS'),
    clientAddressHeader: header,
    bootstrap,
    hostIssuers: hostIssuers.entries,
    publicUrl: readPublicUrl(env),
    machineRoutes: readSwitch(env, 'MACHINE_ROUTES'),
    machineAllow: readNetworks(env, 'MACHINE_ALLOW'),
    pathPrefix: prefix,
  };
}

function readBootstrap(env: Source): BootstrapSecrets | null {
  const current = secret(env, 'BOOTSTRAP_SECRET');
  const previous = secret(env, 'BOOTSTRAP_SECRET_PREVIOUS');
  return current === '' ? null : { current, previous: previous || null };
}

function secret(env: Source, name: SettingName): string {
  const value = text(env, name);
  if (value !== '' && value.length < 32) throw new SettingError(name, 'at least 32 characters long');
  return value;
}

function readLocation(env: Source): FeedLocation {
  const location = feedLocations.find((each) => each === text(env, 'FEED_LOCATION'));
  if (location !== undefined) return location;
  throw new SettingError('FEED_LOCATION', `empty, or one of ${feedLocations.filter(Boolean).join(', ')}`);
}

function readPublicUrl(env: Source): string {
  const given = text(env, 'PUBLIC_URL');
  const url = given === '' ? '' : parsePublicUrl(given);
  if (url === null) throw new SettingError('PUBLIC_URL', `empty, or ${publicUrlMustBe}`);
  return url;
}

/** `sent`: a host may send the key of the default engine. */
function readUpstreams(env: Source, sent: boolean): readonly EngineSettings[] {
  const scopes = (text(env, 'SCOPES') || 'ip,range,country,as').split(',').map((scope) => scope.trim());
  if (scopes.some((scope) => !/^[\w-]+$/.test(scope))) {
    throw new SettingError('SCOPES', 'names of scopes with commas between them');
  }
  const common = { timeoutMs: seconds(env, 'UPSTREAM_TIMEOUT_SECONDS', 10, 1, 300), scopes };
  const first = readUpstream(env, common, sent);
  let engines: readonly EngineSettings[] = first ? [first] : [];
  for (const name of ['UPSTREAMS', 'UPSTREAMS_2', 'UPSTREAMS_3', 'UPSTREAMS_4'] as const) {
    const read = readEngines(name, text(env, name), engines, common);
    if (!read.ok) throw new SettingError(name, read.mustBe);
    engines = read.entries;
  }
  return engines;
}

function readUpstream(env: Source, common: CommonSettings, sent: boolean): EngineSettings | null {
  const url = text(env, 'UPSTREAM_URL');
  const apiKey = text(env, 'UPSTREAM_API_KEY');
  const token = text(env, 'UPSTREAM_REGISTRATION_TOKEN');
  const headers = readHeaders(text(env, 'UPSTREAM_HEADERS'));
  if (url === '') return null;
  if (!isLapiAddress(url)) {
    throw new SettingError('UPSTREAM_URL', 'an http:// or https:// address without user, query or fragment');
  }
  if (!isHeaderText(apiKey) && !(apiKey === '' && sent)) {
    const how =
      'the key of a bouncer of that engine (cscli bouncers add lapidary), since UPSTREAM_URL is set; ' +
      'or set BOOTSTRAP_SECRET, for a host to send one';
    throw new SettingError('UPSTREAM_API_KEY', how);
  }
  if (token !== '' && !isRegistrationToken(token)) {
    throw new SettingError('UPSTREAM_REGISTRATION_TOKEN', registrationTokenMustBe);
  }
  return {
    name: defaultEngineName,
    url: withoutSlash(url),
    apiKey: apiKey || null,
    keyName: 'UPSTREAM_API_KEY',
    registrationToken: token || null,
    headers,
    hosts: [],
    ...common,
  };
}

function readHeaders(json: string): Readonly<Record<string, string>> {
  let headers: unknown = {};
  try {
    if (json !== '') headers = JSON.parse(json);
  } catch {
    headers = null;
  }
  if (isHeaders(headers)) return headers;
  throw new SettingError('UPSTREAM_HEADERS', 'a JSON object of header names and texts');
}

function text(env: Source, name: SettingName): string {
  const value = env[name];
  if (value === undefined || value === null) return '';
  if (typeof value !== 'string') throw new SettingError(name, 'a text');
  return value.trim();
}

/** On unless it is switched off. */
function readSwitch(env: Source, name: SettingName): boolean {
  const value = text(env, name);
  if (!['', 'on', 'off'].includes(value)) throw new SettingError(name, 'on or off');
  return value !== 'off';
}

/** Not shorter than a tombstone may live: the log tells which bouncers there were (bouncers/bouncers.sql.ts). */
function readAuditKept(env: Source): number {
  const days = wholeNumber(env, 'AUDIT_RETENTION_DAYS', 400, 0, 36_500);
  if (days > 0 && days < 90) throw new SettingError('AUDIT_RETENTION_DAYS', '0, or a whole number from 90');
  return days === 0 ? Infinity : days * 86_400_000;
}

function readNetworks(env: Source, name: SettingName): Network[] {
  const texts = text(env, name)
    .split(',')
    .map((each) => each.trim());
  return texts.filter(Boolean).map((each) => {
    const network = parseNetwork(each);
    if (network) return network;
    throw new SettingError(name, 'addresses and CIDR ranges with commas between them');
  });
}

function flag(env: Source, name: SettingName): boolean {
  const value = text(env, name);
  if (!['', 'true', 'false'].includes(value)) throw new SettingError(name, 'true or false');
  return value === 'true';
}

function seconds(env: Source, name: SettingName, fallback: number, least: number, most: number): number {
  return wholeNumber(env, name, fallback, least, most) * 1000;
}

function wholeNumber(env: Source, name: SettingName, fallback: number, least: number, most: number): number {
  const value = text(env, name);
  if (value === '') return fallback;
  if (!/^\d+$/.test(value) || Number(value) < least || Number(value) > most) {
    throw new SettingError(name, `a whole number from ${least} to ${most}`);
  }
  return Number(value);
}
