// Queries on machines: the accounts of hosts, and which machines are blocked.

import { asc, eq, gt, sql, type SQL } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { askD1 } from '../store/ask.ts';
import { rowJson, listed } from '../store/facts.ts';
import { blockedMachines, hostMachines } from '../store/schema.ts';

export type BlockedMachine = typeof blockedMachines.$inferSelect;

/** Of some machines, those that are blocked. */
export function selectBlocked(db: DrizzleD1Database, machines: readonly string[]) {
  return db
    .select()
    .from(blockedMachines)
    .where(sql`machine IN ${listed(machines)}`);
}

/** The account of a host by the host's name, and whether an operator blocked it. */
export function selectAccount(db: DrizzleD1Database, host: string) {
  return db
    .select({ account: hostMachines, isBlocked: sql<0 | 1>`blocked_machines.machine IS NOT NULL` })
    .from(hostMachines)
    .leftJoin(blockedMachines, eq(blockedMachines.machine, hostMachines.machine))
    .where(sql`host_id = (SELECT id FROM hosts WHERE name = ${host})`);
}

/** A page by name. */
export function listBlocked(d1: D1Database, after: string, limit: number): Promise<BlockedMachine[]> {
  const { machine } = blockedMachines;
  return askD1(d1, (db) =>
    db.select().from(blockedMachines).where(gt(machine, after)).orderBy(asc(machine)).limit(limit),
  );
}

/** All blocked names: an isolate keeps the whole list. */
export async function blockedNames(d1: D1Database): Promise<string[]> {
  const { machine } = blockedMachines;
  const rows = await askD1(d1, (db) => db.select({ machine }).from(blockedMachines));
  return rows.map((row) => row.machine);
}

/** SQL for "it is blocked as it was read". */
export function stillBlocked({ machine, blockedMs }: BlockedMachine): SQL {
  return sql`EXISTS (SELECT 1 FROM blocked_machines WHERE machine = ${machine} AND blocked_ms = ${blockedMs})`;
}

/** SQL for a blocked machine, as JSON. */
export function blockedJson(machine: string): SQL {
  return sql`(SELECT ${rowJson(blockedMachines)} FROM blocked_machines WHERE machine = ${machine})`;
}

export function blockStatements(db: DrizzleD1Database, row: BlockedMachine) {
  const target = blockedMachines.machine;
  return [db.insert(blockedMachines).values(row).onConflictDoUpdate({ target, set: row })];
}

export function unblockStatements(db: DrizzleD1Database, machine: string) {
  return [db.delete(blockedMachines).where(eq(blockedMachines.machine, machine))];
}

export type HostMachine = typeof hostMachines.$inferSelect;

/** SQL for "the host may have an account at this engine, and neither this name nor the name that it has is blocked". */
export function mayHave(hostId: number, machine: string, engine: string): SQL {
  return sql`EXISTS (SELECT 1 FROM hosts WHERE id = ${hostId} AND machine_engine = ${engine})
    AND NOT EXISTS (SELECT 1 FROM blocked_machines WHERE machine = ${machine}
      OR machine IN (SELECT machine FROM host_machines WHERE host_id = ${hostId}))`;
}

/** Why a host lost its account, for those who read the list. */
export interface Taken {
  readonly blockedMs: number;
  readonly actor: string;
  readonly reason: string;
}

/**
 * Removes a host's account. The engine still knows it, so its name is blocked here. Also used before a host gets another
 * account: whoever has the password of the earlier one need not be the host. An account that was blocked before stays the
 * host's, and the host gets no other.
 */
export function takeMachineStatements(db: DrizzleD1Database, hostId: number, taken: Taken) {
  const { blockedMs, actor, reason } = taken;
  return [
    // An insertion from a query names every column of the schema, in its order.
    db.insert(blockedMachines).select(sql`SELECT machine, ${blockedMs}, ${actor}, ${reason} FROM host_machines
      WHERE host_id = ${hostId} AND machine NOT IN (SELECT machine FROM blocked_machines)`),
    db.delete(hostMachines).where(sql`${hostMachines.hostId} = ${hostId} AND machine IN
      (SELECT machine FROM blocked_machines WHERE blocked_ms = ${blockedMs} AND actor = ${actor})`),
  ];
}

/** Removes a host's account for an operator: the host may get another one, also if this one was blocked before. */
export function endMachineStatements(db: DrizzleD1Database, hostId: number, taken: Taken) {
  return [
    ...takeMachineStatements(db, hostId, taken),
    db.delete(hostMachines).where(eq(hostMachines.hostId, hostId)),
  ];
}

export function giveMachineStatements(db: DrizzleD1Database, row: typeof hostMachines.$inferInsert) {
  return [db.insert(hostMachines).values(row)];
}

/** Notes whether the engine accepts an account: `validatedMs` stays that of the first time; null: it waits again. */
export async function noteState(
  d1: D1Database,
  { hostId, machine, validatedMs }: Pick<HostMachine, 'hostId' | 'machine' | 'validatedMs'>,
): Promise<void> {
  const changes = sql`${hostMachines.hostId} = ${hostId} AND machine = ${machine}
    AND (validated_ms IS NULL) <> (${validatedMs} IS NULL)`;
  await askD1(d1, (db) => db.update(hostMachines).set({ validatedMs }).where(changes));
}
