// The audit log as operators read it, and whether it is whole. It is written in store/audit.sql.ts alone.

import { and, desc, eq, lt } from 'drizzle-orm';
import * as z from 'zod';
import { askD1 } from '../store/ask.ts';
import type { AuditRow } from '../store/audit.sql.ts';
import { audit } from '../store/schema.ts';
import type { AuditMemory, LostTail } from '../writer/revocations.sql.ts';
import { followChain } from '../writer/verify.ts';
import { parseJson } from '../http/body.ts';
import { cursor, isoTime, pageFields, time } from '../operations/fields.ts';
import { askFeed } from '../feed/client.ts';
import { succeed, type Result } from '../http/failure.ts';
import { type Mutation, note } from '../operations/mutate.ts';
import { settleStore } from '../operations/settle.ts';

export const auditPage = z.strictObject({
  actor: z.string().optional(),
  action: z.string().optional(),
  target: z.string().optional(),
  before: cursor.optional().meta({ description: 'The `next` of the page before.' }),
  ...pageFields,
});

export const verifyQuery = z
  .strictObject({
    after: cursor
      .optional()
      .meta({ description: 'The `next` of the answer before, or the `seq` of its `head`.' }),
    hash: z
      .string()
      .regex(/^[0-9a-f]{64}$/, 'must be 64 lower-case hex digits')
      .optional()
      .meta({ description: 'The hash that row `after` had.' }),
  })
  .refine(({ after, hash }) => hash === undefined || after !== undefined, {
    path: ['after'],
    error: 'is required with hash',
  });

export const auditShape = z
  .object({
    seq: z.int(),
    at: time,
    actor: z.string(),
    action: z.string().meta({ example: 'bouncer.rotate' }),
    target: z.string(),
    detail: z.unknown().meta({ description: 'A text where the row’s detail is not JSON any more.' }),
    hash: z.string().meta({ description: 'SHA-256 over the hash of the row before, and this row.' }),
  })
  .meta({ id: 'AuditRow' });

const headShape = z.object({ seq: z.int(), hash: z.string() });

const lostShape = z
  .array(
    z.object({
      ended_at: z.int().meta({ description: 'The last row that was known.' }),
      hash: z.string(),
      goes_on_at: z.int().meta({ description: 'The row at which the log goes on instead.' }),
      found_at: time,
      acknowledged_at: time.nullable(),
    }),
  )
  .optional()
  .meta({ description: 'What restored backups of D1 lost of the log. Null: nobody acknowledged it yet.' });

export const verdictShape = z.union([
  z.object({
    ok: z.literal(true),
    rows: z.int().meta({ description: 'How many there are up to `head`.' }),
    head: headShape.meta({
      description: 'Its hash stands for all rows up to here: send both to verify what comes after.',
    }),
    removed: headShape
      .optional()
      .meta({ description: 'The last row that was removed by its age: the log begins after it.' }),
    next: z
      .int()
      .nullable()
      .meta({ description: 'Not null: the log goes on; ask again with `after` set to it.' }),
    lost: lostShape,
  }),
  z.object({ ok: z.literal(false), seq: z.int(), problem: z.string(), lost: lostShape }),
]);

export function describeAudit(row: AuditRow): z.input<typeof auditShape> {
  const { seq, atMs, actor, action, target, detailJson, hash } = row;
  const parsed = parseJson(detailJson);
  const detail = parsed.ok ? parsed.value : detailJson;
  return { seq, at: isoTime(atMs), actor, action, target, detail, hash };
}

/** The newest rows that pass the filter. */
export function listAudit(d1: D1Database, filter: z.output<typeof auditPage>): Promise<AuditRow[]> {
  const { actor, action, target, before, limit } = filter;
  const passes = and(
    actor === undefined ? undefined : eq(audit.actor, actor),
    action === undefined ? undefined : eq(audit.action, action),
    target === undefined ? undefined : eq(audit.target, target),
    before === undefined ? undefined : lt(audit.seq, before),
  );
  return askD1(d1, (db) => db.select().from(audit).where(passes).orderBy(desc(audit.seq)).limit(limit));
}

type Verdict = z.input<typeof verdictShape>;

/** Where the log breaks off. */
export type Break = NonNullable<z.input<typeof lostShape>>[number];

/** Rows that are verified in one request: a million would take too much CPU and too many queries of D1. */
export const mostVerified = 50_000;
const pageRows = 5000;

/**
 * Follows the chain from a row, or from the first row that is left. The row itself is taken as D1 has it: who asks for
 * the rows after it has verified it before, or knows its hash. `remembered`: what the feed's object knows of the log.
 */
export async function verifyLog(
  d1: D1Database,
  { after = 0, hash }: z.output<typeof verifyQuery>,
  { removed, anchor, lost }: AuditMemory,
  nowMs: number,
): Promise<Verdict> {
  const breaks = lost.length === 0 ? {} : { lost: lost.map(describeBreak) };
  const fault = (seq: number, problem: string): Verdict => ({ ok: false, seq, problem, ...breaks });
  const [start] = after <= removed.seq ? [removed] : await rowsAt(d1, after);
  if (!start) return fault(after, 'a row is missing');
  if (hash !== undefined && start.seq === after && start.hash !== hash) {
    return fault(after, 'the chain was written anew');
  }
  const memory = { removed, anchor, lost };
  const followed = await followChain(d1, start, memory, { most: mostVerified, pageRows }, nowMs);
  if (followed.fault) return fault(followed.fault.seq, followed.fault.problem);
  const { head } = followed;
  const whole = { ok: true, rows: head.seq - removed.seq, head } as const;
  const good = removed.seq === 0 ? whole : { ...whole, removed };
  if (!followed.ended) return { ...good, next: head.seq };
  return { ...good, next: null, ...breaks };
}

function describeBreak({ seq, hash, goesOnAt, foundMs, acknowledgedMs }: LostTail): Break {
  const [found, acknowledged] = [isoTime(foundMs), isoTime(acknowledgedMs)];
  return { ended_at: seq, hash, goes_on_at: goesOnAt, found_at: found, acknowledged_at: acknowledged };
}

/** The breaks of the log that nobody has acknowledged. */
export async function openBreaks(env: Env): Promise<Break[]> {
  const lost = await askFeed(env, async (feed) => feed.lostTails());
  return lost.filter(({ acknowledgedMs }) => acknowledgedMs === null).map(describeBreak);
}

function rowsAt(d1: D1Database, seq: number): Promise<AuditRow[]> {
  return askD1(d1, (db) => db.select().from(audit).where(eq(audit.seq, seq)));
}

/** An operator acknowledges the breaks of the log; `GET /audit/verify` is content with them from then on. */
export async function acknowledgeLostTails(env: Env, mutation: Mutation): Promise<Result<number>> {
  // Where D1 was restored just now, this finds the break.
  await settleStore(env);
  const lost = await askFeed(env, async (feed) => feed.lostTails());
  const open = lost.filter(({ acknowledgedMs }) => acknowledgedMs === null);
  const last = open.at(-1);
  if (!last) return succeed(0);
  const rows = open.map(({ seq, goesOnAt }) => ({ ended_at: seq, goes_on_at: goesOnAt }));
  const target = `row ${last.goesOnAt}`;
  const noted = await note({ ...mutation, idempotency: null }, 'audit.acknowledge', target, { rows });
  if (!noted.ok) return noted;
  await askFeed(env, async (feed) => feed.acknowledgeLostTails(last.foundMs));
  return succeed(open.length);
}
