// The operator API of decisions: ban, unban, and list what is active. The decision lives in the feed's object, its audit
// row in D1. The row is written first: what cannot be recorded does not happen. A crash between the two leaves the row of
// a change that did not happen, and never a change without its row.

import * as z from 'zod';
import { askFeed } from '../feed/client.ts';
import { conflict, problem, type Failure } from '../http/failure.ts';
import { unionOf } from '../mirror/allowed.ts';
import type { Listed, ListedEntry } from '../mirror/listing.ts';
import { formatDuration } from '../formats/duration.ts';
import { decisionFilter, decisionMatch, newDecision } from './input.ts';
import { isoTime, time, nextOf, pageOf } from '../operations/fields.ts';
import { note } from '../operations/mutate.ts';
import { mutationOf, operation } from '../operations/operation.ts';

export const decisionShape = z
  .object({
    id: z.int().meta({ description: 'From 2^30 up when it was made here.' }),
    engine: z
      .string()
      .nullable()
      .meta({ description: 'The engine that it came from; null: it was made here.' }),
    origin: z.string(),
    scenario: z.string(),
    scope: z.string(),
    type: z.string(),
    value: z.string(),
    duration: z.string().meta({ description: 'What is left of it, a Go duration.' }),
    until: time,
    left_behind: z.boolean().meta({
      description: 'No engine confirms it any more: it stays until it expires.',
    }),
    withheld_by: z
      .object({
        id: z.int().nullable().meta({ description: 'Null: it is an engine’s own.' }),
        value: z.string(),
        engine: z.string().nullable().meta({ description: 'Null: operators made it here.' }),
        list: z.string().nullable().meta({ description: 'Which of the engine’s allow-lists has it.' }),
        bouncers: z.array(z.string()).nullable().meta({
          description:
            'Which bouncers are not served it, by this entry or another: their names. Null: none is.',
        }),
      })
      .nullable()
      .meta({
        description: 'An entry of the allow-list by which bouncers are not served it; null: all are.',
      }),
  })
  .meta({ id: 'Decision' });

export type DecisionBody = z.input<typeof decisionShape>;

