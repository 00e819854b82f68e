// `UPSTREAMS` and those after it: the engines beside the one of `UPSTREAM_URL`, and who of all is meant by a name or an address. Pure. A
// mistake here sends machines, with what they know, to an engine that is not theirs.

import { isObject, isText, isTexts, onlyKnows, readEntries, type EntriesRead } from './json-list.ts';

/** An engine's LAPI, and how it is asked. */
export interface EngineSettings {
  /** Operators' name for it: part of an address, and what a view chooses by. */
  readonly name: string;
  /** Its LAPI, without a trailing slash. */
  readonly url: string;
  /** A bouncer key that nothing but this feed uses; a shared one loses changes. Null: the engine's host sends one. */
  readonly apiKey: string | null;
  /** What that key is for an operator to read. */
  readonly keyName: string;
  /** Sent with every request (a Cloudflare Access service token). */
  readonly headers: Readonly<Record<string, string>>;
  /** With it the engine validates the machines that are registered for hosts (1.6.3 on). Null: `cscli` has to. */
  readonly registrationToken: string | null;
  /** Host names under which it is meant, in lower case. */
  readonly hosts: readonly string[];
  /** How long it may be silent, at the start or in mid-answer. */
  readonly timeoutMs: number;
  /** What deltas ask for; a stream has no wildcard. The full list has all. */
  readonly scopes: readonly string[];
}

/** What is the same for all engines. */
export type CommonSettings = Pick<EngineSettings, 'timeoutMs' | 'scopes'>;

/** The name of the engine of `UPSTREAM_URL`. */
export const defaultEngineName = 'default';

const nameRule = /^[a-z0-9][a-z0-9-]{0,31}$/;
const hostRule = /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/;
const fieldNames = ['name', 'url', 'key', 'registration_token', 'headers', 'hosts'];

/** Those of one setting, after the engines `known` already. */
export function readEngines(
  setting: string,
  json: string,
  known: readonly EngineSettings[],
  common: CommonSettings,
): EntriesRead<EngineSettings> {
  const read = readEntries<EngineSettings>(json, 'engines', (entry, before) => {
    const engine = readEngine(entry, [...known, ...before], common);
    return typeof engine === 'string' ? engine : { ...engine, keyName: `${engine.keyName} in ${setting}` };
  });
  return read.ok ? { ok: true, entries: [...known, ...read.entries] } : read;
}

function readEngine(
  entry: Record<string, unknown>,
  before: readonly EngineSettings[],
  common: CommonSettings,
): EngineSettings | string {
  if (!onlyKnows(entry, fieldNames)) return `no fields but ${fieldNames.join(', ')}`;
  const { name, url, key, registration_token: token = null, headers = {}, hosts = [] } = entry;
  if (typeof name !== 'string' || !nameRule.test(name)) {
    return 'as name up to 32 lower-case letters, digits and hyphens';
  }
  if (before.some((other) => other.name === name)) return 'a name that no other engine has';
  if (!isText(url) || !isLapiAddress(url)) {
    return 'as url an http:// or https:// address without user, query or fragment';
  }
  const address = withoutSlash(url);
  if (before.some((other) => other.url === address)) return 'a url that no other engine has';
  if (!isText(key) || !isHeaderText(key)) return 'as key that of a bouncer of this engine';
  if (token !== null && !isRegistrationToken(token))
    return `as registration_token ${registrationTokenMustBe}`;
  if (!isHeaders(headers)) return 'as headers an object of header names and texts';
  if (!(Array.isArray(hosts) && hosts.length === 0) && !(isTexts(hosts) && hosts.every(isHostName))) {
    return 'as hosts a list of host names';
  }
  const names = (hosts as string[]).map((host) => host.toLowerCase());
  if (before.some((other) => other.hosts.some((host) => names.includes(host)))) {
    return 'hosts that no other engine has';
  }
  return {
    name,
    url: address,
    apiKey: key,
    keyName: `the key of engine ${name}`,
    registrationToken: token,
    headers,
    hosts: names,
    ...common,
  };
}

function isHostName(text: string): boolean {
  return hostRule.test(text.toLowerCase());
}

export function isLapiAddress(text: string): boolean {
  const parsed = URL.canParse(text) ? new URL(text) : null;
  return (
    parsed !== null &&
    /^https?:$/.test(parsed.protocol) &&
    parsed.username + parsed.password + parsed.search + parsed.hash === ''
  );
}

export function withoutSlash(url: string): string {
  return url.replace(/\/+$/, '');
}

/** Whether a text can be sent as a header that is a key. */
export function isHeaderText(text: string): boolean {
  return /^[\x21-\x7e]+$/.test(text);
}

/** LAPI takes no shorter and no longer one (its `WatcherRegistrationRequest`). */
export const registrationTokenMustBe = '32 to 255 printable characters';

export function isRegistrationToken(token: unknown): token is string {
  return typeof token === 'string' && /^[\x21-\x7e]{32,255}$/.test(token);
}

export function isHeaders(headers: unknown): headers is Readonly<Record<string, string>> {
  return (
    isObject(headers) &&
    Object.entries(headers).every(
      ([name, value]) =>
        /^[A-Za-z0-9-]+$/.test(name) && typeof value === 'string' && /^[\x20-\x7e]*$/.test(value),
    )
  );
}
