// What operators send, checked by hand: each refusal names the field and what it must be. Pure.

import { badInput, succeed, type Result } from '../failure.ts';
import { formatDuration, parseDuration } from '../lapi/duration.ts';
import { formatNetwork, parseNetwork } from '../lapi/ip.ts';
import { scopeName } from '../lapi/wire.ts';
import type { AuditFilter } from '../db/audit.ts';
import { isRole, roles } from '../roles.ts';
import { defaultOverlap, longestOverlapMs, type Overlap } from './rotation.ts';
import type { NewToken } from './tokens.ts';

/** What a bouncer, and an operator's token, may be called: it stands in paths and in the audit log. */
export const nameRule = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/;
export const nameMustBe = 'must be 1 to 64 letters, digits, dots, dashes, underscores or @';

/** A key's digest as LAPI writes it. */
export const digestRule = /^[0-9a-f]{128}$/;
export const digestMustBe = 'must be a SHA-512 as 128 lower-case hex digits';

export interface NewBouncer {
  readonly name: string;
  /** The digest of a key that the caller made; null: a key is to be made here. */
  readonly digest: string | null;
  readonly expiresInMs: number | null;
}

export function parseNewBouncer(json: object): Result<NewBouncer> {
  const { name, key_sha512: digest, expires_in: expiresIn, ...rest } = json as Record<string, unknown>;
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) return badInput(unknown, 'unknown field');
  if (typeof name !== 'string' || !nameRule.test(name)) {
    return badInput('name', nameMustBe);
  }
  const key = parseKey(digest, expiresIn);
  return key.ok ? succeed({ name, ...key.value }) : key;
}

function parseKey(digest: unknown, expiresIn: unknown): Result<Pick<NewBouncer, 'digest' | 'expiresInMs'>> {
  if (digest !== undefined && (typeof digest !== 'string' || !digestRule.test(digest))) {
    return badInput('key_sha512', digestMustBe);
  }
  if (expiresIn === undefined) return succeed({ digest: digest ?? null, expiresInMs: null });
  const expiresInMs = readDuration('expires_in', expiresIn, 1000, longestMs);
  return expiresInMs.ok ? succeed({ digest: digest ?? null, expiresInMs: expiresInMs.value }) : expiresInMs;
}

/** A duration field within bounds, in milliseconds. */
function readDuration(field: string, value: unknown, leastMs: number, mostMs: number): Result<number> {
  const ms = typeof value === 'string' ? parseOperatorDuration(value) : undefined;
  if (ms === undefined) return badInput(field, 'must be a duration like 4h, 30m or 7d');
  if (ms < leastMs || ms > mostMs) {
    return badInput(
      field,
      `must be ${formatDuration(leastMs / 1000)} to ${Math.floor(mostMs / 86_400_000)}d`,
    );
  }
  return succeed(ms);
}

export interface Rotation {
  readonly overlap: Overlap;
  readonly digest: string | null;
  readonly expiresInMs: number | null;
}

export function parseRotation(json: object): Result<Rotation> {
  const {
    grace,
    max_overlap: maxOverlap,
    key_sha512: digest,
    expires_in: expiresIn,
    ...rest
  } = json as Record<string, unknown>;
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) return badInput(unknown, 'unknown field');
  const graceMs =
    grace === undefined ? succeed(defaultOverlap.graceMs) : readDuration('grace', grace, 0, longestOverlapMs);
  if (!graceMs.ok) return graceMs;
  const maxOverlapMs =
    maxOverlap === undefined
      ? succeed(defaultOverlap.maxOverlapMs)
      : readDuration('max_overlap', maxOverlap, 1000, longestOverlapMs);
  if (!maxOverlapMs.ok) return maxOverlapMs;
  const key = parseKey(digest, expiresIn);
  if (!key.ok) return key;
  return succeed({ overlap: { graceMs: graceMs.value, maxOverlapMs: maxOverlapMs.value }, ...key.value });
}

const longestTokenMs = 365 * 86_400_000;

export function parseNewToken(json: object): Result<NewToken> {
  const { name, role, expires_in: expiresIn, ...rest } = json as Record<string, unknown>;
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) return badInput(unknown, 'unknown field');
  if (typeof name !== 'string' || !nameRule.test(name)) {
    return badInput('name', nameMustBe);
  }
  if (!isRole(role)) return badInput('role', `must be one of ${roles.join(', ')}`);
  const expiresInMs = readDuration('expires_in', expiresIn, 1000, longestTokenMs);
  return expiresInMs.ok ? succeed({ name, role, expiresInMs: expiresInMs.value }) : expiresInMs;
}

/** For calls that take no body, or an empty one. */
export function parseNothing(json: object): Result<object> {
  const unknown = Object.keys(json)[0];
  return unknown === undefined ? succeed({}) : badInput(unknown, 'unknown field');
}

export interface NewDecision {
  readonly value: string;
  readonly scope: string;
  readonly type: string;
  readonly scenario: string;
  readonly durationMs: number;
}

const types = ['ban', 'captcha', 'throttle'];
const longestMs = 10 * 365 * 86_400_000;

