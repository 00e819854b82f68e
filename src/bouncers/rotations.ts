// Rotations of many bouncers at once: which, when each is due, and how far they have come. All keys are made in the
// one call and shown in its answer, so that nothing secret is kept for later; what is staggered are the ends. The rules
// of each single key are rotation.ts's.

import type { DrizzleD1Database } from 'drizzle-orm/d1';
import * as z from 'zod';
import { askD1 } from '../store/ask.ts';
import type { RowsOf } from '../store/audit.sql.ts';
import type { BouncerFacts } from './bouncers.sql.ts';
import * as db from './rotations.sql.ts';
import { versionsOf } from './keys.sql.ts';
import { badInput, fail, succeed, type Failure, type Result } from '../http/failure.ts';
import type { SeenClient } from '../stream/clients.ts';
import { mintSecret } from '../crypto/mint.ts';
import { digestOf } from '../crypto/secret.ts';
import { lastUsed } from './describe.ts';
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

export const mostRotated = 1000;

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
    description: 'Over how long they are spread: each is due at its own moment of it.',
    example: '1h',
  }),
  expires_in: duration(1000, longestMs).optional(),
  keys_sha512: z
    .record(z.string(), digest)
    .optional()
    .meta({ description: 'Digests of keys that you made, by bouncer; the others’ keys are made here.' }),
  dry_run: z
    .boolean('must be true or false')
    .default(false)
    .meta({ description: 'Only say who would be rotated.' }),
});

const memberStates = ['waiting', 'grace', 'done', 'lapsed', 'replaced', 'gone'] as const;

