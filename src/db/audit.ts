// Reading the audit log. Writing is audited.ts's, and nobody else's.

import { and, asc, desc, eq, gt, lt } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/d1';
import type { AuditRow } from './audited.ts';
import { audit } from './schema.ts';

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
  const db = drizzle(d1);
  return db
    .select()
    .from(audit)
    .where(and(...conditions))
    .orderBy(desc(audit.seq))
    .limit(limit);
}

const pageRows = 1000;

/** The whole log in order, a page at a time. */
export async function* auditPages(d1: D1Database): AsyncGenerator<AuditRow[]> {
  const db = drizzle(d1);
  for (let after = 0; ;) {
    const rows = await db
      .select()
      .from(audit)
      .where(gt(audit.seq, after))
      .orderBy(asc(audit.seq))
      .limit(pageRows);
    yield rows;
    const last = rows.at(-1);
    if (!last || rows.length < pageRows) return;
    after = last.seq;
  }
}
