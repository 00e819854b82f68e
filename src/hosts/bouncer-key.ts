// A known host registers a new version of its bouncer's key, by its digest: the key itself stays on the host.

import { sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import {
  insertStatements,
  noBouncer,
  selectBouncer,
  selectVersions,
  type Bouncer,
} from '../bouncers/bouncers.sql.ts';
import { bouncerSlot, type HostKey } from '../bouncers/host-keys.sql.ts';
import { atRevision, isKnown, neverRevoked, planStatements } from '../bouncers/keys.sql.ts';
import { fail, succeed, type Result } from '../http/failure.ts';
import { digestTaken } from '../bouncers/bouncers.ts';
import { isoTime } from '../operations/fields.ts';
import type { Answer } from '../operations/mutate.ts';
import { register, type Asked } from './registration.ts';
import {
  defaultOverlap,
  endOf,
  isLive,
  planRotation,
  type Overlap,
  type VersionPlan,
} from '../bouncers/versions.ts';
import type { KeyVersion } from '../store/schema.ts';
import { selectHolds } from '../store/facts.ts';

/** What a bouncer has, for a new version to be added to. */
export interface BouncerState {
  readonly bouncer: Bouncer | undefined;
  readonly versions: readonly KeyVersion[];
}

/** The bouncer of a name, the versions of its key, and whether a digest is known. */
export function selectBouncerState(d: DrizzleD1Database, name: string | SQL, digest: string | null) {
  return [
    selectBouncer(d, name),
    selectVersions(d, name),
    selectHolds(d, digest === null ? sql`0` : isKnown(digest)),
  ] as const;
}

export function registerKey(
  env: Env,
  asked: Asked & { readonly bouncer: string; readonly digest: string },
  nowMs: number,
): Promise<Result<Answer>> {
  const { bouncer: name, digest } = asked;
  return register(
    env,
    asked,
    {
      slot: bouncerSlot(name),
      reads: (d) => selectBouncerState(d, name, digest),
      repeated: ([, versions]) => {
        const own = versions.find((version) => version.digest === digest && isLive(version, nowMs));
        if (!own) return null;
        return {
          answer: ({ hostKey }) => unchanged(hostKey, own, nowMs),
          mayBeBehind: own === versions.at(-1),
          again: false,
        };
      },
      register: ([[bouncer], versions, [known]], { hostKey }, { why }, generation) => {
        if (known?.holds) return fail(digestTaken);
        const expiresMs = endOfNew(hostKey, versions, nowMs);
        const { plan, number } = planNew(hostKey, { bouncer, versions }, expiresMs, nowMs);
        return succeed({
          entry: {
            action: why === 'in-order' ? 'host.register' : 'host.recover',
            detail: {
              bouncer: name,
              number,
              start: digest.slice(0, 8),
              generation,
              ...(why === 'in-order' ? {} : { by: why === 'recovery-allowed' ? 'operator' : 'automatic' }),
              revoked: plan.revoke.map((version) => version.number),
            },
          },
          unchanged: sql`${bouncerUnchanged(name, bouncer)} AND ${neverRevoked(digest)}`,
          statements: (d) => newKeyStatements(d, { name, bouncer, plan, digest, expiresMs }, nowMs),
          answer: registered(name, generation, expiresMs),
          clash: digestTaken,
        });
      },
    },
    nowMs,
  );
}

export function bouncerUnchanged(name: string, bouncer: Bouncer | undefined): SQL {
  return bouncer ? atRevision(bouncer) : noBouncer(name);
}

export function registered(bouncer: string, generation: number, expiresMs: number | null): Answer {
  const body = { bouncer, generation, state: 'registered', rotate: false, valid_until: isoTime(expiresMs) };
  return { status: 200, body };
}

/** A version to be added to a bouncer; undefined: the bouncer is made with it. */
export interface NewVersion {
  readonly name: string;
  readonly bouncer: Bouncer | undefined;
  readonly plan: VersionPlan;
  readonly digest: string;
  readonly expiresMs: number | null;
}

export function newKeyStatements(
  d: DrizzleD1Database,
  { name, bouncer, plan, digest, expiresMs }: NewVersion,
  nowMs: number,
) {
  return bouncer
    ? planStatements(d, [{ bouncer, plan, digest }], nowMs)
    : insertStatements(d, [{ name, digest, expiresMs }], nowMs);
}

/** The new version: the next one where there is one in use, else the one to be used. */
export function planNew(
  asked: Pick<HostKey, 'graceMs' | 'maxOverlapMs'>,
  { bouncer, versions }: BouncerState,
  expiresMs: number | null,
  nowMs: number,
): { plan: VersionPlan; number: number } {
  const inUse = versions.some((version) => version.state === 'current' && isLive(version, nowMs));
  const overlap: Overlap = {
    graceMs: inUse ? (asked.graceMs ?? defaultOverlap.graceMs) : 0,
    maxOverlapMs: asked.maxOverlapMs ?? defaultOverlap.maxOverlapMs,
  };
  return {
    plan: planRotation(versions, overlap, expiresMs, nowMs),
    number: (bouncer?.versionCount ?? 0) + 1,
  };
}

/** A version lives as long as the rotation asked for, or as the version before it. */
function endOfNew(hostKey: HostKey, versions: readonly KeyVersion[], nowMs: number): number | null {
  const before = versions.at(-1);
  const lifeMs = hostKey.lifeMs ?? (before?.expiresMs == null ? null : before.expiresMs - before.createdMs);
  return lifeMs === null ? null : nowMs + lifeMs;
}

/** Of a version's life, after which a new one is due. */
const oldAfter = 0.75;

function unchanged(hostKey: HostKey, own: KeyVersion, nowMs: number): Answer {
  const { createdMs, expiresMs } = own;
  const asked = hostKey.rotationAskedMs !== null && hostKey.rotationAskedMs <= nowMs;
  const old = expiresMs !== null && nowMs - createdMs >= oldAfter * (expiresMs - createdMs);
  // The deadline of a `next` is lifted when it is used.
  const endMs = own.state === 'next' ? (expiresMs ?? Infinity) : endOf(own);
  const body = {
    bouncer: hostKey.name,
    generation: hostKey.generation,
    state: 'unchanged',
    rotate: asked || old || own.state === 'previous',
    valid_until: Number.isFinite(endMs) ? isoTime(endMs) : null,
  };
  return { status: 200, body };
}