export const memberShape = z.object({
  name: z.string(),
  number: z.int().meta({ description: 'The version that the rotation makes.' }),
  due_at: time.meta({ description: 'When the bouncer is to have its new key.' }),
  state: z.enum(memberStates).meta({
    description:
      '`waiting`: still on the old version. `grace`: on the new one, the old one still good. `done`: only the new one ' +
      'is. `lapsed`: it never took the new one, which has ended. `replaced`: the new version was revoked, or ' +
      'another one took its place. `gone`: the bouncer was taken away.',
  }),
  new_first_used: time.nullable(),
  old_last_used: time.nullable(),
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
 * Rotates, or with `dry_run` only says what would be. 400 where nobody fits, or too many do. What is answered follows from
 * what was read, and is not read back: that the bouncers were as they were read is checked when they are changed, and
 * a thousand of them are many rows.
 */
export async function rotateMany(
  mutation: Mutation,
  input: z.output<typeof newRotation>,
): Promise<Result<Answer>> {
  const { nowMs, actor, env } = mutation;
  const { selector, keys_sha512: given = {} } = input;
  const overlap = overlapOf(input);
  const expiresMs = input.expires_in === undefined ? null : nowMs + input.expires_in;
  const minted = new Map<string, { key: string; digest: string }>();
  const prefixes = (selector.names ?? ['*']).map((pattern) => pattern.split('*', 1)[0] ?? '');
  const reads = (d: DrizzleD1Database) =>
    [
      db.selectCandidates(d, prefixes, 0),
      db.selectAnyRevoked(d, Object.values(given)),
      db.selectNewestId(d),
    ] as const;
  const decide = async ([first, [revoked], [newest]]: RowsOf<ReturnType<typeof reads>>) => {
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
    const names = new Set(chosen.map(({ bouncer }) => bouncer.name));
    const stranger = Object.keys(given).find((name) => !names.has(name));
    if (stranger !== undefined)
      return badInput(`keys_sha512.${stranger}`, 'is no bouncer that the selector fits');
    const due = dueTimes(chosen.length, input.spread, nowMs);
    const turns: db.Turn[] = [];
    const members: MemberFacts[] = [];
    for (const [index, { bouncer, versions, owner }] of chosen.entries()) {
      const dueMs = due[index] as number;
      const { id: bouncerId, name, versionCount } = bouncer;
      const number = versionCount + 1;
      if (owner && given[name] === undefined) {
        turns.push({ bouncer, made: null, dueMs });
        members.push({ bouncerId, name, number, dueMs, versionCount, versions: versions.map(told) });
        continue;
      }
      const plan = planRotation(versions, overlap, expiresMs, nowMs, dueMs);
      const digest = given[name] ?? (await mintFor(minted, name)).digest;
      if (versions.some((version) => version.digest === digest)) return fail(digestTaken);
      turns.push({ bouncer, made: { plan, digest }, dueMs });
      const left = versionsAfter(versions, plan, number);
      members.push({ bouncerId, name, number, dueMs, versionCount: number, versions: left });
    }
    if (revoked?.holds) return fail(digestTaken);
    return succeed(draftOf(turns, members, (newest?.id ?? 0) + 1));
  };
  const row = {
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
  const draftOf = (turns: readonly db.Turn[], members: readonly MemberFacts[], id: number) => {
    const rotation = { ...row, id };
    return {
      entry: {
        action: 'rotation.create',
        target: `rotation ${id}`,
        detail: {
          ...describeRotation(rotation, turns.length),
          bouncers: turns.map(({ bouncer: { name, versionCount }, made }) => {
            return { name, number: versionCount + 1, start: made?.digest.slice(0, 8) ?? null };
          }),
        },
      },
      unchanged: db.isNextId(id),
      statements: (d: DrizzleD1Database) =>
        db.rotationStatements(d, rotation, turns, input.expires_in ?? null, nowMs),
      answer: {
        status: 201,
        body: { facts: { rotation, members } },
        ...(minted.size > 0 ? { secret: { keys: keysOf(minted) } } : {}),
      },
      clash: () => digestTaken,
      news: { clientsOf: members.map(({ bouncerId }) => bouncerId) },
    };
  };
  const shown: Shown<RotationFacts> = {
    json: null,
    describe: (facts, clientsOf) => ({ ...describeAll(facts, clientsOf, nowMs) }),
    bouncersIn: ({ members }) => members.map(({ bouncerId }) => bouncerId),
  };
  if (!input.dry_run) return mutate(mutation, reads, decide, shown);
  const draft = await decide(await askD1(env.DB, (d) => d.batch(reads(d))));
  if (!draft.ok) return draft;
  const { rotation, members } = describeAll(draft.value.answer.body.facts, () => [], nowMs);
  return succeed({ status: 200, body: { rotation: { ...rotation, id: null }, members } });
}

/** The versions of a bouncer's key as a plan leaves them. The new one has its id from D1. */
function versionsAfter(
  versions: readonly KeyVersion[],
  { revoke, change, insert }: VersionPlan,
  number: number,
): VersionFacts[] {
  const left = versions
    .filter((version) => !revoke.includes(version))
    .map((version) => ({ ...version, ...change.find((each) => each.version === version)?.to }));
  return [...left, ...(insert ? [{ ...insert, id: 0, number }] : [])].map(told);
}

function told({ id, number, state, firstUsedMs, expiresMs, deadlineMs }: VersionFacts): VersionFacts {
  return { id, number, state, firstUsedMs, expiresMs, deadlineMs };
}

async function mintFor(minted: Map<string, { key: string; digest: string }>, name: string) {
  let made = minted.get(name);
  if (!made) {
    const key = mintSecret('csb_');
    made = { key, digest: await digestOf(key) };
    minted.set(name, made);
  }
  return made;
}

function keysOf(minted: ReadonlyMap<string, { readonly key: string }>): Record<string, string> {
  return Object.fromEntries([...minted].map(([name, { key }]) => [name, key]));
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

/** What is told of a version. */
type VersionFacts = Pick<KeyVersion, 'id' | 'number' | 'state' | 'firstUsedMs' | 'expiresMs' | 'deadlineMs'>;

/** One bouncer of a rotation. `versionCount`: null where it is gone. `versions`: as they are, in their order. */
type MemberFacts = Omit<db.Member, 'rotationId'> & {
  readonly versionCount: number | null;
  readonly versions: readonly VersionFacts[];
};

interface RotationFacts {
  readonly rotation: db.Rotation;
  readonly members: readonly MemberFacts[];
}

/** A rotation with where each of its bouncers is; `askClients` tells who was last seen with which version. */
export async function showRotation(
  d1: D1Database,
  id: number,
  askClients: (ids: readonly number[]) => Promise<readonly (readonly SeenClient[])[]>,
  nowMs: number,
): Promise<Result<{ rotation: Rotation; counts: Record<string, number>; members: Member[] }>> {
  const found = await db.findRotation(d1, id);
  if (!found) return fail({ kind: 'not-found', what: `rotation ${id}` });
  const ids = found.members.map(({ bouncerId }) => bouncerId);
  const versions = Map.groupBy(await versionsOf(d1, ids), ({ bouncerId }) => bouncerId);
  const members = found.members.map((each) => ({ ...each, versions: versions.get(each.bouncerId) ?? [] }));
  const clientsOf = clientsById(ids, await askClients(ids));
  const described = describeAll({ rotation: found.rotation, members }, clientsOf, nowMs);
  const counts = Object.fromEntries(
    memberStates.map((state) => [state, described.members.filter((each) => each.state === state).length]),
  );
  return succeed({ ...described, counts });
}

function describeAll({ rotation, members }: RotationFacts, clientsOf: ClientsOf, nowMs: number) {
  return {
    rotation: describeRotation(rotation, members.length),
    members: members.map((member) => describeMember(member, clientsOf(member.bouncerId), nowMs)),
  };
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
