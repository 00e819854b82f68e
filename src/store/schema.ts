// The tables of D1, described once: who may ask for what, and what operators did. Losing them locks every bouncer out.
// They hold no secret, only SHA-512 digests of keys and tokens.

import { sql } from 'drizzle-orm';
import { index, integer, primaryKey, sqliteTable, text, uniqueIndex } from 'drizzle-orm/sqlite-core';
import { roles } from '../config/roles.ts';

/** A bouncer. `revision` counts its mutations, those of its keys too: it is the ETag. `metricsJson`: its newest report. */
export const bouncers = sqliteTable(
  'bouncers',
  {
    id: integer('id').primaryKey({ autoIncrement: true }),
    name: text('name').notNull().unique(),
    createdMs: integer('created_ms').notNull(),
    metricsJson: text('metrics_json'),
    metricsMs: integer('metrics_ms'),
    revision: integer('revision').notNull().default(1),
    /** What its keys may read, as JSON (bouncers/policy.ts); null is everything. */
    viewJson: text('view_json'),
    /** The CIDR ranges that its keys may be used from, a JSON list; null is anywhere. */
    allowJson: text('allow_json'),
    /** How many requests its keys may make in a minute; null is no limit. */
    rateLimit: integer('rate_limit'),
    /** Since when its keys are refused, until an operator resumes it; null: they are not. */
    pausedMs: integer('paused_ms'),
    /** How many versions its key has had: the number of the newest. */
    versionCount: integer('version_count').notNull().default(1),
    /** The name that an imported one had at LAPI. */
    lapiName: text('lapi_name'),
    /** How long it may be silent before operators are told (events/); null: that is learnt from its polls. */
    silentAfterMs: integer('silent_after_ms'),
  },
  (table) => [
    index('bouncers_silent_after')
      .on(table.silentAfterMs)
      .where(sql`silent_after_ms IS NOT NULL`),
  ],
);

/**
 * One version of a bouncer's key, as the lower-case hex SHA-512 that LAPI keeps too. `current` and, during a rotation,
 * `next` (not used yet) or `previous` (in its grace). `expiresMs`: when the version expires by itself. `deadlineMs`: when a
 * rotation ends it. Times are by Lapidary's clock; null is never.
 */
export const keyVersions = sqliteTable(
  'key_versions',
  {
    id: integer('id').primaryKey({ autoIncrement: true }),
    bouncerId: integer('bouncer_id')
      .notNull()
      .references(() => bouncers.id, { onDelete: 'cascade' }),
    digest: text('digest').notNull().unique(),
    createdMs: integer('created_ms').notNull(),
    /** 1, 2, 3 … for each bouncer: operators name the version by it. */
    number: integer('number').notNull().default(1),
    state: text('state', { enum: ['next', 'current', 'previous'] })
      .notNull()
      .default('current'),
    firstUsedMs: integer('first_used_ms'),
    expiresMs: integer('expires_ms'),
    deadlineMs: integer('deadline_ms'),
    /** Of a `next`: the grace that its first use gives the version before it. */
    graceMs: integer('grace_ms'),
    maxOverlapMs: integer('max_overlap_ms'),
  },
  (table) => [
    index('key_versions_bouncer').on(table.bouncerId),
    index('key_versions_expires')
      .on(table.expiresMs)
      .where(sql`expires_ms IS NOT NULL`),
  ],
);

/**
 * Tokens of operators (`cso_…`), as the lower-case hex SHA-512. A revoked one keeps its row, since the audit log names it.
 */
export const operatorTokens = sqliteTable('operator_tokens', {
  id: integer('id').primaryKey({ autoIncrement: true }),
  name: text('name').notNull().unique(),
  digest: text('digest').notNull().unique(),
  role: text('role', { enum: roles }).notNull(),
  createdMs: integer('created_ms').notNull(),
  expiresMs: integer('expires_ms'),
  revokedMs: integer('revoked_ms'),
});

/** Digests of revoked keys and tokens. They cannot be registered again while they are here (writer/cleaning.ts). */
export const revokedDigests = sqliteTable(
  'revoked_digests',
  {
    digest: text('digest').primaryKey(),
    revokedMs: integer('revoked_ms').notNull(),
  },
  (table) => [index('revoked_digests_revoked').on(table.revokedMs)],
);

