// The named queries on hosts: who they are, which keys they may register, and which nonces are used up.

import { and, asc, eq, gt, isNull, lt, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { askD1 } from '../store/ask.ts';
import { factsOf, listJson, oneJson, rowJson } from '../store/facts.ts';
import { changedStatements } from '../store/epoch.sql.ts';
import { endMachineStatements, type HostMachine, type Taken } from '../machines/machines.sql.ts';
import { isKey, type HostKey, type KeyName } from '../bouncers/host-keys.sql.ts';
import { revokeStatements } from '../bouncers/keys.sql.ts';
import { bouncers, burntNonces, engineKeys, hostKeys, hostMachines, hosts } from '../store/schema.ts';

export type Host = typeof hosts.$inferSelect;
export type NewHost = typeof hosts.$inferInsert;
export type NewHostKey = KeyName & Pick<HostKey, 'recoveriesLeft'> & Partial<Pick<HostKey, 'generation'>>;

/** A host by its name, removed ones too. */
export async function findHost(d1: D1Database, name: string): Promise<Host | null> {
  const [row] = await askD1(d1, (db) => selectHost(db, name));
  return row ?? null;
}

export function selectHost(db: DrizzleD1Database, name: string) {
  return db.select().from(hosts).where(eq(hosts.name, name));
}

/** A host, the keys that it may register, and its account at an engine. */
export interface HostFacts {
  readonly host: Host;
  readonly keys: readonly HostKey[];
  readonly machine: HostMachine | null;
}

const facts = sql`json_object(
  'host', ${rowJson(hosts)},
  'keys', ${listJson(rowJson(hostKeys), hostKeys, sql`WHERE host_id = hosts.id ORDER BY kind, name`)},
  'machine', ${oneJson(rowJson(hostMachines), sql`host_machines WHERE host_id = hosts.id`)})`;

/** SQL for the facts of a host, as JSON. */
export function hostJson(name: string): SQL {
  return sql`(SELECT ${facts} FROM hosts WHERE name = ${name})`;
}

function selectFactsWhere(db: DrizzleD1Database, which: SQL | undefined) {
  return db
    .select({ facts: factsOf<HostFacts>(facts) })
    .from(hosts)
    .where(which);
}

/** By its name, removed ones too. */
export function selectHostFacts(db: DrizzleD1Database, name: string) {
  return selectFactsWhere(db, eq(hosts.name, name));
}

export async function findHostFacts(d1: D1Database, name: string): Promise<HostFacts | null> {
  const [row] = await askD1(d1, (db) => selectHostFacts(db, name));
  return row?.facts ?? null;
}

export const hostStates = ['waiting', 'registered', 'clone-suspected'] as const;
export type HostState = (typeof hostStates)[number];

/** SQL for a host's state, as operators see it. */
export const hostState = sql<HostState>`CASE WHEN suspected_ms IS NOT NULL THEN 'clone-suspected'
  WHEN EXISTS (SELECT 1 FROM host_keys WHERE host_id = hosts.id AND generation > 0) THEN 'registered'
  ELSE 'waiting' END`;

/** A page by id, of those that are not removed: all, or those in one state. */
export async function listHosts(
  d1: D1Database,
  state: HostState | undefined,
  afterId: number,
  limit: number,
): Promise<HostFacts[]> {
  const isAsked = state === undefined ? undefined : eq(hostState, state);
  const live = and(gt(hosts.id, afterId), isNull(hosts.removedMs), isAsked);
  const rows = await askD1(d1, (db) => selectFactsWhere(db, live).orderBy(asc(hosts.id)).limit(limit));
  return rows.map((row) => row.facts);
}

/** SQL for "there is no host of this name but a removed one". */
export function noLiveHost(name: string): SQL {
  return sql`NOT EXISTS (SELECT 1 FROM hosts WHERE name = ${name} AND removed_ms IS NULL)`;
}

/** SQL for "no operator has changed this host since". */
export function atHostRevision({ id, revision }: Host): SQL {
  return sql`EXISTS (SELECT 1 FROM hosts WHERE id = ${id} AND revision = ${revision} AND removed_ms IS NULL)`;
}

/** SQL for "the host has not registered this key since, and it is still its own". */
export function atGeneration({ kind, name, hostId, generation }: HostKey): SQL {
  return sql`EXISTS (SELECT 1 FROM host_keys JOIN hosts ON hosts.id = host_keys.host_id WHERE kind = ${kind}
    AND host_keys.name = ${name} AND host_id = ${hostId} AND generation = ${generation} AND removed_ms IS NULL)`;
}

const nextRevision = { revision: sql`revision + 1` };

function hostId(name: string): SQL<number> {
  return sql<number>`(SELECT id FROM hosts WHERE name = ${name})`;
}

/** The statements that make a host with its keys, in place of a removed one of its name. */
export function insertHostStatements(db: DrizzleD1Database, host: NewHost, keys: readonly NewHostKey[]) {
  return [
    db.delete(hosts).where(eq(hosts.name, host.name)),
    db.insert(hosts).values(host),
    ...keys.map((key) => db.insert(hostKeys).values({ ...key, hostId: hostId(host.name) })),
  ];
}

/** The statements that change a host, and the keys that it may register. */
export function changeHostStatements(
  db: DrizzleD1Database,
  host: Host,
  to: Partial<NewHost>,
  add: readonly NewHostKey[],
  remove: readonly HostKey[],
  /** Each key's next registration is taken, whatever its generation. */
  allowRecovery: boolean,
) {
  return [
    db
      .update(hosts)
      .set({ ...to, ...nextRevision })
      .where(eq(hosts.id, host.id)),
    ...remove.map((key) => db.delete(hostKeys).where(isKey(key))),
    ...(remove.some(({ kind }) => kind === 'engine') ? [db.delete(engineKeys)] : []),
    ...add.map((key) => db.insert(hostKeys).values({ ...key, hostId: host.id })),
    ...(allowRecovery
      ? [db.update(hostKeys).set({ recoveryAllowed: true }).where(eq(hostKeys.hostId, host.id))]
      : []),
  ];
}

/**
 * The statements that revoke every key of a host's bouncers. The keys are looked up when the batch is written, so those are
 * among them that the host registers at the same moment.
 */
export function revokeKeysStatements(db: DrizzleD1Database, { id }: Host, nowMs: number) {
  const own = sql`(SELECT bouncers.id FROM bouncers JOIN host_keys ON kind = 'bouncer' AND host_keys.name = bouncers.name
    WHERE host_keys.host_id = ${id})`;
  return [
    ...revokeStatements(db, sql`bouncer_id IN ${own}`, nowMs),
    db
      .update(bouncers)
      .set(nextRevision)
      .where(sql`id IN ${own}`),
    ...changedStatements(db, own),
  ];
}

/** The statements that remove a host, with its keys, and leave a tombstone. */
export function removeHostStatements(db: DrizzleD1Database, host: Host, taken: Taken) {
  const removed = { removedMs: taken.blockedMs, suspectedMs: null, ...nextRevision };
  return [
    ...revokeKeysStatements(db, host, taken.blockedMs),
    ...endMachineStatements(db, host.id, taken),
    db.delete(engineKeys).where(eq(engineKeys.host, host.name)),
    db.delete(hostKeys).where(eq(hostKeys.hostId, host.id)),
    db.update(hosts).set(removed).where(eq(hosts.id, host.id)),
  ];
}

/** The statements that count a registration, and clear the rotation that was asked for. */
export function registeredStatements(
  db: DrizzleD1Database,
  key: HostKey,
  to: Partial<HostKey>,
  nowMs: number,
) {
  const done = { rotationAskedMs: null, graceMs: null, maxOverlapMs: null };
  const counted = { ...to, ...done, generation: key.generation + 1 };
  return [
    db.update(hostKeys).set(counted).where(isKey(key)),
    db.update(hosts).set({ seenMs: nowMs }).where(eq(hosts.id, key.hostId)),
  ];
}

export function useRecoveryStatements(db: DrizzleD1Database, key: HostKey) {
  return [db.update(hostKeys).set({ recoveryAllowed: false }).where(isKey(key))];
}

export function suspectStatements(db: DrizzleD1Database, host: Host, nowMs: number) {
  return [db.update(hosts).set({ suspectedMs: nowMs, seenMs: nowMs }).where(eq(hosts.id, host.id))];
}

/** A nonce as it is stored when it is burnt, and when it expires. */
export interface Nonce {
  readonly text: string;
  readonly expiresMs: number;
}

/** A row means that the nonce is burnt. */
export function selectBurnt(db: DrizzleD1Database, { text }: Nonce) {
  return db.select().from(burntNonces).where(eq(burntNonces.nonce, text));
}

/** The statements that burn a nonce, and delete expired ones. A clash on `burnt_nonces.nonce` means that it was burnt. */
export function burnStatements(db: DrizzleD1Database, { text, expiresMs }: Nonce, nowMs: number) {
  return [
    db.insert(burntNonces).values({ nonce: text, expiresMs }),
    db.delete(burntNonces).where(lt(burntNonces.expiresMs, nowMs)),
  ];
}

/** Burns the nonce of a request that changes nothing else; false when it was burnt before. */
export async function burn(
  d1: D1Database,
  { text, expiresMs }: Nonce,
  hostId: number,
  nowMs: number,
): Promise<boolean> {
  const [burnt] = await askD1(d1, (db) =>
    db.batch([
      db.insert(burntNonces).values({ nonce: text, expiresMs }).onConflictDoNothing().returning(),
      db.delete(burntNonces).where(lt(burntNonces.expiresMs, nowMs)),
      db.update(hosts).set({ seenMs: nowMs }).where(eq(hosts.id, hostId)),
    ]),
  );
  return burnt.length > 0;
}
