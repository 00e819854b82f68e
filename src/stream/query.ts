// Reads a bouncer's query string as LAPI does (Go's url.ParseQuery; pkg/database/decisionfilter.go): malformed pairs are
// dropped, the first of a repeated parameter counts, unknown parameters are ignored.

import { badInput, succeed, type Result } from '../http/failure.ts';
import type { View, Within } from '../mirror/view.ts';
import { parseNetwork } from '../formats/ip.ts';
import { scopeName } from '../formats/lapi-json.ts';

export interface ListQuery {
  readonly view: View;
  /** Null: all. */
  readonly limit: number | null;
  readonly offset: number;
  readonly idGreaterThan: number;
}

/** Below the minute after which proxies cut a silent connection. */
const longestWaitSeconds = 55;

/** `search` with or without its `?`. `waitMs`: how long the answer may wait for a change; 0: not at all. */
export function parseStreamQuery(search: string): Result<{ startup: boolean; view: View; waitMs: number }> {
  const query = parseQuery(search);
  const view = readView(query, ['Ip', 'Range'], query.get('dedup') !== 'false');
  if (!view.ok) return view;
  const waitMs = readWait(query, search);
  if (!waitMs.ok) return waitMs;
  return succeed({ startup: query.get('startup') === 'true', view: view.value, waitMs: waitMs.value });
}

/** Our own parameter. LAPI ignores it. */
function readWait(query: Query, search: string): Result<number> {
  const text = query.get('wait');
  if (text === undefined) return succeed(0);
  const pairs = search.replace('?', '').split('&');
  if (pairs.filter((pair) => parseQuery(pair).has('wait')).length > 1) {
    return badInput('wait', 'given more than once');
  }
  const seconds = /^\d{1,2}$/.test(text) ? Number(text) : Infinity;
  if (seconds <= longestWaitSeconds) return succeed(seconds * 1000);
  return badInput('wait', `not a whole number of seconds from 0 to ${longestWaitSeconds}`);
}

export function parseListQuery(search: string): Result<ListQuery> {
  const query = parseQuery(search);
  const view = readView(query, null, false);
  if (!view.ok) return view;
  // A number below zero counts as absent: a limit of -1 is none.
  const limit = readInteger(query, 'limit', -1);
  if (!limit.ok) return limit;
  const offset = readInteger(query, 'offset', 0);
  if (!offset.ok) return offset;
  const idGreaterThan = readInteger(query, 'id_gt', 0);
  if (!idGreaterThan.ok) return idGreaterThan;
  return succeed({
    view: view.value,
    limit: limit.value < 0 ? null : limit.value,
    offset: Math.max(0, offset.value),
    idGreaterThan: Math.max(0, idGreaterThan.value),
  });
}

/** The first value of each parameter. Like Go, it drops pairs with a `;` or a bad `%` escape. */
export function parseQuery(search: string): Map<string, string> {
  const query = new Map<string, string>();
  for (const pair of (search.startsWith('?') ? search.slice(1) : search).split('&')) {
    if (pair === '' || pair.includes(';')) continue;
    const equals = pair.indexOf('=');
    const name = unescape(equals < 0 ? pair : pair.slice(0, equals));
    const value = unescape(equals < 0 ? '' : pair.slice(equals + 1));
    if (name !== undefined && value !== undefined && !query.has(name)) query.set(name, value);
  }
  return query;
}

/** Undefined if a `%` is no escape. Bytes that are no UTF-8 become replacement characters, which match nothing. */
function unescape(text: string): string | undefined {
  if (!/[%+]/.test(text)) return text;
  if (/%(?![0-9a-fA-F]{2})/.test(text)) return undefined;
  return text.replaceAll('+', ' ').replace(/(?:%[0-9a-fA-F]{2})+/g, (escapes) => {
    return new TextDecoder().decode(Uint8Array.fromHex(escapes.replaceAll('%', '')));
  });
}

type Query = ReadonlyMap<string, string>;

function readView(query: Query, defaultScopes: readonly string[] | null, dedup: boolean): Result<View> {
  const within = readWithin(query);
  if (!within.ok) return within;
  const lower = (name: string): string[] | null =>
    list(query, name)?.map((part) => part.toLowerCase()) ?? null;
  return succeed({
    scopes: readScopes(query) ?? defaultScopes,
    origins: list(query, 'origins'),
    scenariosContaining: lower('scenarios_containing'),
    scenariosNotContaining: lower('scenarios_not_containing'),
    value: query.get('value') ?? null,
    type: query.get('type') ?? null,
    within: within.value,
    dedup,
    limits: null,
  });
}

/** `scopes`, or `scope` (cs-windows-firewall-bouncer sends it), or the scopes that are in both. */
function readScopes(query: Query): string[] | null {
  const scopes = list(query, 'scopes')?.map(scopeName);
  const scope = list(query, 'scope')?.map(scopeName);
  if (scopes && scope) return scopes.filter((name) => scope.includes(name));
  return scopes ?? scope ?? null;
}

function readWithin(query: Query): Result<Within | null> {
  const contains = readBool(query.get('contains'));
  if (contains === undefined) return badInput('contains', 'not true or false');
  // With both parameters LAPI takes a random one; here it is always `ip`.
  const name = query.has('ip') ? 'ip' : 'range';
  const text = query.get(name);
  if (text === undefined) return succeed(null);
  const network = parseNetwork(text);
  if (!network) return badInput(name, 'not an IP address or a CIDR range');
  return succeed({ network, covering: contains });
}

/** Go's strconv.ParseBool; absent is true. */
function readBool(text: string | undefined): boolean | undefined {
  if (text === undefined || ['1', 't', 'T', 'true', 'TRUE', 'True'].includes(text)) return true;
  return ['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(text) ? false : undefined;
}

/** Go's strconv.Atoi: a sign and digits, within 64 bits. */
function readInteger(query: Query, name: string, absent: number): Result<number> {
  const text = query.get(name);
  if (text === undefined) return succeed(absent);
  const whole = /^[+-]?\d+$/.test(text) && BigInt.asIntN(64, BigInt(text)) === BigInt(text);
  return whole ? succeed(Number(text)) : badInput(name, 'not a whole number');
}

function list(query: Query, name: string): string[] | null {
  return query.get(name)?.split(',') ?? null;
}