/**
 * One row: `epoch` counts the mutations of keys. An isolate that sees it unchanged goes on trusting every key that it has
 * looked up. So revocation costs each isolate one small read in 5 s, not one for each bouncer.
 */
export const keyEpoch = sqliteTable('key_epoch', {
  id: integer('id').primaryKey(),
  epoch: integer('epoch').notNull(),
  /** When a restored backup was last put right (writer/restore.ts); 0 is never. A mark from before it does not count. */
  reconciledMs: integer('reconciled_ms').notNull().default(0),
});

/**
 * The bouncers whose keys changed with each of the last moves of the epoch: an isolate looks up these anew, and no others.
 * With a move that is not here (a restore) all changed.
 */
export const keyChanges = sqliteTable(
  'key_changes',
  {
    /** What the epoch came to. */
    epoch: integer('epoch').notNull(),
    bouncerId: integer('bouncer_id').notNull(),
  },
  (table) => [primaryKey({ columns: [table.epoch, table.bouncerId] })],
);

/**
 * Revocations that the feed's object may not have recorded yet (writer/writer.ts). A batch that revokes a key or token
 * adds it here. It is acknowledged once the object has recorded it too, so that a restored backup does not undo it.
 * `effectiveMs`: from when on it opens nothing, which may be ahead.
 */
export const revocationOutbox = sqliteTable('ends_outbox', {
  id: integer('id').primaryKey({ autoIncrement: true }),
  digest: text('digest').notNull(),
  effectiveMs: integer('ends_ms').notNull(),
});

/**
 * Who did what: one row for each mutation, written in its batch under the next number. Its place in the hash chain follows
 * (writer/sealing.ts). `detailJson` holds names, numbers and at most 8 hex digits of a digest.
 */
export const audit = sqliteTable(
  'audit',
  {
    seq: integer('seq').primaryKey(),
    atMs: integer('at_ms').notNull(),
    actor: text('actor').notNull(),
    action: text('action').notNull(),
    target: text('target').notNull(),
    detailJson: text('detail_json').notNull(),
    /** The `hash` of the row before; both are '' until the row is sealed. */
    previousHash: text('previous_hash').notNull(),
    hash: text('hash').notNull(),
    /** SHA-256 of the fields above; null in old rows, which were written without it. */
    digest: text('digest'),
  },
  (table) => [
    index('audit_actor').on(table.actor),
    index('audit_action').on(table.action),
    index('audit_target').on(table.target),
  ],
);

/**
 * One row, once rows of the audit log were removed by their age: the last of them. The feed's object has the same. An
 * object that is new, or that finds D1 restored, reads it here.
 */
export const auditStart = sqliteTable('audit_start', {
  id: integer('id').primaryKey(),
  seq: integer('seq').notNull(),
  hash: text('hash').notNull(),
});

/** Answers to mutations with an `Idempotency-Key`, without their secrets, for a day. */
export const idempotentAnswers = sqliteTable(
  'idempotent_answers',
  {
    actor: text('actor').notNull(),
    key: text('key').notNull(),
    requestHash: text('request_hash').notNull(),
    status: integer('status').notNull(),
    bodyJson: text('body_json').notNull(),
    expiresMs: integer('expires_ms').notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.actor, table.key] }),
    index('idempotent_answers_expires').on(table.expiresMs),
  ],
);

/** Rotations of many bouncers, as operators asked for them. `id` counts them. */
export const rotations = sqliteTable('rotations', {
  id: integer('id').primaryKey(),
  createdMs: integer('created_ms').notNull(),
  actor: text('actor').notNull(),
  selectorJson: text('selector_json').notNull(),
  graceMs: integer('grace_ms').notNull(),
  maxOverlapMs: integer('max_overlap_ms').notNull(),
  spreadMs: integer('spread_ms').notNull(),
});

/**
 * A bouncer of a rotation: version `number` of its key was made, and is due to be used from `dueMs` on. The progress is read
 * from the versions. The name stays here when the bouncer is deleted.
 */
