// The operator API of decisions by their values: each address, range, country or AS once, with what the engines decided on it
// beside what was decided here.

import * as z from 'zod';
import { askFeed } from '../feed/client.ts';
import { problem } from '../http/failure.ts';
import { parsed } from '../config/fields.ts';
import { mostShown, valueOrders, type Place } from '../mirror/values.ts';
import { pageFields } from '../operations/fields.ts';
import { operation } from '../operations/operation.ts';
import { decisionShape, describeDecision, noEngine } from './api.ts';
import { decisionFilterFields, readLookUp } from './input.ts';

const count = z.int();

const valueShape = z
  .object({
    value: z.string().meta({ description: 'As its first decision spells it.' }),
    scope: z.string(),
    total: count.meta({ description: 'Decisions on it that fit.' }),
    origins: z.array(
      z.object({
        origin: z.string(),
        engine: z.string().nullable().meta({ description: 'Null: decided here.' }),
        decisions: count,
      }),
    ),
    decisions: z.array(decisionShape).meta({
      description: `Those that were made here, then those that end last: ${mostShown} at most.`,
    }),
  })
  .meta({ id: 'DecidedValue' });

export type DecidedValue = z.input<typeof valueShape>;

const placeMustBe = 'must be the `next` of the page before';

export const valuesShape = z.object({
  values: z.array(valueShape),
  totals: z
    .object({ values: count, decisions: count, made_here: count })
    .meta({ description: 'Of all that fit, on every page.' }),
  next: z.string().nullable(),
});

export const valuesOperation = operation({
  method: 'GET',
  path: '/decisions/values',
  needs: 'viewer',
  summary: 'Active decisions by what they are about: each address once',
  description:
    'Spellings of one network count as one value. The parameters are those of `GET /decisions`. What changes while ' +
    'somebody pages may be on two pages, or on none.',
  query: z
    .strictObject({
      ...decisionFilterFields,
      order: z
        .enum(valueOrders, `must be one of ${valueOrders.join(', ')}`)
        .default('newest')
        .meta({ description: '`newest`: what was added or renewed last comes first.' }),
      after: parsed(placeMustBe, readPlace)
        .optional()
        .meta({ description: 'The `next` of the page before.', override: { type: 'string' } }),
      ...pageFields,
    })
    .transform(readLookUp),
  answers: { 200: { description: 'A page.', body: valuesShape } },
  reply: async (c, { query: { after, limit, order, ...filter } }) => {
    const nowMs = Date.now();
    const ask = { filter, order, after: after ?? null, limit };
    const page = await askFeed(c.env, async (feed) => feed.values(ask));
    if (!page) return problem(noEngine);
    const { values, totals, next } = page;
    return c.json({
      values: values.map(({ decisions, ...rest }) => {
        const [first] = decisions;
        const about = { value: first?.value ?? '', scope: first?.scope ?? '' };
        return { ...about, ...rest, decisions: decisions.map((each) => describeDecision(each, nowMs)) };
      }),
      totals: { values: totals.values, decisions: totals.decisions, made_here: totals.madeHere },
      next: next && `${next.key}.${next.id}`,
    });
  },
});

/** `-1234.56`: what the order goes by, and an id. */
function readPlace(text: string): Place | null {
  const match = /^(-?\d{1,15})\.(\d{1,10})$/.exec(text);
  return match ? { key: Number(match[1]), id: Number(match[2]) } : null;
}
