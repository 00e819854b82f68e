// The named queries on the keys that hosts register: which host registers which, and what an operator asks of it. Of an
// engine the key of the host that sent it.

import { eq, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { bouncers, engineKeys, hostKeys, hosts } from '../store/schema.ts';

export type HostKey = typeof hostKeys.$inferSelect;

/** Which key a host registers. A bouncer's key has the bouncer's name, a machine's account the host's. */
export type KeyName = Pick<HostKey, 'kind' | 'name'>;

/** There is one for all engines: it has no name. */
export const keyOfEngine: KeyName = { kind: 'engine', name: '' };

export function keyOfBouncer(bouncer: string): KeyName {
  return { kind: 'bouncer', name: bouncer };
}

export function keyOfMachine(host: string): KeyName {
  return { kind: 'machine', name: host };
}

export function isSameKey({ kind, name }: KeyName, { kind: ofKind, name: named }: KeyName): boolean {
  return kind === ofKind && name === named;
}

export interface Owned {
  readonly hostKey: HostKey;
  readonly host: string;
}

/** Whose a key is, and what it may be registered with; no row: no host's. */
export function selectOwner(
  db: DrizzleD1Database,
  { kind, name }: { kind: HostKey['kind']; name: string | SQL },
) {
  return selectOwners(db, sql`kind = ${kind} AND host_keys.name = ${name}`);
}

/** The same of several. */
export function selectOwnersOf(db: DrizzleD1Database, keys: readonly KeyName[]) {
  return selectOwners(
    db,
    sql`(kind, host_keys.name) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]')
      FROM json_each(${JSON.stringify(keys.map(({ kind, name }) => [kind, name]))}))`,
  );
}

function selectOwners(db: DrizzleD1Database, which: SQL) {
  return (
    db
      // A batch gives rows by the names of their columns, and both tables have a name.
      .select({ hostKey: hostKeys, host: sql<string>`${hosts.name}`.as('host') })
      .from(hostKeys)
      .innerJoin(hosts, eq(hosts.id, hostKeys.hostId))
      .where(which)
  );
}

export function isKey({ kind, name }: KeyName): SQL {
  return sql`${hostKeys.kind} = ${kind} AND ${hostKeys.name} = ${name}`;
}

export function askRotationStatements(db: DrizzleD1Database, bouncer: string, to: Partial<HostKey>) {
  return [
    db
      .update(hostKeys)
      .set(to)
      .where(isKey(keyOfBouncer(bouncer))),
    db
      .update(bouncers)
      .set({ revision: sql`revision + 1` })
      .where(eq(bouncers.name, bouncer)),
  ];
}

export type EngineKey = typeof engineKeys.$inferSelect;

/** Which engine's key a host sent last; no row: none. The feed's object has the key itself. */
export function selectEngineKey(db: DrizzleD1Database) {
  return db.select().from(engineKeys).limit(1);
}

export function keepEngineKeyStatements(db: DrizzleD1Database, key: Omit<EngineKey, 'id'>) {
  return [
    db
      .insert(engineKeys)
      .values({ id: 0, ...key })
      .onConflictDoUpdate({ target: engineKeys.id, set: key }),
  ];
}