export const rotationMembers = sqliteTable(
  'rotation_members',
  {
    /** Not checked: D1 counts that as a row read for each bouncer. Written with its rotation, and removed after it. */
    rotationId: integer('rotation_id').notNull(),
    bouncerId: integer('bouncer_id').notNull(),
    name: text('name').notNull(),
    number: integer('number').notNull(),
    dueMs: integer('due_ms').notNull(),
  },
  (table) => [primaryKey({ columns: [table.rotationId, table.bouncerId] })],
);

/**
 * Hosts that register their bouncers' keys themselves, known by their SSH public key. A removed one (`removedMs`) keeps its
 * row, so that its requests are answered 410. `revision` counts the changes by operators: it is the ETag.
 */
export const hosts = sqliteTable(
  'hosts',
  {
    id: integer('id').primaryKey({ autoIncrement: true }),
    name: text('name').notNull().unique(),
    /** Type and base64, without a comment. */
    publicKey: text('public_key').notNull(),
    /** `SHA256:…` as ssh-keygen prints it. */
    fingerprint: text('fingerprint').notNull(),
    mode: text('mode', { enum: ['standard', 'relaxed', 'strict'] })
      .notNull()
      .default('standard'),
    createdMs: integer('created_ms').notNull(),
    revision: integer('revision').notNull().default(1),
    /** When it last sent a generation that is not its own: a copy of it may exist. */
    suspectedMs: integer('suspected_ms'),
    seenMs: integer('seen_ms'),
    removedMs: integer('removed_ms'),
    /** The cloud instance that it proved to be when it enrolled: an instance enrols once. */
    instance: text('instance').unique(),
    /** The engine at which it may have a machine's account; null: at none. */
    machineEngine: text('machine_engine'),
    /** When a request under its name was last refused, and why: for operators, written at most every 10 minutes. */
    lastRefusedMs: integer('last_refused_ms'),
    lastRefusedWhy: text('last_refused_why'),
  },
  // Two hosts with one key would be a host and its copy. The key of a removed host is free.
  (table) => [
    uniqueIndex('hosts_live_key')
      .on(table.publicKey)
      .where(sql`removed_ms IS NULL`),
    index('hosts_suspected')
      .on(table.suspectedMs)
      .where(sql`suspected_ms IS NOT NULL`),
    index('hosts_refused')
      .on(table.lastRefusedMs)
      .where(sql`last_refused_ms IS NOT NULL`),
  ],
);

/** What a host may register. */
export const keyKinds = ['bouncer', 'engine', 'machine'] as const;

/**
 * The keys that a host may register. A bouncer's has the bouncer's name, which need not exist yet; the engine's has the
 * name ''; a machine's (its account at an engine) has the host's name. A key belongs to one host.
 */
export const hostKeys = sqliteTable(
  'host_keys',
  {
    kind: text('kind', { enum: keyKinds }).notNull(),
    name: text('name').notNull(),
    hostId: integer('host_id')
      .notNull()
      .references(() => hosts.id, { onDelete: 'cascade' }),
    /** How many registrations of it succeeded. The host counts too: a copy of the host comes with another count. */
    generation: integer('generation').notNull().default(0),
    /** How often a host that lost its count may begin at 0 again, without an operator. */
    recoveriesLeft: integer('recoveries_left').notNull(),
    /** An operator allowed the next registration, whatever its generation. */
    recoveryAllowed: integer('recovery_allowed', { mode: 'boolean' }).notNull().default(false),
    rotationAskedMs: integer('rotation_asked_ms'),
    /** The grace that the requested rotation gives the version before. */
    graceMs: integer('grace_ms'),
    maxOverlapMs: integer('max_overlap_ms'),
    /** How long its versions live; null: they do not expire. */
    lifeMs: integer('life_ms'),
  },
  (table) => [primaryKey({ columns: [table.kind, table.name] }), index('host_keys_host').on(table.hostId)],
);

/** The account that a host asked for last at an engine (a LAPI machine). The engine has the password. */
export const hostMachines = sqliteTable('host_machines', {
  hostId: integer('host_id')
    .primaryKey()
    .references(() => hosts.id, { onDelete: 'cascade' }),
  /** LAPI's `machine_id`. */
  machine: text('machine').notNull().unique(),
  engine: text('engine').notNull(),
  createdMs: integer('created_ms').notNull(),
  /** When the engine was first seen to accept it; null: it waits for `cscli machines validate`. */
  validatedMs: integer('validated_ms'),
});

