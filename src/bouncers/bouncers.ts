// Bouncers as operators see and change them: create, rotate, revoke, change the policy, delete. Each change decides on what
// is there and leaves the writing to operations/mutate.ts. No secret is in what is described.

import type { DrizzleD1Database } from 'drizzle-orm/d1';
import * as z from 'zod';
import type { AuditEntry, RowsOf } from '../store/audit.sql.ts';
import * as db from './bouncers.sql.ts';
import { atRevision, isRevoked, neverRevoked, planStatements } from './keys.sql.ts';
import { askRotationStatements } from './host-keys.sql.ts';
import { fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { mintSecret } from '../crypto/mint.ts';
import { digestOf } from '../crypto/secret.ts';
import { isoTime, time, type NewKey } from '../operations/fields.ts';
import {
  checkRevision,
  mutate,
  mutationBy,
  type Answer,
  type Draft,
  type Mutation,
  type Shown,
} from '../operations/mutate.ts';
import { describePolicy, policyColumns, policyShape, type PolicyChange } from './policy.ts';
import { endOf, planFirstUse, planRotation, type Overlap } from './versions.ts';
import type { KeyVersion } from '../store/schema.ts';
import type { SeenClient } from '../stream/clients.ts';
import { selectHolds } from '../store/facts.ts';

const versionShape = z.object({
  number: z.int().meta({ description: '1, 2, 3 … in a bouncer.' }),
  state: z.enum(['next', 'current', 'previous']).meta({
    description:
      '`next` was not used yet. Its first use makes it `current`, and the one before it `previous`.',
  }),
  digest_prefix: z.string().meta({ description: 'The first 8 hex digits of its SHA-512.' }),
  created_at: time,
  first_used: time.nullable(),
  last_used: time.nullable(),
  valid_until: time.nullable().meta({ description: 'When it is refused, to the millisecond. Null: never.' }),
});

/** A bouncer as operators read it. */
export const bouncerShape = z
  .object({
    name: z.string(),
    lapi_name: z.string().nullable().meta({ description: 'Its name in LAPI, if it was imported.' }),
    created_at: time,
    revision: z.int().meta({ description: 'Counts its changes; its ETag.' }),
    last_pull: time.nullable(),
    address: z.string().nullable().meta({ description: 'Of the client that was seen last.' }),
    type: z.string().nullable().meta({ description: 'The first half of the User-Agent, as in LAPI.' }),
    version: z.string().nullable(),
    ...policyShape,
    clients: z.array(z.object({ address: z.string(), last_pull: time.nullable() })).meta({
      description:
        'The addresses from which its keys are used, the newest first. Of more than 1,000 the oldest are left out.',
    }),
    key_versions: z.array(versionShape),
    host: z.string().optional().meta({ description: 'The host that registers its key.' }),
    rotation_asked_at: time.nullable().optional().meta({
      description: 'When its host was asked for a new key that it has not registered yet.',
    }),
  })
  .meta({ id: 'Bouncer' });

/** The two halves of a User-Agent, as LAPI takes it apart (middlewares/v1/api_key.go). */
export function typeAndVersion(userAgent: string): { readonly type: string; readonly version: string } {
  const [type = '', version, ...rest] = userAgent.split('/');
  const twoParts = version !== undefined && rest.length === 0;
  return twoParts ? { type, version } : { type: userAgent, version: 'N/A' };
}

/** A bouncer as operators read it. */
export function describeBouncer(
  { bouncer, versions, owner }: db.BouncerFacts,
  clients: readonly SeenClient[],
): z.input<typeof bouncerShape> {
  const newest = clients[0];
  return {
    name: bouncer.name,
    lapi_name: bouncer.lapiName,
    created_at: isoTime(bouncer.createdMs),
    revision: bouncer.revision,
    last_pull: isoTime(newest?.seenMs ?? null),
    address: newest?.address ?? null,
    ...(newest ? typeAndVersion(newest.userAgent) : { type: null, version: null }),
    ...describePolicy(bouncer),
    clients: clients.map(({ address, seenMs }) => ({ address, last_pull: isoTime(seenMs) })),
    key_versions: versions.map((each) => describeVersion(each, clients)),
    ...(owner ? { host: owner.host, rotation_asked_at: isoTime(owner.hostKey.rotationAskedMs) } : {}),
  };
}

function describeVersion(version: KeyVersion, clients: readonly SeenClient[]) {
  const endMs = endOf(version);
  return {
    number: version.number,
    state: version.state,
    digest_prefix: version.digest.slice(0, 8),
    created_at: isoTime(version.createdMs),
    first_used: isoTime(version.firstUsedMs),
    last_used: isoTime(lastUsed(version.id, clients)),
    valid_until: isoTime(Number.isFinite(endMs) ? endMs : null),
  };
}

/** When a version of a key was last used, by any of the bouncer's clients; null: never. */
export function lastUsed(versionId: number, clients: readonly SeenClient[]): number | null {
  return Math.max(0, ...clients.map((client) => client.versions[versionId] ?? 0)) || null;
}

/** A new key of a bouncer. */
export async function mintKey(): Promise<{ key: string; digest: string }> {
  const key = mintSecret('csb_');
  return { key, digest: digestOf(key) };
}

/** A key to register. `secret`: the key itself, if it is made here. */
async function keyFor({ digest, expiresInMs }: NewKey, nowMs: number) {
  const expiresMs = expiresInMs === null ? null : nowMs + expiresInMs;
  if (digest !== null) return { digest, expiresMs };
  const made = await mintKey();
  return { digest: made.digest, expiresMs, secret: { key: made.key } };
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
  const { digest, expiresMs, secret } = await keyFor(key, nowMs);
  const exists: Failure = { kind: 'conflict', field: 'name', problem: `bouncer ${name} exists` };
  const reads = (d: DrizzleD1Database) =>
    [db.selectBouncer(d, name), selectHolds(d, isRevoked(digest))] as const;
  const decide = ([[there], [revoked]]: RowsOf<ReturnType<typeof reads>>): Result<Draft> => {
    // Where both are taken the name is reported: it says nothing about the key.
    if (there) return fail(exists);
    if (revoked?.holds) return fail(digestTaken);
    const detail = { start: digest.slice(0, 8), expires_at: isoTime(expiresMs) };
    return succeed({
      entry: { action: 'bouncer.create', target: name, detail },
      unchanged: neverRevoked(digest),
      statements: (d) => db.insertStatements(d, [{ name, digest, expiresMs }], nowMs),
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
  const { digest, expiresMs, secret } = await keyFor(key, nowMs);
  const decide = ({ bouncer, versions, owner }: db.BouncerFacts, wasRevoked: boolean): Result<Change> => {
    if (owner && key.digest === null) return succeed(askRotation(name, owner.host, key, overlap, nowMs));
    // Its own unused version would be revoked and registered anew in one batch.
    const isOwn = versions.some((version) => version.digest === digest);
    if (isOwn || wasRevoked) return fail(digestTaken);
    const plan = planRotation(versions, overlap, expiresMs, nowMs);
    return succeed({
      action: 'bouncer.rotate',
      detail: {
        number: bouncer.versionCount + 1,
        start: digest.slice(0, 8),
        grace_seconds: overlap.graceMs / 1000,
        max_overlap_seconds: overlap.maxOverlapMs / 1000,
        revoked: plan.revoke.map((version) => version.number),
      },
      statements: (d) => planStatements(d, [{ bouncer, plan, digest }], nowMs),
      answer: { status: 200, ...(secret ? { secret } : {}) },
      clash: () => digestTaken,
    });
  };
  return changeBouncer(mutation, name, decide, digest);
}

/** Only its host can make a key that stays on the host. It is asked to, and learns of it when it renews. */
function askRotation(
  name: string,
  host: string,
  { expiresInMs }: NewKey,
  { graceMs, maxOverlapMs }: Overlap,
  nowMs: number,
): Change {
  const lifeMs = expiresInMs === null ? {} : { lifeMs: expiresInMs };
  const to = { rotationAskedMs: nowMs, graceMs, maxOverlapMs, ...lifeMs };
  return {
    action: 'bouncer.ask-rotation',
    detail: { host, grace_seconds: graceMs / 1000, max_overlap_seconds: maxOverlapMs / 1000 },
    statements: (d) => askRotationStatements(d, name, to),
    answer: { status: 202 },
  };
}

export async function revokeVersion(
  mutation: Mutation,
  name: string,
  number: number,
): Promise<Result<Answer>> {
  return changeBouncer(mutation, name, ({ bouncer, versions }) => {
    const version = versions.find((candidate) => candidate.number === number);
    if (!version) return fail({ kind: 'not-found', what: `version ${number} of bouncer ${name}` });
    const plan = { revoke: [version], change: [] };
    return succeed({
      action: 'bouncer.revoke',
      detail: { number, start: version.digest.slice(0, 8) },
      statements: (d) => planStatements(d, [{ bouncer, plan, digest: null }], mutation.nowMs),
    });
  });
}

/** Changes what a bouncer's keys may do. What the change does not name stays. */
export async function changePolicy(
  mutation: Mutation,
  name: string,
  policy: PolicyChange,
): Promise<Result<Answer>> {
  return changeBouncer(mutation, name, ({ bouncer }) => {
    const to = policyColumns(policy, bouncer, mutation.nowMs);
    return succeed({
      action: actionOf(policy),
      detail: describePolicy({ ...bouncer, ...to }),
      statements: (d) => db.policyStatements(d, bouncer, to),
    });
  });
}

function actionOf({ paused }: PolicyChange): string {
  if (paused === undefined) return 'bouncer.policy';
  return paused ? 'bouncer.pause' : 'bouncer.resume';
}

export async function deleteBouncer(mutation: Mutation, name: string): Promise<Result<Answer>> {
  return changeBouncer(mutation, name, ({ bouncer, versions }) =>
    succeed({
      action: 'bouncer.delete',
      detail: { revoked: versions.map(({ number }) => number) },
      statements: (d) => db.deleteStatements(d, bouncer, mutation.nowMs),
      answer: { status: 204, body: {} },
      news: { gone: bouncer.id },
    }),
  );
}

/**
 * A `next` version was used: it becomes `current`, and the old one's grace begins. Many polls may report it at once. The
 * first one writes it; the others find nothing left to do.
 */
export async function noteFirstUse(env: Env, used: KeyVersion, name: string, nowMs: number): Promise<void> {
  await changeBouncer(mutationBy(env, `bouncer:${name}`, nowMs), name, ({ bouncer, versions }) => {
    const version = versions.find(({ id, state }) => id === used.id && state === 'next');
    if (!version) return fail({ kind: 'not-found', what: 'an unused version' });
    const plan = planFirstUse(versions, version, nowMs);
    const previous = plan.change.find(({ to }) => to.state === 'previous');
    return succeed({
      action: 'bouncer.first-use',
      detail: {
        number: version.number,
        previous: previous?.version.number,
        ends_at: previous && isoTime(previous.to.deadlineMs ?? null),
      },
      statements: (d) => planStatements(d, [{ bouncer, plan, digest: null }], nowMs),
      answer: { status: 200, body: {} },
      news: {},
    });
  });
}

/** What differs between the changes of a bouncer. Without an `answer` the bouncer is shown. */
type Change = Pick<AuditEntry, 'action' | 'detail'> &
  Pick<Draft, 'statements' | 'clash'> &
  Partial<Pick<Draft, 'answer' | 'news'>>;

/** Changes a bouncer that exists. `digest`: of a key to register; whether it was revoked is read along. */
function changeBouncer(
  mutation: Mutation,
  name: string,
  decide: (facts: db.BouncerFacts, wasRevoked: boolean) => Result<Change>,
  digest = '',
): Promise<Result<Answer>> {
  const reads = (d: DrizzleD1Database) =>
    [db.selectFacts(d, name), selectHolds(d, isRevoked(digest))] as const;
  const decideOn = ([[found], [revoked]]: RowsOf<ReturnType<typeof reads>>): Result<Draft> => {
    if (!found) return fail({ kind: 'not-found', what: `bouncer ${name}` });
    const { bouncer } = found.facts;
    const seen = checkRevision(mutation, bouncer.revision);
    if (!seen.ok) return seen;
    const change = decide(found.facts, revoked?.holds === 1);
    if (!change.ok) return change;
    const { action, detail, ...rest } = change.value;
    return succeed({
      entry: { action, target: name, detail },
      unchanged: atRevision(bouncer),
      answer: { status: 200 },
      news: { clientsOf: [bouncer.id] },
      ...rest,
    });
  };
  return mutate(mutation, reads, decideOn, shownBouncer(name));
}
