// What operators do with bouncers and their keys: create, rotate, revoke, delete. Each decides on what is there and
// leaves the writing to mutations.ts.

import type { DrizzleD1Database } from 'drizzle-orm/d1';
import type { RowsOf } from '../store/audit.sql.ts';
import * as db from './bouncers.sql.ts';
import { atRevision, isRevoked, neverRevoked, planStatements } from './keys.sql.ts';
import { askRotationStatements } from './host-keys.sql.ts';
import { fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { mintSecret } from '../crypto/mint.ts';
import { digestOf } from '../crypto/secret.ts';
import { type NewKey, isoTime } from '../operations/fields.ts';
import {
  checkRevision,
  mutate,
  mutationBy,
  type Answer,
  type Draft,
  type Mutation,
  type Shown,
} from '../operations/mutate.ts';
import { describePolicy, policyColumns, type PolicyChange } from './policy.ts';
import { planFirstUse, planRotation, type Overlap } from './versions.ts';
import { describeBouncer } from './describe.ts';
import type { KeyVersion } from '../store/schema.ts';
import { selectHolds } from '../store/facts.ts';

/** A key to register: the digest, and the key itself when it was made here. */
async function registered({ digest }: NewKey): Promise<{ digest: string; secret?: { key: string } }> {
  if (digest !== null) return { digest };
  const key = mintSecret('csb_');
  return { digest: await digestOf(key), secret: { key } };
}

export const digestTaken: Failure = {
  kind: 'conflict',
  field: 'key_sha512',
  problem: 'this key is or was registered already',
};

/** A bouncer as a GET shows it. */
function shownBouncer(name: string): Shown<db.BouncerFacts> {
  return {
    json: db.bouncerJson(name),
    describe: (facts, clientsOf) => ({ bouncer: describeBouncer(facts, clientsOf(facts.bouncer.id)) }),
    bouncersIn: ({ bouncer }) => [bouncer.id],
  };
}

export async function createBouncer(mutation: Mutation, name: string, key: NewKey): Promise<Result<Answer>> {
  const { nowMs } = mutation;
  const { digest, secret } = await registered(key);
  const expiresMs = key.expiresInMs === null ? null : nowMs + key.expiresInMs;
  const exists: Failure = { kind: 'conflict', field: 'name', problem: `bouncer ${name} exists` };
  const reads = (d: DrizzleD1Database) =>
    [db.selectBouncer(d, name), selectHolds(d, isRevoked(digest))] as const;
  const decide = ([[there], [revoked]]: RowsOf<ReturnType<typeof reads>>): Result<Draft> => {
    // Of the two reasons not to write, the one that is not the digest's is the name's.
    if (there) return fail(exists);
    if (revoked?.holds) return fail(digestTaken);
    const start = digest.slice(0, 8);
    return succeed({
      entry: { action: 'bouncer.create', target: name, detail: { start, expires_at: isoTime(expiresMs) } },
      unchanged: neverRevoked(digest),
      statements: (d) => db.insertStatements(d, name, digest, expiresMs, nowMs),
      answer: { status: 201, ...(secret ? { secret } : {}) },
      clash: (column) => (column === 'bouncers.name' ? exists : digestTaken),
      ...(secret ? { news: { newKeyOf: name } } : {}),
    });
  };
  return mutate(mutation, reads, decide, shownBouncer(name));
}

export async function rotateKey(
  mutation: Mutation,
  name: string,
  key: NewKey,
  overlap: Overlap,
): Promise<Result<Answer>> {
  const { nowMs } = mutation;
  const { digest, secret } = await registered(key);
  const expiresMs = key.expiresInMs === null ? null : nowMs + key.expiresInMs;
  const reads = (d: DrizzleD1Database) =>
    [db.selectFacts(d, name), selectHolds(d, isRevoked(digest))] as const;
  const decide = ([[found], [revoked]]: RowsOf<ReturnType<typeof reads>>): Result<Draft> => {
    const read = checkBouncer(mutation, name, found);
    if (!read.ok) return read;
    const { bouncer, versions, owner } = read.value;
    if (owner && key.digest === null) return askRotation(bouncer, owner.host, key, overlap, nowMs);
    // Its own unused version would be taken away for good, and registered anew, in one batch.
    const own = versions.some((version) => version.digest === digest);
    if (own || revoked?.holds) return fail(digestTaken);
    const plan = planRotation(versions, overlap, expiresMs, nowMs);
    return succeed({
      entry: {
        action: 'bouncer.rotate',
        target: name,
        detail: {
          number: bouncer.versionCount + 1,
          start: digest.slice(0, 8),
          grace_seconds: overlap.graceMs / 1000,
          max_overlap_seconds: overlap.maxOverlapMs / 1000,
          revoked: plan.revoke.map((version) => version.number),
        },
      },
      unchanged: atRevision(bouncer),
      statements: (d) => planStatements(d, bouncer, plan, digest, nowMs),
      answer: { status: 200, ...(secret ? { secret } : {}) },
      clash: () => digestTaken,
      news: { clientsOf: [bouncer.id] },
    });
  };
  return mutate(mutation, reads, decide, shownBouncer(name));
}

/** Only its host can make a new key that stays there: it is asked to, and finds this out when it renews. */
function askRotation(
  bouncer: db.BouncerFacts['bouncer'],
  host: string,
  { expiresInMs }: NewKey,
  { graceMs, maxOverlapMs }: Overlap,
  nowMs: number,
): Result<Draft> {
  const to = {
    rotationAskedMs: nowMs,
    graceMs,
    maxOverlapMs,
    ...(expiresInMs === null ? {} : { lifeMs: expiresInMs }),
  };
  return succeed({
    entry: {
      action: 'bouncer.ask-rotation',
      target: bouncer.name,
      detail: { host, grace_seconds: graceMs / 1000, max_overlap_seconds: maxOverlapMs / 1000 },
    },
    unchanged: atRevision(bouncer),
    statements: (d) => askRotationStatements(d, bouncer.name, to),
    answer: { status: 202 },
    news: { clientsOf: [bouncer.id] },
  });
}

export async function revokeVersion(
  mutation: Mutation,
  name: string,
  number: number,
): Promise<Result<Answer>> {
  return change(mutation, name, ({ bouncer, versions }) => {
    const version = versions.find((candidate) => candidate.number === number);
    if (!version) return fail({ kind: 'not-found', what: `version ${number} of bouncer ${name}` });
    const plan = { revoke: [version], change: [] };
    return succeed({
      entry: {
        action: 'bouncer.revoke',
        target: name,
        detail: { number, start: version.digest.slice(0, 8) },
      },
      unchanged: atRevision(bouncer),
      statements: (d) => planStatements(d, bouncer, plan, null, mutation.nowMs),
      answer: { status: 200 },
      news: { clientsOf: [bouncer.id] },
    });
  });
}

/** Changes what a bouncer's keys may do; what the change does not name stays. */
export async function changePolicy(
  mutation: Mutation,
  name: string,
  policy: PolicyChange,
): Promise<Result<Answer>> {
  return change(mutation, name, ({ bouncer }) => {
    const to = policyColumns(policy);
    return succeed({
      entry: { action: 'bouncer.policy', target: name, detail: describePolicy({ ...bouncer, ...to }) },
      unchanged: atRevision(bouncer),
      statements: (d) => db.policyStatements(d, bouncer, to),
      answer: { status: 200 },
      news: { clientsOf: [bouncer.id] },
    });
  });
}

export async function deleteBouncer(mutation: Mutation, name: string): Promise<Result<Answer>> {
  return change(mutation, name, (facts) => {
    const { bouncer, versions } = facts;
    return succeed({
      entry: {
        action: 'bouncer.delete',
        target: name,
        detail: { revoked: versions.map(({ number }) => number) },
      },
      unchanged: atRevision(bouncer),
      statements: (d) => db.deleteStatements(d, facts, mutation.nowMs),
      answer: { status: 204, body: {} },
      news: { gone: bouncer.id },
    });
  });
}

/**
 * A `next` version was used: it becomes `current` and the old one's grace begins. Many polls may find out at
 * once; the first to write decides, the others see that nothing is left to do.
 */
export async function noteFirstUse(env: Env, used: KeyVersion, name: string, nowMs: number): Promise<void> {
  await change(mutationBy(env, `bouncer:${name}`, nowMs), name, ({ bouncer, versions }) => {
    const version = versions.find(({ id, state }) => id === used.id && state === 'next');
    if (!version) return fail({ kind: 'not-found', what: 'an unused version' });
    const plan = planFirstUse(versions, version, nowMs);
    const previous = plan.change.find(({ to }) => to.state === 'previous');
    return succeed({
      entry: {
        action: 'bouncer.first-use',
        target: name,
        detail: {
          number: version.number,
          previous: previous?.version.number,
          ends_at: previous && isoTime(previous.to.deadlineMs ?? null),
        },
      },
      unchanged: atRevision(bouncer),
      statements: (d) => planStatements(d, bouncer, plan, null, nowMs),
      answer: { status: 200, body: {} },
    });
  });
}

/** Changes a bouncer that is there. */
function change(
  mutation: Mutation,
  name: string,
  decide: (facts: db.BouncerFacts) => Result<Draft>,
): Promise<Result<Answer>> {
  const reads = (d: DrizzleD1Database) => [db.selectFacts(d, name)] as const;
  const decideOn = ([[found]]: RowsOf<ReturnType<typeof reads>>): Result<Draft> => {
    const read = checkBouncer(mutation, name, found);
    return read.ok ? decide(read.value) : read;
  };
  return mutate(mutation, reads, decideOn, shownBouncer(name));
}

function checkBouncer(
  mutation: Mutation,
  name: string,
  found: { readonly facts: db.BouncerFacts } | undefined,
): Result<db.BouncerFacts> {
  if (!found) return fail({ kind: 'not-found', what: `bouncer ${name}` });
  const seen = checkRevision(mutation, found.facts.bouncer.revision);
  return seen.ok ? succeed(found.facts) : seen;
}
