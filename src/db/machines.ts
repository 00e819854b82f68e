// The named queries on machines that are refused at the edge.

import { asc, eq, gt, sql, type SQL } from 'drizzle-orm';
import { drizzle, type DrizzleD1Database } from 'drizzle-orm/d1';
import { blockedMachines } from './schema.ts';

export type BlockedMachine = typeof blockedMachines.$inferSelect;

export async function findBlocked(d1: D1Database, machine: string): Promise<BlockedMachine | null> {
  const rows = await drizzle(d1).select().from(blockedMachines).where(eq(blockedMachines.machine, machine));
  return rows[0] ?? null;
}

/** A page by name. */
export function listBlocked(d1: D1Database, after: string, limit: number): Promise<BlockedMachine[]> {
  const rows = drizzle(d1).select().from(blockedMachines).where(gt(blockedMachines.machine, after));
  return rows.orderBy(asc(blockedMachines.machine)).limit(limit);
}

/** All of them: an isolate keeps the whole list. */
export async function blockedNames(d1: D1Database): Promise<string[]> {
  const rows = await drizzle(d1).select({ machine: blockedMachines.machine }).from(blockedMachines);
  return rows.map(({ machine }) => machine);
}

/** SQL for "it is blocked as it was read". */
export function stillBlocked({ machine, blockedMs }: BlockedMachine): SQL {
  return sql`EXISTS (SELECT 1 FROM blocked_machines WHERE machine = ${machine} AND blocked_ms = ${blockedMs})`;
}

export function blockStatements(db: DrizzleD1Database, row: BlockedMachine) {
  const target = blockedMachines.machine;
  return [db.insert(blockedMachines).values(row).onConflictDoUpdate({ target, set: row })];
}

export function unblockStatements(db: DrizzleD1Database, machine: string) {
  return [db.delete(blockedMachines).where(eq(blockedMachines.machine, machine))];
}
