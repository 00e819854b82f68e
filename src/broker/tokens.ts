// Tokens of ours for operators (`cso_…`): made, listed, revoked, and from token to operator. Every one has an end
// and a name that is never given again, so that the audit log speaks of one token for good.

import type { DrizzleD1Database } from 'drizzle-orm/d1';
import * as z from 'zod';
import * as db from '../db/operators.ts';
import { causeOf, fail, succeed, type Failure, type Result } from '../failure.ts';
import { mintSecret } from '../mint.ts';
import { roles } from '../roles.ts';
import { digestOf } from '../secret.ts';
import { isoTime, time } from './describe.ts';
import { duration, name } from './fields.ts';
import { mutate, nothingRead, type Answer, type Mutation } from './mutations.ts';
import type { Identity } from './oidc.ts';

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
    start: z.string().meta({ description: 'The first 8 hex digits of its SHA-512.' }),
    created_at: time,
    expires_at: time.nullable(),
    revoked_at: time.nullable(),
  })
  .meta({ id: 'OperatorToken' });

export { listTokens } from '../db/operators.ts';

export function looksLikeToken(text: string): boolean {
  return /^cso_[0-9A-Za-z]{49}$/.test(text);
}

/**
 * Asks D1 at every use: operators are few, and a revoked token is refused from the next request on, everywhere.
 * `unavailable` when D1 is out of reach.
 */
export async function authenticateToken(
  d1: D1Database,
  token: string,
  nowMs: number,
): Promise<Result<Identity>> {
  let found: db.OperatorToken | null;
  try {
    found = await db.findByDigest(d1, await digestOf(token));
  } catch (error) {
    console.error(`the key store is out of reach: ${causeOf(error).message}`);
    return fail({ kind: 'unavailable', problem: 'operator tokens can not be checked now; try again' });
  }
  if (!found) return fail({ kind: 'unauthorised', problem: 'this operator token is not valid' });
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
    digest: await digestOf(token),
    role,
    createdMs: nowMs,
    expiresMs: nowMs + expiresInMs,
    revokedMs: null,
  };
  const taken: Failure = { kind: 'conflict', problem: `name: there is or was an operator token ${name}` };
  return mutate(mutation, nothingRead, () =>
    succeed({
      entry: {
        action: 'operator-token.create',
        target: name,
        detail: { role, start: row.digest.slice(0, 8), expires_at: isoTime(row.expiresMs) },
      },
      unchanged: db.always,
      statements: (d) => db.insertStatements(d, row),
      answer: {
        status: 201,
        body: { operator_token: describeToken(row, nowMs) },
        secret: { token },
      },
      clash: () => taken,
    }),
  );
}

export async function revokeToken(mutation: Mutation, name: string): Promise<Result<Answer>> {
  const { nowMs } = mutation;
  const reads = (d: DrizzleD1Database) => [db.selectByName(d, name)] as const;
  return mutate(mutation, reads, ([[token]]) => {
    if (!token) return fail({ kind: 'not-found', what: `operator token ${name}` });
    if (token.revokedMs !== null) {
      return fail({ kind: 'conflict', problem: `operator token ${name} is revoked already` });
    }
    return succeed({
      entry: {
        action: 'operator-token.revoke',
        target: name,
        detail: { role: token.role, start: token.digest.slice(0, 8) },
      },
      unchanged: db.notRevoked(token),
      statements: (d) => db.revokeStatements(d, token, nowMs),
      answer: {
        status: 200,
        body: { operator_token: describeToken({ ...token, revokedMs: nowMs }, nowMs) },
      },
    });
  });
}

export function describeToken(
  token: Omit<db.OperatorToken, 'id'>,
  nowMs: number,
): z.input<typeof tokenShape> {
  return {
    name: token.name,
    role: token.role,
    state: stateOf(token, nowMs),
    start: token.digest.slice(0, 8),
    created_at: isoTime(token.createdMs),
    expires_at: isoTime(token.expiresMs),
    revoked_at: isoTime(token.revokedMs),
  };
}

/** A row without an end is none of ours: it is taken for one that has ended. */
function stateOf(token: Omit<db.OperatorToken, 'id'>, nowMs: number): 'live' | 'expired' | 'revoked' {
  if (token.revokedMs !== null) return 'revoked';
  return nowMs < (token.expiresMs ?? 0) ? 'live' : 'expired';
}
