// The operator API of decisions: ban and unban here, and read what is active.

import * as z from 'zod';
import { askFeed } from '../feed/client.ts';
import { problem } from '../http/failure.ts';
import type { Listed } from '../mirror/local.ts';
import { formatDuration } from '../formats/duration.ts';
import { decisionMatch, newDecision } from './input.ts';
import { ban, unban } from './decisions.ts';
import { isoTime, time, nextOf, page } from '../operations/fields.ts';
import { mutationOf, operation } from '../operations/operation.ts';

const decisionShape = z
  .object({
    id: z.int().meta({ description: 'From 2^30 up when it was made here.' }),
    engine: z
      .string()
      .nullable()
      .meta({ description: 'The engine that it came from; null: it was decided here.' }),
    origin: z.string(),
    scenario: z.string(),
    scope: z.string(),
    type: z.string(),
    value: z.string(),
    duration: z.string().meta({ description: 'What is left of it, a Go duration.' }),
    until: time,
    left_behind: z.boolean().meta({
      description: 'No engine says any more whether it stands: it lives to its own end.',
    }),
  })
  .meta({ id: 'Decision' });

export const decisionOperations = [
  operation({
    method: 'GET',
    path: '/decisions',
    needs: 'viewer',
    summary: 'What is active, the engine’s and what was decided here',
    query: page,
    answers: {
      200: {
        description: 'A page, by id.',
        body: z.object({ decisions: z.array(decisionShape), next: z.int().nullable() }),
      },
    },
    reply: async (c, { query: { after, limit } }) => {
      const nowMs = Date.now();
      const rows = await askFeed(c.env, async (feed) => feed.page(after, limit));
      const decisions = rows.map((row) => describeDecision(row, nowMs));
      return c.json({ decisions, next: nextOf(rows, limit, ({ id }) => id) });
    },
  }),
  operation({
    method: 'POST',
    path: '/decisions',
    needs: 'operator',
    summary: 'Ban here, engine or not',
    body: newDecision,
    repeatable: true,
    answers: {
      201: {
        description: 'It is in every bouncer’s next poll.',
        body: z.object({ decision: decisionShape }),
      },
    },
    reply: async (c, { body, text }) => {
      const asked = await mutationOf(c, text);
      if (!asked.ok) return problem(asked.failure);
      const banned = await ban(c.env, asked.value, body);
      if (!banned.ok) return problem(banned.failure);
      if (banned.value.replayed) c.header('idempotent-replayed', 'true');
      return c.json(
        {
          decision: describeDecision(
            { ...banned.value.decision, engine: null, leftBehind: false },
            asked.value.nowMs,
          ),
        },
        201,
      );
    },
  }),
  operation({
    method: 'DELETE',
    path: '/decisions',
    needs: 'operator',
    summary: 'Take back what was banned here',
    description:
      'All that is about the same address, range, country or AS, in whatever spelling. An engine’s decision is the ' +
      'engine’s to remove: 409 says how.',
    query: decisionMatch,
    answers: {
      200: {
        description: 'How many there were.',
        body: z.object({
          removed: z.int(),
          left_at: z.array(z.string()).meta({
            description: 'The engines whose decisions match, too, and stay: they are theirs to remove.',
          }),
        }),
      },
    },
    refusals: [409],
    reply: async (c, { query: match }) => {
      const asked = await mutationOf(c, '');
      if (!asked.ok) return problem(asked.failure);
      const removal = await unban(c.env, asked.value, match);
      if (!removal.ok) return problem(removal.failure);
      const { removed, leftAt, leftValues } = removal.value;
      if (removed > 0 || leftAt.length === 0) return c.json({ removed, left_at: leftAt });
      const commands = leftValues.map((value) => `cscli decisions delete --value ${value}`);
      const how = `remove it there (${commands.join('; ')})`;
      const why = `none was made here; ${match.value} is what these engines decided: ${leftAt.join(', ')}; ${how}`;
      return problem({ kind: 'conflict', field: 'value', problem: why });
    },
  }),
];

function describeDecision(decision: Listed, nowMs: number): z.input<typeof decisionShape> {
  const { id, engine, origin, scenario, scope, type, value, untilMs, leftBehind } = decision;
  const duration = formatDuration(Math.max(0, Math.floor((untilMs - nowMs) / 1000)));
  const told = { id, engine, origin, scenario, scope, type, value, duration };
  return { ...told, until: isoTime(untilMs), left_behind: leftBehind };
}
