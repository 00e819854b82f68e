// The rules of a key's versions: at most two valid ones, an overlap that starts when the new one is first used, exact
// deadlines. Pure: the versions and the time go in, the changes come out. All times are of Lapidary's clock.

import type { KeyVersion } from '../store/schema.ts';
import { duration } from '../operations/fields.ts';

/** What a rotation gives the version before it. */
export interface Overlap {
  /** How long the old version is valid after the first use of the new one. 0: it is revoked with the rotation. */
  readonly graceMs: number;
  /** How long the two may overlap in all. Then an unused new version expires, or the old one in its grace. */
  readonly maxOverlapMs: number;
}

export const defaultOverlap: Overlap = { graceMs: 15 * 60_000, maxOverlapMs: 7 * 86_400_000 };

/** The ceiling on both halves of an overlap. */
export const longestOverlapMs = 7 * 86_400_000;

/** An overlap as operators ask for it. */
export const overlapFields = {
  grace: duration(0, longestOverlapMs).default(defaultOverlap.graceMs).meta({
    description: 'How long the old key is valid after the first use of the new one. `0s`: revoke it now.',
  }),
  max_overlap: duration(1000, longestOverlapMs).default(defaultOverlap.maxOverlapMs).meta({
    description: 'How long the two may overlap in all.',
  }),
};

export function overlapOf(input: { readonly grace: number; readonly max_overlap: number }): Overlap {
  return { graceMs: input.grace, maxOverlapMs: input.max_overlap };
}

/** Changes of one bouncer's versions, applied together. */
export interface VersionPlan {
  readonly revoke: readonly KeyVersion[];
  readonly change: readonly { readonly version: KeyVersion; readonly to: Partial<KeyVersion> }[];
  readonly insert?: Omit<KeyVersion, 'id' | 'bouncerId' | 'number' | 'digest'>;
}

/** When a version expires, whatever else happens; `Infinity`: never. */
export function endOf(version: Pick<KeyVersion, 'expiresMs' | 'deadlineMs'>): number {
  return Math.min(version.expiresMs ?? Infinity, version.deadlineMs ?? Infinity);
}

export function isLive(version: Parameters<typeof endOf>[0], nowMs: number): boolean {
  return nowMs < endOf(version);
}

/**
 * A new version. It replaces an unused one, and one that is still in the grace of an earlier rotation: there are never
 * three. The version in use stays as it is until the new one is used. Without a grace it expires when the new one is due:
 * now or, in a rotation of many, at `dueMs`.
 */
export function planRotation(
  versions: readonly KeyVersion[],
  { graceMs, maxOverlapMs }: Overlap,
  expiresMs: number | null,
  nowMs: number,
  dueMs = nowMs,
): VersionPlan {
  const insert = { createdMs: nowMs, firstUsedMs: null, expiresMs };
  const kept = versions.find((version) => version.state === 'current' && isLive(version, nowMs));
  if (graceMs === 0 && (dueMs <= nowMs || !kept)) {
    return { revoke: versions, change: [], insert: { ...insert, state: 'current', ...noOverlap } };
  }
  const revoke = versions.filter((version) => version !== kept);
  if (graceMs === 0 && kept) {
    const to = { deadlineMs: Math.min(dueMs, kept.deadlineMs ?? Infinity) };
    // The old version has a deadline, so the new one needs none.
    const next = { ...insert, state: 'next' as const, deadlineMs: null, graceMs, maxOverlapMs };
    return { revoke, change: [{ version: kept, to }], insert: next };
  }
  const deadlineMs = dueMs + maxOverlapMs;
  return { revoke, change: [], insert: { ...insert, state: 'next', deadlineMs, graceMs, maxOverlapMs } };
}

const noOverlap = { deadlineMs: null, graceMs: null, maxOverlapMs: null };

/** The first successful use of a `next`: it becomes `current`, and the old one's grace begins. */
export function planFirstUse(versions: readonly KeyVersion[], used: KeyVersion, nowMs: number): VersionPlan {
  const others = versions.filter((version) => version.id !== used.id);
  const current = others.filter((version) => version.state === 'current');
  const overlapEndMs = used.deadlineMs ?? used.createdMs + (used.maxOverlapMs ?? longestOverlapMs);
  const graceEndMs = Math.min(nowMs + (used.graceMs ?? 0), overlapEndMs);
  return {
    revoke: others.filter((version) => version.state !== 'current'),
    change: [
      { version: used, to: { state: 'current', firstUsedMs: nowMs, ...noOverlap } },
      ...current.map((version) => {
        const deadlineMs = Math.min(graceEndMs, version.deadlineMs ?? Infinity);
        return { version, to: { state: 'previous' as const, deadlineMs } };
      }),
    ],
  };
}