/** Tokens (`cse_…`) with which hosts enrol themselves, as the lower-case hex SHA-512. */
export const enrolments = sqliteTable('enrolments', {
  id: integer('id').primaryKey({ autoIncrement: true }),
  /** How operators and the audit log name it. */
  ref: text('ref').notNull().unique(),
  digest: text('digest').notNull().unique(),
  /** Names of hosts that may use it; `*` is any text. */
  hosts: text('hosts').notNull(),
  /** The name of their bouncer; `{host}` is the host's. */
  bouncer: text('bouncer').notNull(),
  /** The engine at which its hosts may have a machine's account; null: at none. */
  machineEngine: text('machine_engine'),
  maxHosts: integer('max_hosts').notNull(),
  createdMs: integer('created_ms').notNull(),
  expiresMs: integer('expires_ms').notNull(),
  revokedMs: integer('revoked_ms'),
});

/** The hosts that used an enrolment. Each name takes one of its places, with the key that it enrolled with. */
export const enrolmentHosts = sqliteTable(
  'enrolment_hosts',
  {
    enrolmentId: integer('enrolment_id')
      .notNull()
      .references(() => enrolments.id, { onDelete: 'cascade' }),
    host: text('host').notNull(),
    fingerprint: text('fingerprint').notNull(),
    atMs: integer('at_ms').notNull(),
  },
  (table) => [primaryKey({ columns: [table.enrolmentId, table.host] })],
);

/** Nonces of challenges that were used, until they expire. */
export const burntNonces = sqliteTable(
  'burnt_nonces',
  {
    nonce: text('nonce').primaryKey(),
    expiresMs: integer('expires_ms').notNull(),
  },
  (table) => [index('burnt_nonces_expires').on(table.expiresMs)],
);

/**
 * One row: the address by which hosts know Lapidary, where PUBLIC_URL is not set. `//host` where it comes from an
 * operator's request, without a scheme and without PATH_PREFIX; or the whole address, as an operator gave it.
 */
export const publicUrl = sqliteTable('public_url', {
  id: integer('id').primaryKey(),
  url: text('url').notNull(),
  fixedMs: integer('fixed_ms').notNull(),
  actor: text('actor').notNull(),
});

/** Audiences of requests that were signed for another address. Each is noted at most once an hour. */
export const relayedAudiences = sqliteTable('relayed_audiences', {
  audience: text('audience').primaryKey(),
  notedMs: integer('noted_ms').notNull(),
});

/** One row: the engine key that a host sent last. The feed's object has the key itself, sealed (engines/keys.ts). */
export const engineKeys = sqliteTable('engine_keys', {
  id: integer('id').primaryKey(),
  host: text('host').notNull(),
  /** Lower-case hex SHA-512 of the key. */
  digest: text('digest').notNull(),
  createdMs: integer('created_ms').notNull(),
});

/** Where messages to operators go (events/). How far each has come is in the object's storage. */
export const webhooks = sqliteTable('webhooks', {
  id: integer('id').primaryKey({ autoIncrement: true }),
  name: text('name').notNull().unique(),
  url: text('url').notNull(),
  /** The types of events that it gets, a JSON list; null is all. */
  eventsJson: text('events_json'),
  /** What signs its messages (crypto/seal.ts). */
  sealedSecret: text('sealed_secret').notNull(),
  createdMs: integer('created_ms').notNull(),
  revision: integer('revision').notNull().default(1),
});

/** Machines (LAPI's `machine_id`) that are refused here, also where the engine accepts their tokens. */
export const blockedMachines = sqliteTable('blocked_machines', {
  machine: text('machine').primaryKey(),
  blockedMs: integer('blocked_ms').notNull(),
  actor: text('actor').notNull(),
  reason: text('reason'),
});

/** One row since the first request reached the feed: `FEED_LOCATION` as it was then. */
export const feedLocation = sqliteTable('feed_location', {
  id: integer('id').primaryKey(),
  location: text('location').notNull(),
  fixedMs: integer('fixed_ms').notNull(),
});

export type KeyVersion = typeof keyVersions.$inferSelect;
