// What operators do with bouncers and their keys: create, rotate, revoke, delete. Each decides on what is there and
// leaves the writing to mutations.ts.

import type { DrizzleD1Database } from 'drizzle-orm/d1';
import * as db from '../db/bouncers.ts';
import {
  atRevision,
  isRevoked,
  neverRevoked,
  planStatements,
  selectHolds,
  type KeyVersion,
} from '../db/keys.ts';
import { askRotationStatements, bouncerSlot, selectOwner, type Owned } from '../db/hosts.ts';
import { fail, succeed, type Failure, type Result } from '../failure.ts';
import type { SeenClient } from '../feed/clients.ts';
import { mintSecret } from '../mint.ts';
import { digestOf } from '../secret.ts';
import type { NewKey } from './fields.ts';
import { checkRevision, mutate, mutationBy, type Answer, type Draft, type Mutation } from './mutations.ts';
import { describePolicy, policyColumns, type PolicyChange } from './policy.ts';
import { planFirstUse, planRotation, type Overlap } from './rotation.ts';
import { describeBouncer, isoTime } from './describe.ts';

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

export async function createBouncer(mutation: Mutation, name: string, key: NewKey): Promise<Result<Answer>> {
  const { nowMs } = mutation;
  const { digest, secret } = await registered(key);
  const expiresMs = key.expiresInMs === null ? null : nowMs + key.expiresInMs;
  const exists: Failure = { kind: 'conflict', field: 'name', problem: `bouncer ${name} exists` };
  const reads = (d: DrizzleD1Database) =>
    [db.selectBouncer(d, name), selectHolds(d, isRevoked(digest))] as const;
  return mutate(mutation, reads, ([[there], [revoked]]) => {
    // Of the two reasons not to write, the one that is not the digest's is the name's.
    if (there) return fail(exists);
    if (revoked?.holds) return fail(digestTaken);
    const bouncer = {
      id: 0,
      name,
      createdMs: nowMs,
      metricsJson: null,
      metricsMs: null,
      revision: 1,
      viewJson: null,
      allowJson: null,
      rateLimit: null,
      versionCount: 1,
      lapiName: null,
    };
    const version = { number: 1, digest, createdMs: nowMs, state: 'current' as const, expiresMs };
    const start = digest.slice(0, 8);
    return succeed({
      entry: { action: 'bouncer.create', target: name, detail: { start, expires_at: isoTime(expiresMs) } },
      unchanged: neverRevoked(digest),
      statements: (d) => db.insertStatements(d, name, digest, expiresMs, nowMs),
      answer: {
        status: 201,
        body: { bouncer: describeBouncer(bouncer, [fresh(version)], []) },
        ...(secret ? { secret } : {}),
      },
      clash: (column) => (column === 'bouncers.name' ? exists : digestTaken),
      ...(secret ? { news: { newKeyOf: name } } : {}),
    });
  });
}

export async function rotateKey(
  mutation: Mutation,
  name: string,
  key: NewKey,
  overlap: Overlap,
  clients: readonly SeenClient[],
): Promise<Result<Answer>> {
  const { nowMs } = mutation;
  const { digest, secret } = await registered(key);
  const expiresMs = key.expiresInMs === null ? null : nowMs + key.expiresInMs;
  const reads = (d: DrizzleD1Database) =>
    [...selectState(d, name), selectOwner(d, bouncerSlot(name)), selectHolds(d, isRevoked(digest))] as const;
  return mutate(mutation, reads, ([[found], versions, [owner], [revoked]]) => {
    const read = checkBouncer(mutation, name, found);
    if (!read.ok) return read;
    const bouncer = read.value;
    if (owner && key.digest === null)
      return askRotation({ bouncer, versions, owner, clients }, key, overlap, nowMs);
    // Its own unused version would be taken away for good, and registered anew, in one batch.
    const own = versions.some((version) => version.digest === digest);
    if (own || revoked?.holds) return fail(digestTaken);
    const plan = planRotation(versions, overlap, expiresMs, nowMs);
    const number = bouncer.versionCount + 1;
    const kept = versions.filter((version) => !plan.revoke.includes(version));
    const after = [...kept, fresh({ ...(plan.insert as NonNullable<typeof plan.insert>), number, digest })];
    return succeed({
      entry: {
        action: 'bouncer.rotate',
        target: name,
        detail: {
          number,
          start: digest.slice(0, 8),
          grace_seconds: overlap.graceMs / 1000,
          max_overlap_seconds: overlap.maxOverlapMs / 1000,
          revoked: plan.revoke.map((version) => version.number),
        },
      },
      unchanged: atRevision(bouncer),
      statements: (d) => planStatements(d, bouncer, plan, digest, nowMs),
      answer: {
        status: 200,
        body: { bouncer: describeBouncer({ ...bouncer, revision: bouncer.revision + 1 }, after, clients) },
        ...(secret ? { secret } : {}),
      },
      clash: () => digestTaken,
    });
  });
}

