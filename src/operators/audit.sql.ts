// Reading the audit log. Writing is audited.ts's, and nobody else's.

import { and, desc, eq, lt } from 'drizzle-orm';
import { askD1 } from '../store/ask.ts';
import { rowsAfter, type AuditRow } from '../store/audit.sql.ts';
import { audit } from '../store/schema.ts';

export interface AuditFilter {
  readonly actor?: string | undefined;
  readonly action?: string | undefined;
  readonly target?: string | undefined;
}

/** The newest rows before `beforeSeq` that pass the filter. */
export function listAudit(
  d1: D1Database,
  filter: AuditFilter,
  beforeSeq: number | null,
  limit: number,
): Promise<AuditRow[]> {
  const conditions = [
    ...(filter.actor === undefined ? [] : [eq(audit.actor, filter.actor)]),
    ...(filter.action === undefined ? [] : [eq(audit.action, filter.action)]),
    ...(filter.target === undefined ? [] : [eq(audit.target, filter.target)]),
    ...(beforeSeq === null ? [] : [lt(audit.seq, beforeSeq)]),
  ];
  return askD1(d1, (db) =>
    db
      .select()
      .from(audit)
      .where(and(...conditions))
      .orderBy(desc(audit.seq))
      .limit(limit),
  );
}

const pageRows = 5000;

/** Rows in order from behind a number, a page at a time, up to so many. */
export async function* auditPages(
  d1: D1Database,
  after: number,
  mostRows: number,
): AsyncGenerator<AuditRow[]> {
  for (let from = after; from - after < mostRows;) {
    const rows = await rowsAfter(d1, from, pageRows);
    yield rows;
    const last = rows.at(-1);
    if (!last || rows.length < pageRows) return;
    from = last.seq;
  }
}

/** A row by its number. */
export async function findAuditRow(d1: D1Database, seq: number): Promise<AuditRow | null> {
  const [row] = await askD1(d1, (db) => db.select().from(audit).where(eq(audit.seq, seq)));
  return row ?? null;
}
