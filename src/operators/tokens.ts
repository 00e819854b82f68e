// Tokens of operators that are made here (`cso_…`): how they are made, listed, revoked and checked. Each one expires, and
// its name is not given again while the audit log names it.

import { and, asc, eq, gt, inArray, isNull, sql } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import * as z from 'zod';
import { answerMs, askD1 } from '../store/ask.ts';
import { always, type RowsOf } from '../store/audit.sql.ts';
import { listed, rowJson } from '../store/facts.ts';
import { operatorTokens, revocationOutbox } from '../store/schema.ts';
import { causeOf, fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { isMinted, mintSecret } from '../crypto/mint.ts';
import { roles } from '../config/roles.ts';
import { digestOf } from '../crypto/secret.ts';
import { createAsking } from '../runtime/asking.ts';
import { isoTime, time, duration, name } from '../operations/fields.ts';
import {
  mutate,
  nothingRead,
  type Answer,
  type Draft,
  type Mutation,
  type Shown,
} from '../operations/mutate.ts';
import type { Identity } from './oidc.ts';
import { createRefusals, noteUnknownKey, delayUnknownKey } from '../http/unknown-keys.ts';

export const newToken = z.strictObject({
  name,
  role: z.enum(roles, `must be one of ${roles.join(', ')}`),
  expires_in: duration(1000, 365 * 86_400_000),
});

export const tokenShape = z
  .object({
    name: z.string(),
    role: z.enum(roles),
    state: z.enum(['live', 'expired', 'revoked']),
    digest_prefix: z.string().meta({ description: 'The first 8 hex digits of its SHA-512.' }),
    created_at: time,
    expires_at: time.nullable(),
    revoked_at: time.nullable(),
  })
  .meta({ id: 'OperatorToken' });

type OperatorToken = typeof operatorTokens.$inferSelect;

/** A page by id. */
export function listTokens(d1: D1Database, afterId: number, limit: number): Promise<OperatorToken[]> {
  const { id } = operatorTokens;
  return askD1(d1, (d) =>
    d.select().from(operatorTokens).where(gt(id, afterId)).orderBy(asc(id)).limit(limit),
  );
}

export async function anyLiveToken(d1: D1Database, nowMs: number): Promise<boolean> {
  const live = and(isNull(operatorTokens.revokedMs), gt(operatorTokens.expiresMs, nowMs));
  const { id } = operatorTokens;
  const rows = await askD1(d1, (d) => d.select({ id }).from(operatorTokens).where(live).limit(1), answerMs);
  return rows.length > 0;
}

export function looksLikeToken(text: string): boolean {
  return /^cso_[0-9A-Za-z]{49}$/.test(text);
}

const refusals = createRefusals();

const ask = createAsking<D1Database, OperatorToken | null>(
  async (d1, digests) => {
    const nowMs = Date.now();
    const found = new Map<string, OperatorToken | null>(digests.map((digest) => [digest, null]));
    const asked = inArray(operatorTokens.digest, listed(digests));
    const tokens = await askD1(d1, (d) => d.select().from(operatorTokens).where(asked));
    for (const token of tokens) found.set(token.digest, token);
    for (const [digest, token] of found) if (!token) refusals.note(digest, nowMs);
    return found;
  },
  (error) => console.error(`the key store is out of reach: ${causeOf(error).message}`),
);

/**
 * Who a token is of. D1 is asked at every use of one that may be valid: operators are few, and a revoked token is refused
 * everywhere from the next request on. `unavailable` when D1 is out of reach. `address`: where it came from.
 */
export async function authenticateToken(
  d1: D1Database,
  token: string,
  address: string,
  nowMs: number,
): Promise<Result<Identity>> {
  if (!isMinted(token)) return fail(notValid);
  const digest = digestOf(token);
  if (refusals.has(digest, nowMs)) return fail(notValid);
  await delayUnknownKey(address, nowMs);
  let found: OperatorToken | null;
  try {
    found = await ask(d1, digest);
  } catch {
    return fail(unchecked);
  }
  if (!found) noteUnknownKey(address, nowMs);
  return identityOf(found, nowMs);
}

/** Who a token is of that was good before, by its digest. It may have ended since. */
export async function identifyDigest(
  d1: D1Database,
  digest: string,
  nowMs: number,
): Promise<Result<Identity>> {
  try {
    return identityOf(await ask(d1, digest), nowMs);
  } catch {
    return fail(unchecked);
  }
}

const notValid: Failure = { kind: 'unauthorised', problem: 'this operator token is not valid' };
const unchecked: Failure = {
  kind: 'unavailable',
  problem: 'operator tokens can not be checked now; try again',
};

function identityOf(found: OperatorToken | null, nowMs: number): Result<Identity> {
  if (!found) return fail(notValid);
  const state = stateOf(found, nowMs);
  if (state !== 'live') return fail({ kind: 'unauthorised', problem: `this operator token is ${state}` });
  return succeed({ actor: `token:${found.name}`, role: found.role });
}

export async function createToken(
  mutation: Mutation,
  { name, role, expires_in: expiresInMs }: z.output<typeof newToken>,
): Promise<Result<Answer>> {
  const { nowMs } = mutation;
  const token = mintSecret('cso_');
  const row = {
    name,
    digest: digestOf(token),
    role,
    createdMs: nowMs,
    expiresMs: nowMs + expiresInMs,
    revokedMs: null,
  };
  // The audit log keeps the name `start`, which its first rows have.
  const detail = { role, start: row.digest.slice(0, 8), expires_at: isoTime(row.expiresMs) };
  const problem = `operator token ${name} exists, or did and is still in the audit log: choose another name`;
  const decide = (): Result<Draft> =>
    succeed({
      entry: { action: 'operator-token.create', target: name, detail },
      unchanged: always,
      statements: (d) => [d.insert(operatorTokens).values(row)],
      answer: { status: 201, secret: { token } },
      clash: () => ({ kind: 'conflict', field: 'name', problem }),
    });
  return mutate(mutation, nothingRead, decide, shownToken(name, nowMs));
}

/** A token as a GET shows it. */
function shownToken(name: string, nowMs: number): Shown<OperatorToken> {
  return {
    json: sql`(SELECT ${rowJson(operatorTokens)} FROM operator_tokens WHERE name = ${name})`,
    describe: (token) => ({ operator_token: describeToken(token, nowMs) }),
  };
}

export async function revokeToken(mutation: Mutation, name: string): Promise<Result<Answer>> {
  const { nowMs } = mutation;
  const reads = (d: DrizzleD1Database) =>
    [d.select().from(operatorTokens).where(eq(operatorTokens.name, name))] as const;
  const decide = ([[token]]: RowsOf<ReturnType<typeof reads>>): Result<Draft> => {
    if (!token) return fail({ kind: 'not-found', what: `operator token ${name}` });
    if (token.revokedMs !== null) {
      return fail({ kind: 'conflict', field: 'name', problem: `operator token ${name} is revoked already` });
    }
    const detail = { role: token.role, start: token.digest.slice(0, 8) };
    return succeed({
      entry: { action: 'operator-token.revoke', target: name, detail },
      unchanged: sql`EXISTS (SELECT 1 FROM operator_tokens WHERE id = ${token.id} AND revoked_ms IS NULL)`,
      statements: (d) => [
        d.update(operatorTokens).set({ revokedMs: nowMs }).where(eq(operatorTokens.id, token.id)),
        d.insert(revocationOutbox).values({ digest: token.digest, effectiveMs: nowMs }),
      ],
      answer: { status: 200 },
    });
  };
  return mutate(mutation, reads, decide, shownToken(name, nowMs));
}

export function describeToken(token: OperatorToken, nowMs: number): z.input<typeof tokenShape> {
  return {
    name: token.name,
    role: token.role,
    state: stateOf(token, nowMs),
    digest_prefix: token.digest.slice(0, 8),
    created_at: isoTime(token.createdMs),
    expires_at: isoTime(token.expiresMs),
    revoked_at: isoTime(token.revokedMs),
  };
}

/** Every token expires. A row without an expiry was not made here, and counts as expired. */
function stateOf(token: OperatorToken, nowMs: number): 'live' | 'expired' | 'revoked' {
  if (token.revokedMs !== null) return 'revoked';
  return nowMs < (token.expiresMs ?? 0) ? 'live' : 'expired';
}
