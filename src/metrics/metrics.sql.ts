// SQL that reads what the metrics say of D1: pages of bouncers, hosts by state, the audit log by action.

import { asc, gt, sql } from 'drizzle-orm';
import { askD1 } from '../store/ask.ts';
import { listed } from '../store/facts.ts';
import { endOf } from '../bouncers/versions.ts';
import { hostState } from '../hosts/hosts.sql.ts';
import { audit, bouncers, hosts } from '../store/schema.ts';

const patienceMs = 5_000;

/** A version of a key. `endMs`: `Infinity` is never. */
export interface Version {
  readonly number: number;
  readonly createdMs: number;
  readonly endMs: number;
}

/** How many decisions of an origin a bouncer has reported that it enforces. */
export interface Enforced {
  readonly origin: string;
  readonly ipType: string;
  readonly count: number;
}

export interface BouncerRow {
  readonly id: number;
  readonly name: string;
  /** The limits of its policy, as JSON; null: it has none. */
  readonly viewJson: string | null;
  /** Since when it is paused; null: it is not. */
  readonly pausedMs: number | null;
  readonly versions: readonly Version[];
  /** When its newest report came; null: it has none, or an old one. */
  readonly reportedMs: number | null;
}

const versions = sql`(SELECT json_group_array(json_array(number, created_ms, expires_ms, deadline_ms) ORDER BY number)
  FROM key_versions WHERE bouncer_id = bouncers.id)`;

/** More origins than this are cut off: a report may be 1 MB. */
const mostEnforced = 50;

/**
 * The `active_decisions` of a report's last window. Reports are kept as they came, so nothing is known of their form: each
 * element is looked into only where it is an object.
 */
const enforced = sql`(SELECT json_group_array(json_array(origin, ip_type, total)) FROM (
  SELECT substr(CAST(coalesce(item ->> '$.labels.origin', '') AS TEXT), 1, 200) AS origin,
    CAST(coalesce(item ->> '$.labels.ip_type', '') AS TEXT) AS ip_type,
    total(item ->> '$.value') AS total
  FROM (SELECT CASE type WHEN 'object' THEN value ELSE '{}' END AS item
    FROM json_each(bouncers.metrics_json, '$.metrics[#-1].items'))
  WHERE item ->> '$.name' = 'active_decisions' AND json_type(item, '$.value') IN ('integer', 'real')
  GROUP BY 1, 2 ORDER BY total DESC LIMIT ${mostEnforced}))`;

/** A page of bouncers by id. Of reports only those count that came after `reportedSinceMs`. */
export async function readBouncers(
  d1: D1Database,
  afterId: number,
  limit: number,
  reportedSinceMs: number,
): Promise<BouncerRow[]> {
  const columns = {
    id: bouncers.id,
    name: bouncers.name,
    viewJson: bouncers.viewJson,
    pausedMs: bouncers.pausedMs,
    versions: sql<string>`${versions}`.as('versions'),
    reportedMs: sql<number | null>`CASE WHEN metrics_ms > ${reportedSinceMs} THEN metrics_ms END`.as('ms'),
  };
  const { id } = bouncers;
  const rows = await askD1(
    d1,
    (db) => db.select(columns).from(bouncers).where(gt(id, afterId)).orderBy(asc(id)).limit(limit),
    patienceMs,
  );
  return rows.map((row) => ({ ...row, versions: versionsOf(row.versions) }));
}

/** What the newest reports of some bouncers say is enforced, for `enforcedIn`. `reportedMs`: of the report that was read. */
export function readEnforced(
  d1: D1Database,
  ids: readonly number[],
): Promise<{ readonly id: number; readonly reportedMs: number; readonly json: string }[]> {
  const columns = {
    id: bouncers.id,
    reportedMs: sql<number>`metrics_ms`.as('ms'),
    json: sql<string>`CASE WHEN json_valid(metrics_json) THEN ${enforced} ELSE '[]' END`.as('enforced'),
  };
  const isAsked = sql`${bouncers.id} IN ${listed(ids)} AND metrics_ms IS NOT NULL`;
  return askD1(d1, (db) => db.select(columns).from(bouncers).where(isAsked), patienceMs);
}

/** The largest first. */
export function enforcedIn(json: string): Enforced[] {
  return (JSON.parse(json) as [string, string, number][]).map(([origin, ipType, count]) => {
    return { origin, ipType, count };
  });
}

type StoredVersion = [number: number, createdMs: number, expiresMs: number | null, deadlineMs: number | null];

function versionsOf(json: string): Version[] {
  return (JSON.parse(json) as StoredVersion[]).map(([number, createdMs, expiresMs, deadlineMs]) => {
    return { number, createdMs, endMs: endOf({ expiresMs, deadlineMs }) };
  });
}

/** Hosts by state, as operators see it (hosts/hosts.ts), and the rows of the audit log after `afterSeq`. */
export async function readTotals(d1: D1Database, afterSeq: number) {
  const state = hostState.as('state');
  const [byState, added, [last]] = await askD1(
    d1,
    (db) =>
      db.batch([
        db
          .select({ state, count: sql<number>`count(*)`.as('count') })
          .from(hosts)
          .where(sql`removed_ms IS NULL`)
          .groupBy(sql`1`),
        db
          .select({ action: audit.action, count: sql<number>`count(*)`.as('count') })
          .from(audit)
          .where(gt(audit.seq, afterSeq))
          .groupBy(audit.action),
        db.select({ seq: sql<number | null>`max(${audit.seq})`.as('seq') }).from(audit),
      ]),
    patienceMs,
  );
  const newest = last?.seq ?? 0;
  return { hosts: new Map(byState.map((each) => [each.state, each.count])), newest, added };
}
