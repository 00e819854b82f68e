// Bouncers as operators read them. Pure; no secret gets this far, and of a digest its first 8 hex.

import * as z from 'zod';
import type { BouncerFacts } from './bouncers.sql.ts';
import type { KeyVersion } from '../store/schema.ts';
import type { SeenClient } from '../stream/clients.ts';
import { describePolicy, policyShape } from './policy.ts';
import { endOf } from './versions.ts';
import { time, isoTime } from '../operations/fields.ts';

const versionShape = z.object({
  number: z.int().meta({ description: '1, 2, 3 … in a bouncer.' }),
  state: z.enum(['next', 'current', 'previous']).meta({
    description: '`next` was not used yet; its first use makes it `current`, and the one before `previous`.',
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
    lapi_name: z.string().nullable().meta({ description: 'What LAPI called it, of one that was imported.' }),
    created_at: time,
    revision: z.int().meta({ description: 'Counts its changes; its ETag.' }),
    last_pull: time.nullable(),
    address: z.string().nullable().meta({ description: 'Of the client that was seen last.' }),
    type: z.string().nullable().meta({ description: 'The first half of the User-Agent, as in LAPI.' }),
    version: z.string().nullable(),
    ...policyShape,
    clients: z
      .array(z.object({ address: z.string(), last_pull: time.nullable() }))
      .meta({ description: 'Each address from which its keys are used; the newest first.' }),
    key_versions: z.array(versionShape),
    host: z.string().optional().meta({ description: 'The host that registers its key.' }),
    rotation_asked_at: time.nullable().optional().meta({
      description: 'Its host was asked for a new key, and has not come yet.',
    }),
  })
  .meta({ id: 'Bouncer' });

/** `type` and `version` are the two halves of the User-Agent, as LAPI takes it apart (middlewares/v1/api_key.go). */
export function describeBouncer(
  { bouncer, versions, owner }: BouncerFacts,
  clients: readonly SeenClient[],
): z.input<typeof bouncerShape> {
  const newest = clients[0];
  const [type, version, ...rest] = (newest?.userAgent ?? '').split('/');
  const twoParts = version !== undefined && rest.length === 0;
  return {
    name: bouncer.name,
    lapi_name: bouncer.lapiName,
    created_at: isoTime(bouncer.createdMs),
    revision: bouncer.revision,
    last_pull: isoTime(newest?.seenMs ?? null),
    address: newest?.address ?? null,
    type: newest ? (twoParts ? (type ?? '') : newest.userAgent) : null,
    version: newest ? (twoParts ? version : 'N/A') : null,
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
