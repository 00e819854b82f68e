// The operator API of the feed: how the mirror stands, and a round with the engine now.

import * as z from 'zod';
import { askFeed } from '../context.ts';
import { problem } from '../failure.ts';
import { syncFeed } from './decisions.ts';
import { isoTime, time } from './describe.ts';
import { mutationOf, operation } from './operation.ts';

const flag = z.enum(['true', 'false'], 'must be true or false').default('false');

const feedShape = z
  .object({
    sequence: z.int().meta({ description: 'Counts the changes of what is mirrored.' }),
    decisions: z.int(),
    tombstones: z.int().meta({ description: 'Ended decisions that are still remembered.' }),
    cursors: z.int(),
    freshness: z.enum(['fresh', 'stale', 'cold']),
    age_seconds: z.int().meta({ description: 'Since the engine was last heard.' }),
    upstream: z.object({
      state: z.enum(['none', 'waiting-for-key', 'cold', 'ok', 'failing', 'refused']),
      key: z
        .enum(['setting', 'host'])
        .nullable()
        .meta({ description: 'Where the key comes from that Lapidary pulls with.' }),
      keyPending: z
        .boolean()
        .meta({ description: 'A host has sent another key, which the engine does not accept yet.' }),
      lastSyncAt: time.nullable(),
      lastResyncAt: time.nullable(),
      lastError: z.string().nullable(),
    }),
  })
  .meta({ id: 'Feed' });

const roundShape = z
  .object({
    ok: z.boolean(),
    added: z.int(),
    removed: z.int(),
    error: z.string().nullable(),
    doubt: z.string().nullable().meta({ description: 'Why a full list was not believed.' }),
  })
  .meta({ id: 'Round' });

export const feedOperations = [
  operation({
    method: 'GET',
    path: '/feed',
    needs: 'viewer',
    summary: 'How the mirror stands, and how the engine is doing',
    answers: { 200: { description: 'As of now.', body: feedShape } },
    reply: async (c) => {
      const status = await askFeed(c.env, async (feed) => feed.status());
      const { sequence, decisions, tombstones, cursors, freshness, ageSeconds, upstream } = status;
      return c.json({
        sequence,
        decisions,
        tombstones,
        cursors,
        freshness,
        age_seconds: ageSeconds,
        upstream: {
          state: upstream.state,
          key: upstream.key,
          keyPending: upstream.keyPending,
          lastSyncAt: isoTime(upstream.lastSyncMs || null),
          lastResyncAt: isoTime(upstream.lastResyncMs || null),
          lastError: upstream.lastError,
        },
      } satisfies z.input<typeof feedShape>);
    },
  }),
  operation({
    method: 'POST',
    path: '/feed/sync',
    needs: 'operator',
    summary: 'One round with the engine now',
    query: z.strictObject({
      full: flag.meta({ description: 'Compare the whole list.' }),
      believe: flag.meta({ description: 'Compare it, and believe it even where it is doubtful.' }),
    }),
    answers: {
      200: { description: 'What came of it.', body: roundShape },
      502: {
        description: 'The engine did not answer, or not in a way that can be believed.',
        body: roundShape,
      },
    },
    reply: async (c, { query }) => {
      const believe = query.believe === 'true';
      const full = believe || query.full === 'true';
      const asked = await mutationOf(c, '');
      if (!asked.ok) return problem(asked.failure);
      const round = await syncFeed(c.env, asked.value, { full, believe });
      if (!round.ok) return problem(round.failure);
      return c.json(round.value, round.value.ok ? 200 : 502);
    },
  }),
];
