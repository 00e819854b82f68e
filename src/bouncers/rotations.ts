// Rotations of many bouncers at once: which ones, when each is due, and how far they have come. All keys are made in one
// call and shown in its answer, so that no secret is kept. What is staggered is when the old keys expire. The rules of a
// single key are in versions.ts.

import type { DrizzleD1Database } from 'drizzle-orm/d1';
import * as z from 'zod';
import { askD1 } from '../store/ask.ts';
import type { RowsOf } from '../store/audit.sql.ts';
import type { BouncerFacts } from './bouncers.sql.ts';
import * as db from './rotations.sql.ts';
import { isRevoked, versionsOf } from './keys.sql.ts';
import { askFeed } from '../feed/client.ts';
import { badInput, fail, succeed, type Failure, type Result } from '../http/failure.ts';
import type { SeenClient } from '../stream/clients.ts';
import { lastUsed, mintKey } from './bouncers.ts';
import { selectHolds } from '../store/facts.ts';
import { digest, duration, longestMs, isoTime, time } from '../operations/fields.ts';
import { glob, matchesGlob } from '../formats/glob.ts';
import {
  clientsById,
  mutate,
  type Answer,
  type ClientsOf,
  type Mutation,
  type Shown,
} from '../operations/mutate.ts';
import {
  isLive,
  longestOverlapMs,
  overlapFields,
  overlapOf,
  planRotation,
  type VersionPlan,
} from './versions.ts';
import type { KeyVersion } from '../store/schema.ts';

const mostRotated = 1000;

const selectorMustBe = 'must be an object with names, older_than or both';

export const newRotation = z.strictObject({
  selector: z
    .strictObject(
      {
        names: z
          .array(glob, 'must be a list of 1 to 100 names or patterns')
          .min(1, 'must be a list of 1 to 100 names or patterns')
          .max(100, 'must be a list of 1 to 100 names or patterns')
          .optional(),
        older_than: duration(0, longestMs)
          .optional()
          .meta({ description: 'Only bouncers whose newest key was made this long ago.', example: '90d' }),
      },
      selectorMustBe,
    )
    .refine((selector) => Object.values(selector).some((part) => part !== undefined), selectorMustBe)
    .meta({
      minProperties: 1,
      description: 'Which bouncers: those that fit all that is given. `{"names":["*"]}` is all.',
    }),
  ...overlapFields,
  spread: duration(0, longestOverlapMs).default(0).meta({
    description: 'Over how long they are spread. Each has its own due time.',
    example: '1h',
  }),
  expires_in: duration(1000, longestMs).optional(),
  keys_sha512: z
    .record(z.string(), digest)
    .optional()
    .meta({ description: 'Digests of keys that you made, by bouncer. The other keys are made here.' }),
  dry_run: z
    .boolean('must be true or false')
    .default(false)
    .meta({ description: 'Only say which bouncers would be rotated.' }),
});

const memberStates = ['waiting', 'grace', 'done', 'lapsed', 'replaced', 'gone'] as const;

export const memberShape = z.object({
  name: z.string(),
  number: z.int().meta({ description: 'The version that the rotation makes.' }),
  due_at: time.meta({ description: 'When the bouncer is to have its new key.' }),
  state: z.enum(memberStates).meta({
    description:
      '`waiting`: still on the old version. `grace`: on the new one, the old one is still valid. `done`: only the new ' +
      'one is valid. `lapsed`: the new one expired unused. `replaced`: the new version was revoked, or another one ' +
      'took its place. `gone`: the bouncer was deleted.',
  }),
  new_first_used: time.nullable(),
  old_last_used: time.nullable(),
});

/** So many of those that pull less often than the grace are named. */
const mostNamed = 100;

export const slowShape = z
  .object({
    count: z.int().meta({ description: 'How many.' }),
    bouncers: z
      .array(z.object({ name: z.string(), interval_seconds: z.int() }))
      .meta({ description: `Those that pull least often: ${mostNamed} at most.` }),
  })
  .meta({
    description:
      'Bouncers on the old key, or on both, between whose pulls more time was seen than the grace has. Where several ' +
      'devices share such a key, one may find its old key expired before it has the new one.',
  });

