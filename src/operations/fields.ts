// Fields that several operations take: the schemas that check them and that /openapi.json shows. Each refusal says what the
// field must be. Pure.

import * as z from 'zod';
import { parsed } from '../config/fields.ts';
import { badInput, succeed, type Result } from '../http/failure.ts';
import { formatDuration, parseDuration } from '../formats/duration.ts';

/** The names of bouncers, hosts and operators' tokens: they stand in paths and in the audit log. */
export const nameRule = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/;
export const nameMustBe = 'must be 1 to 64 letters, digits, dots, dashes, underscores or @';

export const name = z
  .string(nameMustBe)
  .regex(nameRule, nameMustBe)
  .meta({ description: 'Unique: no two have the same name at one time.', example: 'web-1' });

const digestMustBe = 'must be a SHA-512 as 128 lower-case hex digits';

/** A key's digest, as LAPI stores it. */
export const digest = z
  .string(digestMustBe)
  .regex(/^[0-9a-f]{128}$/, digestMustBe)
  .meta({ description: 'The SHA-512 of a key in lower-case hex, as LAPI stores it.' });

/** The longest that a key or a ban may last. */
export const longestMs = 10 * 365 * 86_400_000;

/** What `parseOperatorDuration` reads: a Go duration, days in front of one, or days alone. */
const durationRule = /^(\d{1,5}d|(\d{1,5}d)?[+-]?(0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+))$/;

/** A duration within bounds; in milliseconds once it is checked. */
export function duration(leastMs: number, mostMs: number) {
  const bounds = `must be ${formatDuration(leastMs / 1000)} to ${Math.floor(mostMs / 86_400_000)}d`;
  const mustBe = 'must be a duration like 4h, 30m or 7d';
  return z
    .string(mustBe)
    .regex(durationRule, mustBe)
    .transform((text, context): number => {
      const ms = parseOperatorDuration(text);
      if (ms !== undefined && ms >= leastMs && ms <= mostMs) return ms;
      context.addIssue({ code: 'custom', message: ms === undefined ? mustBe : bounds });
      return z.NEVER;
    })
    .meta({ description: `A duration, ${bounds.slice(8)}.`, example: '4h' });
}

/** Go's units, with days in front of them as in LAPI since 1.6.9. Milliseconds. */
function parseOperatorDuration(text: string): number | undefined {
  const match = /^(?:(\d{1,5})d)?(.*)$/.exec(text);
  const days = match?.[1];
  const rest = match?.[2] ?? '';
  if (days === undefined) return parseDuration(rest);
  const restMs = rest === '' ? 0 : parseDuration(rest);
  return restMs === undefined ? undefined : Number(days) * 86_400_000 + restMs;
}

/** A key to register: by its digest, or made here. `expires_in`: how long it is valid. */
export const newKey = {
  key_sha512: digest.optional(),
  expires_in: duration(1000, longestMs).optional(),
};

export interface NewKey {
  /** The digest of a key that the caller made; null: make a key here. */
  readonly digest: string | null;
  readonly expiresInMs: number | null;
}

export function keyOf(input: { key_sha512?: string | undefined; expires_in?: number | undefined }): NewKey {
  return { digest: input.key_sha512 ?? null, expiresInMs: input.expires_in ?? null };
}

/** A whole number in a query. Only digits: to JavaScript an empty text is 0. */
function digits(least: number, most: number, mustBe: string) {
  return parsed(mustBe, (text) => {
    const number = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
    return number >= least && number <= most ? number : null;
  }).meta({ override: { type: 'integer', minimum: least, maximum: most } });
}

const limit = digits(1, 1000, 'must be a whole number from 1 to 1000');

/** A place in a list: the `next` of the page before. */
export const cursor = digits(0, 1e15 - 1, 'must be the `next` of the page before');

export const pageFields = {
  limit: limit.default(100).meta({ description: 'How many, at most.', override: { default: 100 } }),
};

/** A page of a list that begins at the start. */
export const page = z.strictObject({
  after: cursor.default(0).meta({ description: 'The `next` of the page before.', override: { default: 0 } }),
  ...pageFields,
});

/** The answer of a list, as a page. */
export function pageOf(list: string, element: z.ZodType) {
  return { description: 'A page.', body: z.object({ [list]: z.array(element), next: z.int().nullable() }) };
}

/** The cursor of the page after this one; null: this was the last. */
export function nextOf<T>(rows: readonly T[], atMost: number, cursorOf: (row: T) => number): number | null {
  const last = rows.at(-1);
  return last !== undefined && rows.length === atMost ? cursorOf(last) : null;
}

/** The body of calls that need none. */
export const nothing = z.strictObject({});

/** Checks an input. A failure names the first field that is refused. `what`: what the input consists of. */
export function check<T>(
  schema: z.ZodType<T>,
  input: unknown,
  what: 'field' | 'parameter' = 'field',
): Result<T> {
  const parsed = schema.safeParse(input);
  if (parsed.success) return succeed(parsed.data);
  const { issues } = parsed.error;
  const unknown = issues.find((issue) => issue.code === 'unrecognized_keys');
  if (unknown) return badInput([...unknown.path, unknown.keys[0]].join('.'), `unknown ${what}`);
  const first = issues[0] as (typeof issues)[number];
  return badInput(first.path.join('.') || 'body', first.message);
}

/** A time as the API writes it: ISO 8601 in UTC. */
export const time = z.iso.datetime();

export function isoTime<T extends number | null>(ms: T): T extends number ? string : string | null;

export function isoTime(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}
