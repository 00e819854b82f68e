// Rotations of many bouncers at once: which, when each is due, and how far they have come. All keys are made in the
// one call and shown in its answer, so that nothing secret is kept for later; what is staggered are the ends. The rules
// of each single key are rotation.ts's.

import * as z from 'zod';
import * as db from '../db/fleet.ts';
import { ownersOf } from '../db/hosts.ts';
import { isAnyRevoked, versionsOf, type KeyVersion } from '../db/keys.ts';
import { badInput, fail, succeed, type Failure, type Result } from '../failure.ts';
import type { SeenClient } from '../feed/clients.ts';
import { mintSecret } from '../mint.ts';
import { digestOf } from '../secret.ts';
import { isoTime, lastUsed, time } from './describe.ts';
import { digest, duration, longestMs } from './fields.ts';
import { glob, matchesGlob } from './glob.ts';
import { mutate, nothingRead, type Answer, type Mutation } from './mutations.ts';
import { isLive, longestOverlapMs, overlapFields, overlapOf, planRotation } from './rotation.ts';

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

/** Rotates, or with `dry_run` only says what would be. 400 where nobody fits, or too many do. */
export async function rotateMany(
  mutation: Mutation,
  input: z.output<typeof newRotation>,
): Promise<Result<Answer>> {
  const { nowMs, actor } = mutation;
  const d1 = mutation.env.DB;
  const { selector, keys_sha512: given = {} } = input;
  const overlap = overlapOf(input);
  const expiresMs = input.expires_in === undefined ? null : nowMs + input.expires_in;
  const minted = new Map<string, { key: string; digest: string }>();
  const decide = async () => {
    const chosen: { bouncer: db.Turn['bouncer']; versions: readonly KeyVersion[] }[] = [];
    for await (const page of db.everyBouncer(d1)) {
      chosen.push(...page.filter((each) => isChosen(selector, each.bouncer.name, each.versions, nowMs)));
      if (chosen.length > mostRotated) {
        return badInput('selector', `fits more than ${mostRotated} bouncers: rotate them in several calls`);
      }
    }
    if (chosen.length === 0) return badInput('selector', 'fits no bouncer');
    const names = new Set(chosen.map(({ bouncer }) => bouncer.name));
    const stranger = Object.keys(given).find((name) => !names.has(name));
    if (stranger !== undefined)
      return badInput(`keys_sha512.${stranger}`, 'is no bouncer that the selector fits');
    const hosted = new Set((await ownersOf(d1, [...names])).map(({ hostKey }) => hostKey.name));
    const due = dueTimes(chosen.length, input.spread, nowMs);
    const turns: db.Turn[] = [];
    for (const [index, { bouncer, versions }] of chosen.entries()) {
      const dueMs = due[index] as number;
      if (hosted.has(bouncer.name) && given[bouncer.name] === undefined) {
        turns.push({ bouncer, made: null, dueMs });
        continue;
      }
      const plan = planRotation(versions, overlap, expiresMs, nowMs, dueMs);
      const digest = given[bouncer.name] ?? (await mintFor(minted, bouncer.name)).digest;
      if (versions.some((version) => version.digest === digest)) return fail(digestTaken);
      turns.push({ bouncer, made: { plan, digest }, dueMs });
    }
    if (await isAnyRevoked(d1, Object.values(given))) return fail(digestTaken);
    return draftOf(turns);
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
  const draftOf = async (turns: readonly db.Turn[]) => {
    const id = (await db.newestId(d1)) + 1;
    const described = describeRotation({ ...row, id }, turns.length);
    const members = turns.map(({ bouncer, dueMs }): Member => {
      const { name, versionCount } = bouncer;
      const fresh = { new_first_used: null, old_last_used: null };
      return { name, number: versionCount + 1, due_at: isoTime(dueMs), state: 'waiting', ...fresh };
    });
    return succeed({
      entry: {
        action: 'rotation.create',
        target: `rotation ${id}`,
        detail: {
          ...described,
          bouncers: turns.map(({ bouncer: { name, versionCount }, made }) => {
            return { name, number: versionCount + 1, start: made?.digest.slice(0, 8) ?? null };
          }),
        },
      },
      unchanged: db.unchangedSince(turns, id),
      statements: (d: Parameters<typeof db.rotationStatements>[0]) =>
        db.rotationStatements(d, { ...row, id }, turns, input.expires_in ?? null, nowMs),
      answer: {
        status: 201,
        body: { rotation: described, members },
        ...(minted.size > 0 ? { secret: { keys: keysOf(minted) } } : {}),
      },
      clash: () => digestTaken,
    });
  };
  if (!input.dry_run) return mutate(mutation, nothingRead, decide);
  const draft = await decide();
  if (!draft.ok) return draft;
  const { body } = draft.value.answer;
  return succeed({ status: 200, body: { ...body, rotation: { ...body.rotation, id: null } } });
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
  name: string,
  versions: readonly { readonly createdMs: number }[],
  nowMs: number,
): boolean {
  const newestMs = versions.at(-1)?.createdMs ?? -Infinity;
  if (selector.older_than !== undefined && nowMs - newestMs < selector.older_than) return false;
  return selector.names?.some((pattern) => matchesGlob(pattern, name)) ?? true;
}

export async function listRotations(
  d1: D1Database,
  beforeId: number | null,
  limit: number,
): Promise<Rotation[]> {
  const rows = await db.listRotations(d1, beforeId, limit);
  return rows.map(({ rotation, bouncers }) => describeRotation(rotation, bouncers));
}

/** A rotation with where each of its bouncers is; `clientsOf` tells who was last seen with which version. */
export async function showRotation(
  d1: D1Database,
  id: number,
  clientsOf: (ids: readonly number[]) => Promise<readonly (readonly SeenClient[])[]>,
  nowMs: number,
): Promise<Result<{ rotation: Rotation; counts: Record<string, number>; members: Member[] }>> {
  const found = await db.findRotation(d1, id);
  if (!found) return fail({ kind: 'not-found', what: `rotation ${id}` });
  const { rotation, members } = found;
  const ids = members.map(({ bouncerId }) => bouncerId);
  const versions = Map.groupBy(await versionsOf(d1, ids), ({ bouncerId }) => bouncerId);
  const clients = await clientsOf(ids);
  const described = members.map((member, index) => {
    return describeMember(member, versions.get(member.bouncerId) ?? [], clients[index] ?? [], nowMs);
  });
  const counts = Object.fromEntries(
    memberStates.map((state) => [state, described.filter((member) => member.state === state).length]),
  );
  return succeed({ rotation: describeRotation(rotation, members.length), counts, members: described });
}

/** `versions`: of the bouncer, as they are now. */
function describeMember(
  { name, number, dueMs, versionCount }: db.Member & { readonly versionCount: number | null },
  versions: readonly KeyVersion[],
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