interface Hosted {
  readonly bouncer: db.Bouncer;
  readonly versions: readonly KeyVersion[];
  readonly owner: Owned;
  readonly clients: readonly SeenClient[];
}

/** Only its host can make a new key that stays there: it is asked to, and finds this out when it renews. */
function askRotation(
  { bouncer, versions, owner, clients }: Hosted,
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
  const asked = { ...owner, hostKey: { ...owner.hostKey, ...to } };
  const after = { ...bouncer, revision: bouncer.revision + 1 };
  return succeed({
    entry: {
      action: 'bouncer.ask-rotation',
      target: bouncer.name,
      detail: { host: owner.host, grace_seconds: graceMs / 1000, max_overlap_seconds: maxOverlapMs / 1000 },
    },
    unchanged: atRevision(bouncer),
    statements: (d) => askRotationStatements(d, bouncer.name, to),
    answer: { status: 202, body: { bouncer: describeBouncer(after, versions, clients, asked) } },
  });
}

export async function revokeVersion(
  mutation: Mutation,
  name: string,
  number: number,
): Promise<Result<Answer>> {
  const reads = (d: DrizzleD1Database) => selectState(d, name);
  return mutate(mutation, reads, ([[found], versions]) => {
    const read = checkBouncer(mutation, name, found);
    if (!read.ok) return read;
    const bouncer = read.value;
    const version = versions.find((candidate) => candidate.number === number);
    if (!version) return fail({ kind: 'not-found', what: `version ${number} of bouncer ${name}` });
    const plan = { revoke: [version], change: [] };
    const left = versions.filter((candidate) => candidate !== version);
    return succeed({
      entry: {
        action: 'bouncer.revoke',
        target: name,
        detail: { number, start: version.digest.slice(0, 8) },
      },
      unchanged: atRevision(bouncer),
      statements: (d) => planStatements(d, bouncer, plan, null, mutation.nowMs),
      answer: {
        status: 200,
        body: { bouncer: describeBouncer({ ...bouncer, revision: bouncer.revision + 1 }, left, []) },
      },
    });
  });
}

/** Changes what a bouncer's keys may do; what the change does not name stays. */
export async function changePolicy(
  mutation: Mutation,
  name: string,
  change: PolicyChange,
  clients: readonly SeenClient[],
): Promise<Result<Answer>> {
  const reads = (d: DrizzleD1Database) => selectState(d, name);
  return mutate(mutation, reads, ([[found], versions]) => {
    const read = checkBouncer(mutation, name, found);
    if (!read.ok) return read;
    const bouncer = read.value;
    const to = policyColumns(change);
    const after = { ...bouncer, ...to, revision: bouncer.revision + 1 };
    return succeed({
      entry: { action: 'bouncer.policy', target: name, detail: describePolicy(after) },
      unchanged: atRevision(bouncer),
      statements: (d) => db.policyStatements(d, bouncer, to),
      answer: { status: 200, body: { bouncer: describeBouncer(after, versions, clients) } },
    });
  });
}

export async function deleteBouncer(mutation: Mutation, name: string): Promise<Result<Answer>> {
  const reads = (d: DrizzleD1Database) => selectState(d, name);
  return mutate(mutation, reads, ([[found], versions]) => {
    const read = checkBouncer(mutation, name, found);
    if (!read.ok) return read;
    const bouncer = read.value;
    return succeed({
      entry: {
        action: 'bouncer.delete',
        target: name,
        detail: { revoked: versions.map(({ number }) => number) },
      },
      unchanged: atRevision(bouncer),
      statements: (d) => db.deleteStatements(d, bouncer, versions, mutation.nowMs),
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
  const mutation = mutationBy(env, `bouncer:${name}`, nowMs);
  const reads = (d: DrizzleD1Database) => selectState(d, name);
  await mutate(mutation, reads, ([[found], versions]) => {
    const read = checkBouncer(mutation, name, found);
    if (!read.ok) return read;
    const bouncer = read.value;
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

/** A bouncer and the versions of its key. */
function selectState(d: DrizzleD1Database, name: string) {
  return [db.selectBouncer(d, name), db.selectVersions(d, name)] as const;
}

function checkBouncer(mutation: Mutation, name: string, found: db.Bouncer | undefined): Result<db.Bouncer> {
  if (!found) return fail({ kind: 'not-found', what: `bouncer ${name}` });
  const seen = checkRevision(mutation, found.revision);
  return seen.ok ? succeed(found) : seen;
}

/** A version as it will be once it is written: enough to be described. */
function fresh(
  version: Partial<KeyVersion> & Pick<KeyVersion, 'number' | 'digest' | 'createdMs' | 'state'>,
): KeyVersion {
  return {
    id: 0,
    bouncerId: 0,
    firstUsedMs: null,
    expiresMs: null,
    deadlineMs: null,
    graceMs: null,
    maxOverlapMs: null,
    ...version,
  };
}