export function parseNewDecision(json: object): Result<NewDecision> {
  const { value, scope, type = 'ban', scenario, duration, ...rest } = json as Record<string, unknown>;
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) return badInput(unknown, 'unknown field');
  if (typeof value !== 'string' || value === '') return badInput('value', 'must be a text');
  if (scope !== undefined && typeof scope !== 'string') return badInput('scope', 'must be a text');
  const target = parseTarget(value, scope);
  if (!target.ok) return target;
  if (typeof type !== 'string' || !types.includes(type)) {
    return badInput('type', `must be one of ${types.join(', ')}`);
  }
  if (scenario !== undefined && (typeof scenario !== 'string' || !/^[^\p{Cc}]{1,200}$/u.test(scenario))) {
    return badInput('scenario', 'must be 1 to 200 printable characters');
  }
  const durationMs = readDuration('duration', duration, 1000, longestMs);
  if (!durationMs.ok) return durationMs;
  return succeed({
    ...target.value,
    type,
    scenario: scenario ?? `manual '${type}' from lapidary`,
    durationMs: durationMs.value,
  });
}

/** Go's units and, as in LAPI since 1.6.9, days in front of them. */
function parseOperatorDuration(text: string): number | undefined {
  const match = /^(?:(\d{1,5})d)?(.*)$/.exec(text);
  const days = match?.[1];
  const rest = match?.[2] ?? '';
  if (days === undefined) return parseDuration(rest);
  const restMs = rest === '' ? 0 : parseDuration(rest);
  return restMs === undefined ? undefined : Number(days) * 86_400_000 + restMs;
}

interface Target {
  readonly value: string;
  readonly scope: string;
}

/** A decision's value and scope in LAPI's spelling; the scope of an address is told from the address. */
function parseTarget(value: string, scope: string | undefined): Result<Target> {
  const name = scope === undefined ? undefined : scopeName(scope);
  const network = parseNetwork(value);
  if (name === undefined || name === 'Ip' || name === 'Range') {
    if (!network) return badInput('value', 'must be an IP address or a CIDR range');
    const isAddress = !value.includes('/');
    if (name === 'Ip' && !isAddress) return badInput('value', 'is a range: the scope Ip takes one address');
    if (name === 'Range' && isAddress)
      return badInput('value', 'is an address: the scope Range takes a CIDR range');
    const whole = network.prefixBits === network.bytes.length * 8 && !isAddress;
    const text = formatNetwork(network) + (whole ? `/${network.prefixBits}` : '');
    return succeed({ value: text, scope: isAddress ? 'Ip' : 'Range' });
  }
  if (name === 'Country') {
    if (!/^[A-Za-z]{2}$/.test(value)) return badInput('value', 'must be a country code of two letters');
    return succeed({ value: value.toUpperCase(), scope: name });
  }
  if (name === 'AS') {
    const number = /^(?:AS)?(\d{1,10})$/i.exec(value)?.[1];
    if (number === undefined) return badInput('value', 'must be the number of an AS');
    return succeed({ value: number, scope: name });
  }
  if (!/^[A-Za-z][\w-]{0,31}$/.test(name))
    return badInput('scope', 'must be a name of 1 to 32 letters or digits');
  if (!/^[^\p{Cc}]{1,256}$/u.test(value)) return badInput('value', 'must be 1 to 256 printable characters');
  return succeed({ value, scope: name });
}

export interface DecisionMatch {
  readonly value: string;
  readonly type?: string;
  readonly scope?: string;
}

export function parseDecisionMatch(query: Readonly<Record<string, string>>): Result<DecisionMatch> {
  const unknown = Object.keys(query).find((name) => !['value', 'type', 'scope'].includes(name));
  if (unknown !== undefined) return badInput(unknown, 'unknown parameter');
  const { value, type, scope } = query;
  if (!value) return badInput('value', 'must say which value is to be removed');
  const target = parseTarget(value, scope);
  // Without a scope the value may be of any: only an address is brought to its canonical spelling.
  if (!target.ok && scope !== undefined) return target;
  return succeed({
    value: target.ok ? target.value.value : value,
    ...(type === undefined ? {} : { type }),
    ...(scope === undefined ? {} : { scope: scopeName(scope) }),
  });
}

export interface Page {
  readonly after: number;
  readonly limit: number;
}

export function parsePage(query: Readonly<Record<string, string>>): Result<Page> {
  const { after = '0', limit = '100' } = query;
  if (!/^\d{1,15}$/.test(after)) return badInput('after', 'must be the `next` of the page before');
  if (!/^\d{1,4}$/.test(limit) || Number(limit) < 1 || Number(limit) > 1000) {
    return badInput('limit', 'must be a whole number from 1 to 1000');
  }
  return succeed({ after: Number(after), limit: Number(limit) });
}

export interface AuditQuery {
  readonly filter: AuditFilter;
  readonly before: number | null;
  readonly limit: number;
}

export function parseAuditQuery(query: Readonly<Record<string, string>>): Result<AuditQuery> {
  const { actor, action, target, before, limit = '100', ...rest } = query;
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) return badInput(unknown, 'unknown parameter');
  if (before !== undefined && !/^\d{1,15}$/.test(before)) {
    return badInput('before', 'must be the `next` of the page before');
  }
  const page = parsePage({ limit });
  if (!page.ok) return page;
  const filter = {
    ...(actor === undefined ? {} : { actor }),
    ...(action === undefined ? {} : { action }),
    ...(target === undefined ? {} : { target }),
  };
  return succeed({ filter, before: before === undefined ? null : Number(before), limit: page.value.limit });
}
