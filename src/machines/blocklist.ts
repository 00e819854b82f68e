// Machines that an operator refuses at the edge. Their tokens are the engine's, and good there until they end, also when
// the machine was deleted; so this is how one is stopped at once. An isolate keeps the whole list for 5 s: that is the
// bound on a block, as on a revocation.

import { waitUntil } from 'cloudflare:workers';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import * as z from 'zod';
import * as db from './machines.sql.ts';
import { always } from '../store/audit.sql.ts';
import { badInput, causeOf, done, fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { createAsking } from '../store/asking.ts';
import { createConfirmation } from '../store/confirmation.ts';
import { isoTime, time } from '../operations/fields.ts';
import {
  afterMutation,
  mutate,
  nothingRead,
  type Answer,
  type Draft,
  type Mutation,
  type Shown,
} from '../operations/mutate.ts';

export const blockedShape = z
  .object({
    machine: z.string().meta({ description: 'Its `machine_id` at the engine.' }),
    blocked_at: time,
    blocked_by: z.string(),
    reason: z.string().nullable(),
  })
  .meta({ id: 'BlockedMachine' });

export const reason = z
  .string('must be a text')
  .max(200, 'must be at most 200 characters')
  .optional()
  .meta({ description: 'For those who read the list later.', example: 'host was stolen' });

/**
 * A machine's name as the laxest engine compares it: without the spaces at its end. MySQL and MariaDB pad names with
 * them (PAD SPACE), so there `lab ` logs in as `lab`; with another database the two are stopped as one all the same.
 */
export function bareName(machine: string): string {
  // A regular expression tries every run of spaces in what may be a name of megabytes.
  let end = machine.length;
  while (machine[end - 1] === ' ') end--;
  return machine.slice(0, end);
}

/** Why a host gets no account, and may have no right to one: no log-in with it would come through. */
export const noMachines = 'machines can not reach an engine through here: MACHINE_ROUTES is off';

/** Said to be ours: the engine, where somebody will look for the reason, has none. */
const blocked: Failure = {
  kind: 'forbidden',
  problem: 'access forbidden: an operator blocked this machine at Lapidary',
};

/** The whole list, as D1 had it when that was confirmed. */
let names: ReadonlySet<string> = new Set();
const confirmation = createConfirmation();
const wholeList = 'blocked';

const ask = createAsking<D1Database, ReadonlySet<string>>(
  async (d1) => {
    const asked = confirmation.ask(Date.now());
    const read = new Set((await db.blockedNames(d1)).map(bareName));
    if (!asked.isLate()) {
      // What was blocked here while it was read may not be in it.
      names = asked.isOvertaken() ? read.union(names) : read;
      asked.confirm();
    }
    return new Map([[wholeList, read]]);
  },
  (error) => {
    console.error(`the list of blocked machines is out of reach: ${causeOf(error).message}`);
    confirmation.fail(Date.now());
  },
);

/**
 * `forbidden` for a machine that is blocked; `unavailable` when that can't be told. With D1 out of reach the list counts
 * as long as a bouncer's key does.
 */
export async function checkMachine(d1: D1Database, machine: string, nowMs: number): Promise<Result<void>> {
  const recall = (): ReadonlySet<string> | undefined =>
    confirmation.isTrusted(Date.now()) ? names : undefined;
  let list = recall();
  if (list && confirmation.takeRetry(nowMs)) waitUntil(ask(d1, wholeList).catch(() => undefined));
  try {
    list ??= await ask(d1, wholeList, recall);
  } catch {
    if (!confirmation.isGraced(nowMs)) {
      return fail({ kind: 'unavailable', problem: 'machines can not be checked now; try again' });
    }
    list = names;
  }
  return list.has(bareName(machine)) ? fail(blocked) : done;
}

/** This isolate may have changed the list itself: it reads anew at the next use, and what it blocked is blocked already. */
afterMutation((written) => {
  confirmation.forget();
  const added = written?.changed.blockedMachines ?? [];
  if (added.length > 0) names = new Set([...names, ...added.map(bareName)]);
});

export async function blockMachine(
  mutation: Mutation,
  machine: string,
  why: string | undefined,
): Promise<Result<Answer>> {
  const checked = checkName(machine);
  if (!checked.ok) return checked;
  const row = { machine, blockedMs: mutation.nowMs, actor: mutation.actor, reason: why ?? null };
  const shown: Shown<db.BlockedMachine> = {
    json: db.blockedJson(machine),
    describe: (now) => ({ blocked_machine: describeBlocked(now) }),
  };
  const decide = (): Result<Draft> =>
    succeed({
      entry: { action: 'machine.block', target: machine, detail: { reason: row.reason } },
      unchanged: always,
      statements: (d) => db.blockStatements(d, row),
      answer: { status: 200 },
    });
  return mutate(mutation, nothingRead, decide, shown);
}

export async function unblockMachine(mutation: Mutation, machine: string): Promise<Result<Answer>> {
  const reads = (d: DrizzleD1Database) => [db.selectBlocked(d, [machine])] as const;
  return mutate(mutation, reads, ([[row]]) => {
    if (!row) return fail({ kind: 'not-found', what: `blocked machine ${machine}` });
    return succeed({
      entry: { action: 'machine.unblock', target: machine, detail: {} },
      unchanged: db.stillBlocked(row),
      statements: (d) => db.unblockStatements(d, machine),
      answer: { status: 204, body: {} },
    });
  });
}

/** LAPI keeps any text for a name; what can't be printed is in none that anybody gave. */
function checkName(machine: string): Result<void> {
  if (/^[^\p{C}]{1,255}$/u.test(machine)) return done;
  return badInput('machine', 'must be 1 to 255 printable characters');
}

export function describeBlocked(row: db.BlockedMachine): z.input<typeof blockedShape> {
  const { machine, blockedMs, actor, reason: why } = row;
  return { machine, blocked_at: isoTime(blockedMs), blocked_by: actor, reason: why };
}