export const rotationShape = z
  .object({
    id: z.int().nullable().meta({ description: 'Null for a dry run.' }),
    created_at: time,
    actor: z.string(),
    selector: z.object({ names: z.array(z.string()).optional(), older_than_seconds: z.number().optional() }),
    grace_seconds: z.number(),
    max_overlap_seconds: z.number(),
    spread_seconds: z.number(),
    bouncers: z.int().meta({ description: 'How many it rotates.' }),
  })
  .meta({ id: 'Rotation' });

type Rotation = z.input<typeof rotationShape>;
type Member = z.input<typeof memberShape>;
type Slow = z.input<typeof slowShape>;

/** When each of `count` bouncers is due: the first now, the others evenly after it. */
export function dueTimes(count: number, spreadMs: number, nowMs: number): number[] {
  return Array.from({ length: count }, (_, index) => nowMs + Math.floor((spreadMs * index) / count));
}

const digestTaken: Failure = {
  kind: 'conflict',
  field: 'keys_sha512',
  problem: 'one of these keys is or was registered already',
};

/**
 * Rotates, or with `dry_run` only says what would be done. 400 where no bouncer fits, or too many do. The answer follows
 * from what was read: the batch checks that no bouncer has changed since, so nothing is read back.
 */
export async function rotateMany(
  mutation: Mutation,
  input: z.output<typeof newRotation>,
): Promise<Result<Answer>> {
  const { nowMs, actor, env } = mutation;
  const { selector, keys_sha512: given = {} } = input;
  const overlap = overlapOf(input);
  const expiresMs = input.expires_in === undefined ? null : nowMs + input.expires_in;
  /** By bouncer. A decision that is taken again uses the same keys. */
  const minted = new Map<string, { readonly key: string; readonly digest: string }>();
  const prefixes = (selector.names ?? ['*']).map((pattern) => pattern.split('*', 1)[0] ?? '');
  const reads = (d: DrizzleD1Database) =>
    [
      db.selectCandidates(d, prefixes, ''),
      selectHolds(d, isRevoked(...Object.values(given))),
      db.selectNewestId(d),
    ] as const;

  const choose = async (first: RowsOf<ReturnType<typeof reads>>[0]): Promise<Result<BouncerFacts[]>> => {
    const chosen: BouncerFacts[] = [];
    for (let page = first; ;) {
      chosen.push(...page.map(({ facts }) => facts).filter((facts) => isChosen(selector, facts, nowMs)));
      if (chosen.length > mostRotated) {
        return badInput('selector', `fits more than ${mostRotated} bouncers: rotate them in several calls`);
      }
      const after = db.nextCandidate(page);
      if (after === null) break;
      page = await askD1(env.DB, (d) => db.selectCandidates(d, prefixes, after));
    }
    if (chosen.length === 0) return badInput('selector', 'fits no bouncer');
    chosen.sort(({ bouncer }, { bouncer: other }) => bouncer.id - other.id);
    const names = new Set(chosen.map(({ bouncer }) => bouncer.name));
    const stranger = Object.keys(given).find((name) => !names.has(name));
    if (stranger === undefined) return succeed(chosen);
    return badInput(`keys_sha512.${stranger}`, 'is no bouncer that the selector fits');
  };

  const memberOf = async (
    { bouncer, versions, owner }: BouncerFacts,
    dueMs: number,
  ): Promise<db.RotationMember> => {
    const { name } = bouncer;
    if (owner && given[name] === undefined) return { bouncer, versions, made: null, dueMs };
    if (given[name] === undefined && !minted.has(name)) minted.set(name, await mintKey());
    const digest = given[name] ?? (minted.get(name)?.digest as string);
    const plan = planRotation(versions, overlap, expiresMs, nowMs, dueMs);
    return { bouncer, versions, made: { plan, digest }, dueMs };
  };

  const decide = async ([first, [revoked], [newest]]: RowsOf<ReturnType<typeof reads>>) => {
    const chosen = await choose(first);
    if (!chosen.ok) return chosen;
    const due = dueTimes(chosen.value.length, input.spread, nowMs);
    const members = await Promise.all(chosen.value.map((facts, at) => memberOf(facts, due[at] as number)));
    const isOwn = ({ versions, made }: db.RotationMember) =>
      versions.some(({ digest }) => digest === made?.digest);
    if (revoked?.holds || members.some(isOwn)) return fail(digestTaken);
    const rotation = {
      id: (newest?.id ?? 0) + 1,
      createdMs: nowMs,
      actor,
      selectorJson: JSON.stringify({
        ...(selector.names ? { names: selector.names } : {}),
        ...(selector.older_than === undefined ? {} : { older_than_seconds: selector.older_than / 1000 }),
      }),
      graceMs: overlap.graceMs,
      maxOverlapMs: overlap.maxOverlapMs,
      spreadMs: input.spread,
    };
    const ids = members.map(({ bouncer }) => bouncer.id);
    const keys = [...minted].map(([name, { key }]) => [name, key]);
    return succeed({
      entry: {
        action: 'rotation.create',
        target: `rotation ${rotation.id}`,
        detail: {
          ...describeRotation(rotation, members.length),
          bouncers: members.map(({ bouncer: { name, versionCount }, made }) => {
            return { name, number: versionCount + 1, start: made?.digest.slice(0, 8) ?? null };
          }),
        },
      },
      unchanged: db.isNextId(rotation.id),
      statements: (d: DrizzleD1Database) =>
        db.rotationStatements(d, rotation, members, input.expires_in ?? null, nowMs),
      answer: {
        status: 201,
        body: { facts: { rotation, members: members.map(factsAfter) } },
        ...(keys.length > 0 ? { secret: { keys: Object.fromEntries(keys) as object } } : {}),
      },
      clash: () => digestTaken,
      news: { clientsOf: ids, changed: ids },
    });
  };

  const shown: Shown<RotationFacts> = {
    json: null,
    describe: (facts, clientsOf) => ({ ...describeAll(facts, clientsOf, nowMs) }),
    bouncersIn: ({ members }) => members.map(({ bouncerId }) => bouncerId),
  };
  if (!input.dry_run) return mutate(mutation, reads, decide, shown);
  const draft = await decide(await askD1(env.DB, (d) => d.batch(reads(d))));
  if (!draft.ok) return draft;
  const { facts } = draft.value.answer.body;
  const ids = facts.members.map(({ bouncerId }) => bouncerId);
  const clientsOf = clientsById(ids, await askFeed(env, async (feed) => feed.clientsOf(ids)));
  const { rotation, ...described } = describeAll(facts, clientsOf, nowMs);
  return succeed({ status: 200, body: { rotation: { ...rotation, id: null }, ...described } });
}

