// The audit log as operators read it, and whether it is whole.

import * as z from 'zod';
import { auditPages, findAuditRow } from './audit.sql.ts';
import { faultOf, type AuditHead, type AuditRow } from '../store/audit.sql.ts';
import type { AuditMemory, LostTail } from '../writer/revocations.sql.ts';
import { parseJson } from '../http/body.ts';
import { isoTime, time } from '../operations/fields.ts';
import { askFeed } from '../feed/client.ts';
import { succeed, type Result } from '../http/failure.ts';
import { type Mutation, note } from '../operations/mutate.ts';
import { settleStore } from '../operations/settle.ts';

export const auditShape = z
  .object({
    seq: z.int(),
    at: time,
    actor: z.string(),
    action: z.string().meta({ example: 'bouncer.rotate' }),
    target: z.string(),
    detail: z.unknown().meta({ description: 'A text, where somebody wrote into the log what is no JSON.' }),
    hash: z.string().meta({ description: 'SHA-256 over the hash of the row before, and this row.' }),
  })
  .meta({ id: 'AuditRow' });

const headShape = z.object({ seq: z.int(), hash: z.string() });

export const verdictShape = z.union([
  z.object({
    ok: z.literal(true),
    rows: z.int().meta({ description: 'How many there are up to `head`.' }),
    head: headShape.meta({
      description: 'The hash stands for all rows up to here: ask for those behind it with both.',
    }),
    removed: headShape
      .optional()
      .meta({ description: 'The last row that was removed by its age: the log begins behind it.' }),
    next: z.int().nullable().meta({ description: 'Ask again with `after` set to it: the log goes on.' }),
    lost: z
      .array(
        z.object({
          ended_at: z.int(),
          hash: z.string(),
          goes_on_at: z.int(),
          found_at: time,
          acknowledged_at: time.nullable(),
        }),
      )
      .optional()
      .meta({ description: 'Ends of the log that a restored D1 lost, and that an operator knows of.' }),
  }),
  z.object({ ok: z.literal(false), seq: z.int(), problem: z.string() }),
]);

export function describeAudit(row: AuditRow): z.input<typeof auditShape> {
  const { seq, atMs, actor, action, target, detailJson, hash } = row;
  const parsed = parseJson(detailJson);
  const detail = parsed.ok ? parsed.value : detailJson;
  return { seq, at: isoTime(atMs), actor, action, target, detail, hash };
}

type Verdict = z.input<typeof verdictShape>;

/** So long the sealing of a row may take. */
const unsealedMs = 60_000;

/** Rows that are followed in one request: a million would be more of CPU and of D1 than one may take. */
export const mostVerified = 50_000;

/** Where somebody begins: behind a row, which he may know by its hash. */
export interface After {
  readonly after: number;
  readonly hash?: string | undefined;
}

/** Follows the chain from there, or from the first row that is left. `remembered` is what the feed's object knows of it. */
export async function verifyLog(
  d1: D1Database,
  { after, hash }: After,
  remembered: AuditMemory,
  nowMs: number,
): Promise<Verdict> {
  const { removed } = remembered;
  const start = after <= removed.seq ? removed : await findAuditRow(d1, after);
  if (!start) return { ok: false, seq: after, problem: 'a row is missing' };
  if (hash !== undefined && start.seq === after && start.hash !== hash) {
    return { ok: false, seq: after, problem: 'the chain was written anew' };
  }
  return verifyChain(start, auditPages(d1, start.seq, mostVerified), remembered, nowMs);
}

/**
 * Follows the chain from behind `start` (its hash as D1 has it: whoever asked for the rows before has looked at that one)
 * through `pages`, the rows in order of `seq`.
 */
async function verifyChain(
  start: AuditHead,
  pages: AsyncIterable<readonly AuditRow[]>,
  { removed, anchor, lost }: AuditMemory,
  nowMs: number,
): Promise<Verdict> {
  let head = start;
  for await (const rows of pages) {
    for (const row of rows) {
      const problem = await problemOf(row, head, anchor, nowMs);
      if (problem !== null) return { ok: false, seq: Math.min(row.seq, head.seq + 1), problem };
      head = { seq: row.seq, hash: row.hash };
    }
  }
  const good = {
    ok: true,
    rows: head.seq - removed.seq,
    head,
    ...(removed.seq === 0 ? {} : { removed }),
  } as const;
  if (head.seq - start.seq >= mostVerified) return { ...good, next: head.seq };
  if (head.seq < anchor.seq)
    return { ok: false, seq: head.seq + 1, problem: `the log ended at row ${anchor.seq} before` };
  const open = lost.find(({ acknowledgedMs }) => acknowledgedMs === null);
  if (open) {
    const problem =
      `the log ended at row ${open.seq} before, and goes on at row ${open.goesOnAt}: D1 was restored, or the end of ` +
      `the log was cut off or written anew. If you know why: POST /api/v1/audit/acknowledge`;
    return { ok: false, seq: open.goesOnAt, problem };
  }
  const named = lost.length === 0 ? {} : { lost: lost.map(describeLostTail) };
  return { ...good, next: null, ...named };
}

/** What is wrong with a row behind `before`; null: nothing. */
async function problemOf(
  row: AuditRow,
  before: AuditHead,
  anchor: AuditHead,
  nowMs: number,
): Promise<string | null> {
  const fault = await faultOf(row, before);
  if (fault !== null) return fault;
  if (row.hash === '') {
    if (row.seq <= anchor.seq) return 'a row was changed';
    return nowMs - row.atMs > unsealedMs ? 'the row was never sealed' : null;
  }
  if (row.seq === anchor.seq && row.hash !== anchor.hash) return 'the chain was written anew';
  return null;
}

function describeLostTail({ seq, hash, goesOnAt, foundMs, acknowledgedMs }: LostTail) {
  return {
    ended_at: seq,
    hash,
    goes_on_at: goesOnAt,
    found_at: isoTime(foundMs),
    acknowledged_at: isoTime(acknowledgedMs),
  };
}

/** That the log breaks off somewhere is known to an operator, and `GET /audit/verify` may say so and be content. */
export async function acknowledgeLostTails(env: Env, mutation: Mutation): Promise<Result<number>> {
  // Of a D1 that was restored just now the break may not be known yet.
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