export const decisionOperations = [
  operation({
    method: 'GET',
    path: '/decisions',
    needs: 'viewer',
    summary: 'Active decisions: the engines’ and those made here',
    description: 'With several parameters: those that fit all of them.',
    query: decisionFilter,
    answers: { 200: { ...pageOf('decisions', decisionShape), description: 'A page, by id.' } },
    reply: async (c, { query: { after, limit, ...filter } }) => {
      const nowMs = Date.now();
      const rows = await askFeed(c.env, async (feed) => feed.page(after, limit, filter));
      if (!rows) return problem(noEngine);
      const decisions = rows.map((row) => describeDecision(row, nowMs));
      return c.json({ decisions, next: nextOf(rows, limit, ({ id }) => id) });
    },
  }),
  operation({
    method: 'POST',
    path: '/decisions',
    needs: 'operator',
    summary: 'Ban here, engine or not',
    description: '409: the allow-list has it, or an address of it, for every bouncer.',
    body: newDecision,
    repeatable: true,
    refusals: [409],
    answers: {
      201: {
        description:
          'It is in the next poll of every bouncer from which the allow-list does not withhold it.',
        body: z.object({
          decision: decisionShape,
          warnings: z
            .array(z.string())
            .meta({ description: 'Entries of the allow-list by which some bouncers are not served it.' }),
        }),
      },
    },
    reply: async (c, { body: { durationMs, ...target }, text }) => {
      const asked = await mutationOf(c, text);
      if (!asked.ok) return problem(asked.failure);
      const { nowMs } = asked.value;
      // Kept with the answer: a repetition asks the feed for the same decision, with the same end. It also makes the
      // decision where the first request stopped half-way.
      const plan = { request: crypto.randomUUID(), until_ms: nowMs + durationMs };
      const { value, type, scope, scenario } = target;
      const detail = { type, scope, scenario, until: isoTime(plan.until_ms) };
      let entries: readonly ListedEntry[] | null = null;
      const askEntries = async (): Promise<readonly ListedEntry[]> =>
        (entries ??= (await askFeed(c.env, async (feed) => feed.allowEffect(scope, value, null))).entries);
      const noted = await note(asked.value, 'decision.ban', value, detail, plan, async () => {
        const forAll = (await askEntries()).find(isForAll);
        if (!forAll) return null;
        const problem = `${isAllowed(value, forAll)}, so no bouncer would be served it: remove the entry first`;
        return conflict('value', problem);
      });
      if (!noted.ok) return problem(noted.failure);
      const { request, until_ms: untilMs } = noted.value.body as typeof plan;
      const decision = await askFeed(c.env, async (feed) => feed.addLocal({ ...target, untilMs }, request));
      if (noted.value.replayed) c.header('idempotent-replayed', 'true');
      // One for all is among them if it came after the first of two equal requests.
      const found = await askEntries();
      const [first] = found;
      const bouncers = unionOf(found.map((entry) => entry.bouncers ?? undefined));
      const withheldBy = found.find(isForAll) ?? (first ? { ...first, bouncers } : null);
      const shown = describeDecision({ ...decision, engine: null, leftBehind: false, withheldBy }, nowMs);
      const warnings = found.slice(0, mostWarnings).map((entry) => {
        const who = entry.bouncers?.join(', ') ?? 'every bouncer';
        return `${value} ${isAllowed(value, entry)} for ${who}: it is not served to them`;
      });
      return c.json({ decision: shown, warnings }, 201);
    },
  }),
  operation({
    method: 'DELETE',
    path: '/decisions',
    needs: 'operator',
    summary: 'Remove what was banned here',
    description:
      'Every decision about the same address, range, country or AS, in whatever spelling. Only the engine can remove ' +
      'its own decisions: 409 says how.',
    query: decisionMatch,
    answers: {
      200: {
        description: 'How many there were.',
        body: z.object({
          removed: z.int(),
          still_banned_by: z.array(z.string()).meta({
            description:
              'The engines with a matching decision of their own. It stays until it is removed there.',
          }),
        }),
      },
    },
    refusals: [409],
    reply: async (c, { query: match }) => {
      const asked = await mutationOf(c, '');
      if (!asked.ok) return problem(asked.failure);
      const { value, ...detail } = match;
      // Done twice it does no more than once, so no answer is kept.
      const noted = await note({ ...asked.value, idempotency: null }, 'decision.unban', value, detail);
      if (!noted.ok) return problem(noted.failure);
      // The same request asked again, after the object was lost, answers what the first one did.
      const request = crypto.randomUUID();
      const removal = await askFeed(c.env, async (feed) => feed.removeLocal(match, request));
      const { removed, leftAt, leftValues } = removal;
      if (removed > 0 || leftAt.length === 0) return c.json({ removed, still_banned_by: leftAt });
      const commands = leftValues.map((each) => `cscli decisions delete --value ${each}`);
      const why =
        `nothing was banned here; ${value} is banned by these engines: ${leftAt.join(', ')}; ` +
        `remove it there (${commands.join('; ')})`;
      return problem({ kind: 'conflict', field: 'value', problem: why });
    },
  }),
];

const mostWarnings = 100;

const isForAll = ({ bouncers }: ListedEntry): boolean => bouncers === null;

function isAllowed(value: string, entry: ListedEntry): string {
  const where = entry.value === value ? 'is' : `shares addresses with ${entry.value}, which is`;
  const list = entry.engine === null ? `entry ${entry.id}` : `${entry.list} of the engine ${entry.engine}`;
  return `${where} on the allow-list (${list})`;
}

export const noEngine: Failure = {
  kind: 'bad-input',
  field: 'engine',
  problem: 'is no engine’s name, now or since its decisions came',
};

/** A decision as operators see it; `nowMs`: what `duration` counts from. */
export function describeDecision(decision: Listed, nowMs: number): z.input<typeof decisionShape> {
  const { id, engine, origin, scenario, scope, type, value, untilMs, leftBehind, withheldBy } = decision;
  const duration = formatDuration(Math.max(0, Math.floor((untilMs - nowMs) / 1000)));
  const shown = { id, engine, origin, scenario, scope, type, value, duration };
  const withheld_by = withheldBy && {
    ...withheldBy,
    bouncers: withheldBy.bouncers && [...withheldBy.bouncers],
  };
  return { ...shown, until: isoTime(untilMs), left_behind: leftBehind, withheld_by };
}
