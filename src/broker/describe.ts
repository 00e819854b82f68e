// Bouncers as operators read them. Pure; no secret gets this far, and of a digest its first 8 hex.

import type { Bouncer } from '../db/bouncers.ts';
import type { KeyVersion } from '../db/keys.ts';
import type { SeenClient } from '../feed/clients.ts';
import { describePolicy } from './policy.ts';
import { endOf } from './rotation.ts';

/** `type` and `version` are the two halves of the User-Agent, as LAPI takes it apart (middlewares/v1/api_key.go). */
export function describeBouncer(
  bouncer: Bouncer,
  versions: readonly KeyVersion[],
  clients: readonly SeenClient[],
): Record<string, unknown> {
  const newest = clients[0];
  const [type, version, ...rest] = (newest?.userAgent ?? '').split('/');
  const twoParts = version !== undefined && rest.length === 0;
  return {
    name: bouncer.name,
    created_at: isoTime(bouncer.createdMs),
    revision: bouncer.revision,
    last_pull: isoTime(newest?.seenMs ?? null),
    address: newest?.address ?? null,
    type: newest ? (twoParts ? type : newest.userAgent) : null,
    version: newest ? (twoParts ? version : 'N/A') : null,
    ...describePolicy(bouncer),
    clients: clients.map(({ address, seenMs }) => ({ address, last_pull: isoTime(seenMs) })),
    key_versions: versions.map((each) => describeVersion(each, clients)),
  };
}

function describeVersion(version: KeyVersion, clients: readonly SeenClient[]) {
  const lastUsedMs = Math.max(0, ...clients.map((client) => client.versions[version.id] ?? 0));
  const endMs = endOf(version);
  return {
    number: version.number,
    state: version.state,
    start: version.digest.slice(0, 8),
    created_at: isoTime(version.createdMs),
    first_used: isoTime(version.firstUsedMs),
    last_used: isoTime(lastUsedMs || null),
    valid_until: isoTime(Number.isFinite(endMs) ? endMs : null),
  };
}

export function isoTime(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}