/** A bouncer as its rotation leaves it. The id of the new version comes from D1. */
function factsAfter({ bouncer, versions, made, dueMs }: db.RotationMember): MemberFacts {
  const { id: bouncerId, name, versionCount } = bouncer;
  const number = versionCount + 1;
  const { revoke, change, insert }: VersionPlan = made?.plan ?? { revoke: [], change: [] };
  const left: VersionFacts[] = versions
    .filter((version) => !revoke.includes(version))
    .map((version) => ({ ...version, ...change.find((each) => each.version === version)?.to }));
  if (insert) left.push({ ...insert, id: 0, number });
  // No more than is shown: it is kept for a repeated request.
  const shown = left.map(({ id, number, state, firstUsedMs, expiresMs, deadlineMs }) => {
    return { id, number, state, firstUsedMs, expiresMs, deadlineMs };
  });
  return { bouncerId, name, number, dueMs, versionCount: made ? number : versionCount, versions: shown };
}

function isChosen(
  selector: z.output<typeof newRotation>['selector'],
  { bouncer, versions }: BouncerFacts,
  nowMs: number,
): boolean {
  const newestMs = versions.at(-1)?.createdMs ?? -Infinity;
  if (selector.older_than !== undefined && nowMs - newestMs < selector.older_than) return false;
  return selector.names?.some((pattern) => matchesGlob(pattern, bouncer.name)) ?? true;
}

export async function listRotations(
  d1: D1Database,
  beforeId: number | null,
  limit: number,
): Promise<Rotation[]> {
  const rows = await db.listRotations(d1, beforeId, limit);
  return rows.map(({ rotation, bouncers }) => describeRotation(rotation, bouncers));
}

/** What is shown of a version. */
type VersionFacts = Pick<KeyVersion, 'id' | 'number' | 'state' | 'firstUsedMs' | 'expiresMs' | 'deadlineMs'>;

/** A bouncer of a rotation. `versionCount`: null where it was deleted. `versions`: as they are, in their order. */
type MemberFacts = Omit<db.MemberRow, 'rotationId'> & {
  readonly versionCount: number | null;
  readonly versions: readonly VersionFacts[];
};

