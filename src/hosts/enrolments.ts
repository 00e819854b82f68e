// Enrolment tokens (`cse_…`), as operators make them. With one, an unknown host makes its SSH key trusted. Whoever gets a
// leaked token can enrol a host, so a token expires within a day, names its hosts and limits their number.

import type { DrizzleD1Database } from 'drizzle-orm/d1';
import * as z from 'zod';
import * as db from './enrolments.sql.ts';
import { always, type RowsOf } from '../store/audit.sql.ts';
import { badInput, conflict, fail, succeed, type Result } from '../http/failure.ts';
import { mintSecret } from '../crypto/mint.ts';
import { digestOf } from '../crypto/secret.ts';
import { isoTime, time, duration } from '../operations/fields.ts';
import { machineField } from './hosts.ts';
import { mutate, nothingRead } from '../operations/mutate.ts';
import type { Answer, Draft, Mutation, Shown } from '../operations/mutate.ts';

const patternMustBe = 'must be a name in which * stands for any text, like web-*';
const bouncerMustBe = 'must be a name in which {host} stands for the host’s';

export const newEnrolment = z.strictObject({
  hosts: z
    .string(patternMustBe)
    // At most three stars: a token is for hosts that one name describes.
    .regex(/^(?=[^*]*(\*[^*]*){0,3}$)[A-Za-z0-9*][A-Za-z0-9._@*-]{0,63}$/, patternMustBe)
    .meta({ description: 'The names of hosts that may use it; `*` is any text.', example: 'web-*' }),
  max_hosts: z
    .int('must be a whole number from 1 to 10000')
    .min(1, 'must be 1 to 10000')
    .max(10_000, 'must be 1 to 10000')
    .default(1),
  expires_in: duration(1000, 86_400_000).default(3_600_000),
  bouncer: z
    .string(bouncerMustBe)
    .regex(/^(?:[A-Za-z0-9]|\{host\})(?:[A-Za-z0-9._@-]|\{host\}){0,63}$/, bouncerMustBe)
    .default('{host}')
    .meta({ description: 'The name of a host’s bouncer; `{host}` is the host’s.' }),
  machine: machineField,
});

export const enrolmentShape = z
  .object({
    id: z.string(),
    hosts: z.string(),
    max_hosts: z.int(),
    bouncer: z.string(),
    machine: z.string().nullable(),
    state: z.enum(['live', 'expired', 'revoked']),
    digest_prefix: z.string().meta({ description: 'The first 8 hex digits of its SHA-512.' }),
    created_at: time,
    expires_at: time,
    used_by: z.array(z.object({ host: z.string(), fingerprint: z.string(), at: time })),
  })
  .meta({ id: 'Enrolment' });

export function nameOfBouncer(pattern: string, host: string): string {
  return pattern.replaceAll('{host}', host);
}

export function isLiveEnrolment(enrolment: db.Enrolment, nowMs: number): boolean {
  return enrolment.revokedMs === null && nowMs < enrolment.expiresMs;
}

export async function createEnrolment(
  mutation: Mutation,
  { hosts, max_hosts: maxHosts, expires_in: expiresInMs, bouncer, machine }: z.output<typeof newEnrolment>,
): Promise<Result<Answer>> {
  const { nowMs } = mutation;
  if (maxHosts > 1 && !bouncer.includes('{host}')) {
    return badInput('bouncer', 'must have {host} in it: a bouncer is one host’s');
  }
  const token = mintSecret('cse_');
  const digest = digestOf(token);
  const ref = crypto.randomUUID().slice(0, 8);
  const allowed = { hosts, bouncer, machineEngine: machine, maxHosts };
  const row = { ref, digest, ...allowed, createdMs: nowMs, expiresMs: nowMs + expiresInMs };
  const start = digest.slice(0, 8);
  const detail = { hosts, max_hosts: maxHosts, bouncer, machine, start, expires_at: isoTime(row.expiresMs) };
  const decide = (): Result<Draft> =>
    succeed({
      entry: { action: 'enrolment.create', target: ref, detail },
      unchanged: always,
      statements: (d) => db.insertStatements(d, row),
      answer: { status: 201, secret: { token } },
      clash: () => conflict('id', 'two enrolments got one id; try again'),
    });
  return mutate(mutation, nothingRead, decide, shownEnrolment(ref, nowMs));
}

/** An enrolment as a GET shows it. */
function shownEnrolment(ref: string, nowMs: number): Shown<db.EnrolmentFacts> {
  return {
    json: db.enrolmentJson(ref),
    describe: (facts) => ({ enrolment: describeEnrolment(facts, nowMs) }),
  };
}

export async function revokeEnrolment(mutation: Mutation, ref: string): Promise<Result<Answer>> {
  const { nowMs } = mutation;
  const reads = (d: DrizzleD1Database) => [db.selectFacts(d, ref)] as const;
  const decide = ([[found]]: RowsOf<ReturnType<typeof reads>>): Result<Draft> => {
    if (!found) return fail({ kind: 'not-found', what: `enrolment ${ref}` });
    const { enrolment, uses } = found.facts;
    if (enrolment.revokedMs !== null) return fail(conflict('id', `enrolment ${ref} is revoked already`));
    return succeed({
      entry: { action: 'enrolment.revoke', target: ref, detail: { used: uses.length } },
      unchanged: db.notRevoked(enrolment),
      statements: (d) => db.revokeStatements(d, enrolment, nowMs),
      answer: { status: 200 },
    });
  };
  return mutate(mutation, reads, decide, shownEnrolment(ref, nowMs));
}

export function describeEnrolment(
  { enrolment, uses }: db.EnrolmentFacts,
  nowMs: number,
): z.input<typeof enrolmentShape> {
  const { ref, hosts, maxHosts, bouncer, machineEngine, digest, createdMs, expiresMs, revokedMs } = enrolment;
  return {
    id: ref,
    hosts,
    max_hosts: maxHosts,
    bouncer,
    machine: machineEngine,
    state: revokedMs !== null ? 'revoked' : nowMs < expiresMs ? 'live' : 'expired',
    digest_prefix: digest.slice(0, 8),
    created_at: isoTime(createdMs),
    expires_at: isoTime(expiresMs),
    used_by: uses.map(({ host, fingerprint, atMs }) => ({ host, fingerprint, at: isoTime(atMs) })),
  };
}
