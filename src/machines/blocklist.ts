// Machines that an operator blocked here. The engine accepts a machine's token until it expires, also when the machine was
// deleted there, so a block is how to stop one at once. An isolate keeps the whole list for 5 s: a block holds everywhere
// after that time, as a revocation does.

import { waitUntil } from 'cloudflare:workers';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import * as z from 'zod';
import * as db from './machines.sql.ts';
import { always } from '../store/audit.sql.ts';
import { badInput, causeOf, done, fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { createAsking } from '../runtime/asking.ts';
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
 * A machine's name as the laxest engine compares it: without spaces at its end. MySQL and MariaDB ignore them (PAD SPACE),
 * so there `lab ` logs in as `lab`. Both names are blocked as one with any database.
 */
export function bareName(machine: string): string {
  // No regular expression: it tries every run of spaces, and a name may have megabytes.
  let end = machine.length;
  while (machine[end - 1] === ' ') end--;
  return machine.slice(0, end);
}

/** Why a host gets no account at an engine, nor the right to one. */
export const noMachines = 'machines can not reach an engine through here: MACHINE_ROUTES is off';

/** Names Lapidary: somebody will look for the reason at the engine, and find none. */
const blocked: Failure = {
  kind: 'forbidden',
  problem: 'access forbidden: an operator blocked this machine at Lapidary',
};

/** The whole list, as D1 had it at the last confirmation. */
let names: ReadonlySet<string> = new Set();
const confirmation = createConfirmation();
const wholeList = 'blocked';

const ask = createAsking<D1Database, ReadonlySet<string>>(
  async (d1) => {
    const asked = confirmation.ask(Date.now());
    const read = new Set((await db.blockedNames(d1)).map(bareName));
    if (!asked.isLate()) {
      // What was blocked here while the list was read may not be in it.
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
 * `forbidden` for a blocked machine, `unavailable` when the list is not known. With D1 out of reach the last list counts
 * for as long as a bouncer's key does.
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

/** This isolate may have changed the list: it is read anew at the next use. What was blocked here is blocked at once. */
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

/** LAPI takes any text as a name. Nobody gives names with characters that can't be printed. */
function checkName(machine: string): Result<void> {
  if (/^[^\p{C}]{1,255}$/u.test(machine)) return done;
  return badInput('machine', 'must be 1 to 255 printable characters');
}

export function describeBlocked(row: db.BlockedMachine): z.input<typeof blockedShape> {
  const { machine, blockedMs, actor, reason: why } = row;
  return { machine, blocked_at: isoTime(blockedMs), blocked_by: actor, reason: why };
}