interface RotationFacts {
  readonly rotation: db.Rotation;
  readonly members: readonly MemberFacts[];
}

/** A rotation and the state of each of its bouncers. */
export async function showRotation(
  env: Env,
  id: number,
  nowMs: number,
): Promise<
  Result<{
    rotation: Rotation;
    counts: Record<string, number>;
    members: Member[];
    slower_than_grace: Slow;
  }>
> {
  const found = await db.findRotation(env.DB, id);
  if (!found) return fail({ kind: 'not-found', what: `rotation ${id}` });
  const ids = found.members.map(({ bouncerId }) => bouncerId);
  const versions = Map.groupBy(await versionsOf(env.DB, ids), ({ bouncerId }) => bouncerId);
  const members = found.members.map((each) => ({ ...each, versions: versions.get(each.bouncerId) ?? [] }));
  const clientsOf = clientsById(ids, await askFeed(env, async (feed) => feed.clientsOf(ids)));
  const described = describeAll({ rotation: found.rotation, members }, clientsOf, nowMs);
  const counts = Object.fromEntries(
    memberStates.map((state) => [state, described.members.filter((each) => each.state === state).length]),
  );
  return succeed({ ...described, counts });
}

function describeAll({ rotation, members }: RotationFacts, clientsOf: ClientsOf, nowMs: number) {
  const described = members.map((member) => describeMember(member, clientsOf(member.bouncerId), nowMs));
  const onTheirWay = members.filter((_, at) => ['waiting', 'grace'].includes(described[at]?.state ?? ''));
  return {
    rotation: describeRotation(rotation, members.length),
    members: described,
    slower_than_grace: slowerThan(rotation.graceMs, onTheirWay, clientsOf, nowMs),
  };
}

/** Those between whose pulls, or since whose last one, more time has passed. Nothing is known of those that were never seen. */
function slowerThan(
  graceMs: number,
  members: readonly MemberFacts[],
  clientsOf: ClientsOf,
  nowMs: number,
): Slow {
  const slow = members
    .map(({ name, bouncerId }) => ({ name, intervalMs: intervalOf(clientsOf(bouncerId), nowMs) }))
    .filter(({ intervalMs }) => intervalMs > graceMs)
    .sort((a, b) => b.intervalMs - a.intervalMs);
  const named = slow.slice(0, mostNamed).map(({ name, intervalMs }) => {
    return { name, interval_seconds: Math.floor(intervalMs / 1000) };
  });
  return { count: slow.length, bouncers: named };
}

/** 0: it was never seen. `clients`: the one that was seen last first. */
function intervalOf(clients: readonly SeenClient[], nowMs: number): number {
  const [newest] = clients;
  if (!newest) return 0;
  return clients.reduce((most, { intervalMs }) => Math.max(most, intervalMs), nowMs - newest.seenMs);
}

function describeMember(
  { name, number, dueMs, versionCount, versions }: MemberFacts,
  clients: readonly SeenClient[],
  nowMs: number,
): Member {
  const made = versions.find((version) => version.number === number);
  const older = versions.findLast((version) => version.number < number);
  const state = (): Member['state'] => {
    if (versionCount === null) return 'gone';
    // Its host has not made it yet.
    if (versionCount < number) return 'waiting';
    if (!made) return 'replaced';
    if (made.state === 'next') return isLive(made, nowMs) ? 'waiting' : 'lapsed';
    return older && isLive(older, nowMs) ? 'grace' : 'done';
  };
  return {
    name,
    number,
    due_at: isoTime(dueMs),
    state: state(),
    new_first_used: isoTime(made?.firstUsedMs ?? null),
    old_last_used: older ? isoTime(lastUsed(older.id, clients)) : null,
  };
}

function describeRotation(rotation: db.Rotation, bouncers: number): Rotation {
  return {
    id: rotation.id,
    created_at: isoTime(rotation.createdMs),
    actor: rotation.actor,
    selector: JSON.parse(rotation.selectorJson) as Rotation['selector'],
    grace_seconds: rotation.graceMs / 1000,
    max_overlap_seconds: rotation.maxOverlapMs / 1000,
    spread_seconds: rotation.spreadMs / 1000,
    bouncers,
  };
}
