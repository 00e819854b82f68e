// A known host registers a new version of its bouncer's key by its digest. The key itself stays on the host.

import { sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { digestTaken } from '../bouncers/bouncers.ts';
import * as db from '../bouncers/bouncers.sql.ts';
import { keyOfBouncer, type HostKey } from '../bouncers/host-keys.sql.ts';
import { atRevision, isKnown, neverRevoked, planStatements } from '../bouncers/keys.sql.ts';
import { defaultOverlap, endOf, isLive, planRotation } from '../bouncers/versions.ts';
import { fail, succeed, type Result } from '../http/failure.ts';
import { isoTime } from '../operations/fields.ts';
import type { Answer } from '../operations/mutate.ts';
import { selectHolds } from '../store/facts.ts';
import type { Statements } from '../store/audit.sql.ts';
import type { KeyVersion } from '../store/schema.ts';
import { register } from './registration.ts';
import type { KeysPayload, KnownRequest } from './signed-request.ts';

export function registerBouncerKey(
  env: Env,
  request: KnownRequest<KeysPayload>,
  nowMs: number,
): Promise<Result<Answer>> {
  const { bouncer: name, key_sha512: digest } = request.payload;
  return register(env, request, nowMs, {
    key: keyOfBouncer(name),
    reads: (d) => selectBouncerState(d, name, digest),
    decide: ([[bouncer], versions, [known]], { hostKey }) => {
      const own = versions.find((version) => version.digest === digest && isLive(version, nowMs));
      const repeated = own && {
        answer: unchanged(hostKey, own, nowMs),
        mayBeBehind: own === versions.at(-1),
        again: false,
      };
      return succeed({
        repeated: repeated ?? null,
        register: ({ reason }, generation) => {
          if (known?.holds) return fail(digestTaken);
          const expiresMs = expiryOfNext(hostKey, versions, nowMs);
          const state = { name, bouncer, versions };
          const { number, revoked, ...version } = planVersion(state, digest, hostKey, expiresMs, nowMs);
          const by = reason === 'recovery-allowed' ? 'operator' : 'automatic';
          const detail = {
            bouncer: name,
            number,
            start: digest.slice(0, 8),
            generation,
            ...(reason === 'in-order' ? {} : { by }),
            revoked,
          };
          return succeed({
            ...version,
            entry: { action: reason === 'in-order' ? 'host.register' : 'host.recover', detail },
            answer: registered(name, generation, expiresMs),
            clash: digestTaken,
          });
        },
      });
    },
  });
}

export function registered(bouncer: string, generation: number, expiresMs: number | null): Answer {
  const body = { bouncer, generation, state: 'registered', rotate: false, valid_until: isoTime(expiresMs) };
  return { status: 200, body };
}

/** The part of a version's life after which the host is to register the next one. */
const rotateAfter = 0.75;

function unchanged(hostKey: HostKey, own: KeyVersion, nowMs: number): Answer {
  const { createdMs, expiresMs } = own;
  const asked = hostKey.rotationAskedMs !== null && hostKey.rotationAskedMs <= nowMs;
  const old = expiresMs !== null && nowMs - createdMs >= rotateAfter * (expiresMs - createdMs);
  // The deadline of a `next` version is lifted when that is first used.
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

/** The next version lives as long as the rotation asked for, or as long as the version before it. */
function expiryOfNext(hostKey: HostKey, versions: readonly KeyVersion[], nowMs: number): number | null {
  const before = versions.at(-1);
  const lifeMs = hostKey.lifeMs ?? (before?.expiresMs == null ? null : before.expiresMs - before.createdMs);
  return lifeMs === null ? null : nowMs + lifeMs;
}

/** What D1 has of a bouncer. Undefined: there is no such bouncer yet. */
interface BouncerState {
  readonly name: string;
  readonly bouncer: db.Bouncer | undefined;
  readonly versions: readonly KeyVersion[];
}

/** The bouncer of a name, the versions of its key, and whether a digest is known. */
export function selectBouncerState(d: DrizzleD1Database, name: string | SQL, digest: string | null) {
  return [
    db.selectBouncer(d, name),
    db.selectVersions(d, name),
    selectHolds(d, digest === null ? sql`0` : isKnown(digest)),
  ] as const;
}

/** SQL for "the bouncer is as it was read". */
export function bouncerUnchanged(name: string, bouncer: db.Bouncer | undefined): SQL {
  return bouncer ? atRevision(bouncer) : db.noBouncer(name);
}

/**
 * How the next version of a bouncer's key is written: its number, the numbers of the versions that it revokes, SQL that must
 * hold, and the statements. It overlaps with the version in use; without one it is in use at once. The bouncer is made with
 * its first version.
 */
export function planVersion(
  { name, bouncer, versions }: BouncerState,
  digest: string,
  { graceMs, maxOverlapMs }: Pick<HostKey, 'graceMs' | 'maxOverlapMs'>,
  expiresMs: number | null,
  nowMs: number,
) {
  const inUse = versions.some((version) => version.state === 'current' && isLive(version, nowMs));
  const overlap = {
    graceMs: inUse ? (graceMs ?? defaultOverlap.graceMs) : 0,
    maxOverlapMs: maxOverlapMs ?? defaultOverlap.maxOverlapMs,
  };
  const plan = planRotation(versions, overlap, expiresMs, nowMs);
  return {
    number: (bouncer?.versionCount ?? 0) + 1,
    revoked: plan.revoke.map(({ number }) => number),
    unchanged: sql`${bouncerUnchanged(name, bouncer)} AND ${neverRevoked(digest)}`,
    statements: (d: DrizzleD1Database): Statements =>
      bouncer
        ? planStatements(d, [{ bouncer, plan, digest }], nowMs)
        : db.insertStatements(d, [{ name, digest, expiresMs }], nowMs),
  };
}
