// The operator API of engines' own allow-lists: what they have is read here, and changed at the engine.

import * as z from 'zod';
import { readsAllowLists } from '../config/upstreams.ts';
import { askFeed } from '../feed/client.ts';
import { problem } from '../http/failure.ts';
import { isoTime, nextOf, page, pageOf, time } from '../operations/fields.ts';
import { operation } from '../operations/operation.ts';

const engineEntryShape = z
  .object({
    value: z.string(),
    engine: z.string(),
    list: z.string().meta({ description: 'Which of the engine’s allow-lists has it.' }),
    expires_at: time.nullable().meta({ description: 'Null: it does not end.' }),
    holds: z.boolean().meta({ description: 'False: it has ended, and withholds nothing any more.' }),
  })
  .meta({ id: 'EngineAllowedNetwork' });

export type EngineEntryBody = z.input<typeof engineEntryShape>;

export const engineEntriesOperation = operation({
  method: 'GET',
  path: '/allowlist/engines',
  needs: 'viewer',
  summary: 'What engines’ own allow-lists have, where they are read',
  description:
    'In the order in which the entries came. How the lists of each engine stand is in its `allowlists` in `GET /feed`. Only ' +
    'the engine can change them (`cscli allowlists`).',
  query: page.extend({
    engine: z.string().optional().meta({ description: 'Of this one only. 400: its lists are not read.' }),
    list: z.string().optional().meta({ description: 'Of lists of this name only.' }),
  }),
  answers: { 200: pageOf('entries', engineEntryShape) },
  reply: async (c, { query }) => {
    const { engine, limit } = query;
    const upstreams = c.get('settings').upstreams.filter(readsAllowLists);
    if (engine !== undefined && !upstreams.some(({ name }) => name === engine)) {
      const names = upstreams.map(({ name }) => name).join(', ');
      const why = `must be an engine whose allow-lists are read: ${names || 'there is none'}`;
      return problem({ kind: 'bad-input', field: 'engine', problem: why });
    }
    const rows = await askFeed(c.env, async (feed) => feed.engineEntries(query));
    const entries = rows.map(({ value, engine, list, expiresMs, holds }): EngineEntryBody => {
      return { value, engine, list, expires_at: isoTime(expiresMs), holds };
    });
    return c.json({ entries, next: nextOf(rows, limit, ({ place }) => place) });
  },
});
