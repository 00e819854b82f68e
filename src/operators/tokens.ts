// Tokens of ours for operators (`cso_…`): made, listed, revoked, and from token to operator. Every one has an end
// and a name that is not given again while the audit log speaks of it.

import type { DrizzleD1Database } from 'drizzle-orm/d1';
import * as z from 'zod';
import { always, type RowsOf } from '../store/audit.sql.ts';
import * as db from './tokens.sql.ts';
import { causeOf, fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { isMinted, mintSecret } from '../crypto/mint.ts';
import { roles } from '../config/roles.ts';
import { digestOf } from '../crypto/secret.ts';
import { createAsking } from '../store/asking.ts';
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
import { createRefusals, noteStranger, waitAsStranger } from '../http/strangers.ts';

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

export { listTokens } from './tokens.sql.ts';

export function looksLikeToken(text: string): boolean {
  return /^cso_[0-9A-Za-z]{49}$/.test(text);
}

const refusals = createRefusals();

const ask = createAsking<D1Database, db.OperatorToken | null>(
  async (d1, digests) => {
    const nowMs = Date.now();
    const found = new Map<string, db.OperatorToken | null>(digests.map((digest) => [digest, null]));
    for (const token of await db.findByDigests(d1, digests)) found.set(token.digest, token);
    for (const [digest, token] of found) if (!token) refusals.note(digest, nowMs);
    return found;
  },
  (error) => console.error(`the key store is out of reach: ${causeOf(error).message}`),
);

/**
 * Asks D1 at every use of one that may be good: operators are few, and a revoked token is refused from the next request
 * on, everywhere. `unavailable` when D1 is out of reach. `address`: where it came from.
 */
export async function authenticateToken(
  d1: D1Database,
  token: string,
  address: string,
  nowMs: number,
): Promise<Result<Identity>> {
  const notValid: Failure = { kind: 'unauthorised', problem: 'this operator token is not valid' };
  if (!isMinted(token)) return fail(notValid);
  const digest = await digestOf(token);
  if (refusals.has(digest, nowMs)) return fail(notValid);
  await waitAsStranger(address, nowMs);
  let found: db.OperatorToken | null;
  try {
    found = await ask(d1, digest);
  } catch {
    return fail({ kind: 'unavailable', problem: 'operator tokens can not be checked now; try again' });
  }
  if (!found) {
    noteStranger(address, nowMs);
    return fail(notValid);
  }
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
  const taken: Failure = {
    kind: 'conflict',
    field: 'name',
    problem: `there is or was an operator token ${name}`,
  };
  const decide = (): Result<Draft> =>
    succeed({
      entry: {
        action: 'operator-token.create',
        target: name,
        detail: { role, start: row.digest.slice(0, 8), expires_at: isoTime(row.expiresMs) },
      },
      unchanged: always,
      statements: (d) => db.insertStatements(d, row),
      answer: { status: 201, secret: { token } },
      clash: () => taken,
    });
  return mutate(mutation, nothingRead, decide, shownToken(name, nowMs));
}

/** A token as a GET shows it. */
function shownToken(name: string, nowMs: number): Shown<db.OperatorToken> {
  return {
    json: db.tokenJson(name),
    describe: (token) => ({ operator_token: describeToken(token, nowMs) }),
  };
}

export async function revokeToken(mutation: Mutation, name: string): Promise<Result<Answer>> {
  const { nowMs } = mutation;
  const reads = (d: DrizzleD1Database) => [db.selectByName(d, name)] as const;
  const decide = ([[token]]: RowsOf<ReturnType<typeof reads>>): Result<Draft> => {
    if (!token) return fail({ kind: 'not-found', what: `operator token ${name}` });
    if (token.revokedMs !== null) {
      return fail({ kind: 'conflict', field: 'name', problem: `operator token ${name} is revoked already` });
    }
    return succeed({
      entry: {
        action: 'operator-token.revoke',
        target: name,
        detail: { role: token.role, start: token.digest.slice(0, 8) },
      },
      unchanged: db.notRevoked(token),
      statements: (d) => db.revokeStatements(d, token, nowMs),
      answer: { status: 200 },
    });
  };
  return mutate(mutation, reads, decide, shownToken(name, nowMs));
}

export function describeToken(token: db.OperatorToken, nowMs: number): z.input<typeof tokenShape> {
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
function stateOf(token: db.OperatorToken, nowMs: number): 'live' | 'expired' | 'revoked' {
  if (token.revokedMs !== null) return 'revoked';
  return nowMs < (token.expiresMs ?? 0) ? 'live' : 'expired';
}
