// What bouncers' reports add up to, a row for each bouncer in the feed's object. A report is written at once: bouncers send one
// every ten minutes or more. No row is held in memory. Losing one begins its bouncer's sums anew.

import { openTable } from './tables.ts';
import { withWindows, type Sums, type Usage, type Window } from './usage.ts';

const createTable = `CREATE TABLE IF NOT EXISTS usage (
  bouncer_id INTEGER PRIMARY KEY, windows TEXT NOT NULL, sums TEXT NOT NULL)`;

/** A report, and the bouncer that it is of. */
export interface UsageReport {
  readonly bouncerId: number;
  readonly windows: readonly Window[];
}

export interface UsagePage {
  /** The sums (`readUsage`) of each bouncer. */
  readonly bouncers: readonly { readonly bouncerId: number; readonly sums: string }[];
  /** The bouncer to go on after; null: there are no more. */
  readonly next: number | null;
}

/** Some 500 KB at most. */
const pageRows = 250;

/** Flat, since there may be 10,000 rows. */
type Stored = readonly [Usage['item'], unit: string, origin: string, remediation: string, ip: string, number];

export type UsageSums = ReturnType<typeof openUsage>;

/** `isDeleted`: whether a bouncer was deleted of late. */
export function openUsage(sql: SqlStorage, isDeleted: (bouncerId: number) => boolean) {
  const table = openTable(sql, createTable);

  const read = (bouncerId: number): Sums => {
    const select = `SELECT windows, sums FROM usage WHERE bouncer_id = ?`;
    const [row] = sql.exec<{ windows: string; sums: string }>(select, bouncerId).toArray();
    return row
      ? { windows: JSON.parse(row.windows) as string[], usage: readUsage(row.sums) }
      : { windows: [], usage: [] };
  };

  return {
    /** Adds a report, once. Throws if it can't be written. */
    take({ bouncerId, windows }: UsageReport): void {
      if (isDeleted(bouncerId)) return;
      table.make();
      const before = read(bouncerId);
      const after = withWindows(before, windows);
      if (after === before) return;
      const sums = after.usage.map((one): Stored => {
        return [one.item, one.unit, one.origin, one.remediation, one.ipType, one.value];
      });
      sql.exec(
        `INSERT OR REPLACE INTO usage VALUES (?, ?, ?)`,
        bouncerId,
        JSON.stringify(after.windows),
        JSON.stringify(sums),
      );
    },
    forgetBouncer(bouncerId: number): void {
      if (table.isThere()) sql.exec(`DELETE FROM usage WHERE bouncer_id = ?`, bouncerId);
    },
    forgetBouncersAfter(bouncerId: number): void {
      if (table.isThere()) sql.exec(`DELETE FROM usage WHERE bouncer_id > ?`, bouncerId);
    },
    /** `afterId`: 0 begins. */
    page(afterId: number): UsagePage {
      if (!table.isThere()) return { bouncers: [], next: null };
      const select = `SELECT bouncer_id AS bouncerId, sums FROM usage WHERE bouncer_id > ? ORDER BY bouncer_id LIMIT ?`;
      const rows = sql.exec<{ bouncerId: number; sums: string }>(select, afterId, pageRows).toArray();
      return { bouncers: rows, next: rows.length < pageRows ? null : (rows.at(-1)?.bouncerId ?? null) };
    },
  };
}

/** The sums of a page's row. */
export function readUsage(sums: string): Usage[] {
  return (JSON.parse(sums) as Stored[]).map(([item, unit, origin, remediation, ipType, value]) => {
    return { item, unit, origin, remediation, ipType, value };
  });
}
