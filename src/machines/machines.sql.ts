// The named queries on machines: which are hosts', and which are refused at the edge.

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

/** The account of the host of a name, and whether an operator refuses it. */
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

/** All of them: an isolate keeps the whole list. */
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

/** SQL for "the host may have an account at this engine, and nobody refuses this name, or the one that it has". */
export function mayHave(hostId: number, machine: string, engine: string): SQL {
  return sql`EXISTS (SELECT 1 FROM hosts WHERE id = ${hostId} AND machine_engine = ${engine})
    AND NOT EXISTS (SELECT 1 FROM blocked_machines WHERE machine = ${machine}
      OR machine IN (SELECT machine FROM host_machines WHERE host_id = ${hostId}))`;
}

/** Why a host has an account no longer, for those who read the list. */
export interface Taken {
  readonly blockedMs: number;
  readonly actor: string;
  readonly reason: string;
}

/**
 * The statements that take a host's account away: its engine goes on knowing it, so its name is refused here. Before a
 * host gets another account, too: who has the password of the one before is not the host any more. One that was refused
 * before stays the host's: it gets no other then.
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

/** Takes it away on an operator's word: after that the host may get another, also if an operator refuses that one. */
export function endMachineStatements(db: DrizzleD1Database, hostId: number, taken: Taken) {
  return [
    ...takeMachineStatements(db, hostId, taken),
    db.delete(hostMachines).where(eq(hostMachines.hostId, hostId)),
  ];
}

export function giveMachineStatements(db: DrizzleD1Database, row: typeof hostMachines.$inferInsert) {
  return [db.insert(hostMachines).values(row)];
}

/** Notes how the engine takes an account: `validatedMs` stays that of the first time, null is that it waits again. */
export async function noteState(
  d1: D1Database,
  { hostId, machine, validatedMs }: Pick<HostMachine, 'hostId' | 'machine' | 'validatedMs'>,
): Promise<void> {
  const changes = sql`${hostMachines.hostId} = ${hostId} AND machine = ${machine}
    AND (validated_ms IS NULL) <> (${validatedMs} IS NULL)`;
  await askD1(d1, (db) => db.update(hostMachines).set({ validatedMs }).where(changes));
}
