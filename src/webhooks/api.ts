// The operator API of webhooks.

import type { Context } from 'hono';
import * as z from 'zod';
import type { AppEnv } from '../env.ts';
import { askFeed } from '../feed/client.ts';
import { problem } from '../http/failure.ts';
import { isoTime, nextOf, nothing, page, pageOf, time } from '../operations/fields.ts';
import { etagOf, note } from '../operations/mutate.ts';
import { mutation, mutationOf, operation } from '../operations/operation.ts';
import * as webhooks from './webhooks.ts';

const described = z.object({ webhook: webhooks.webhookShape });

export const webhookOperations = [
  mutation({
    method: 'POST',
    path: '/webhooks',
    needs: 'operator',
    summary: 'Make a webhook: an address that is told what happens',
    description:
      'The secret that signs its messages is shown once. It is told what happens from now on. docs/webhooks.md has the ' +
      'events and how to verify a message.',
    body: webhooks.newWebhook,
    answers: {
      201: {
        description: 'Made.',
        body: described.extend({ secret: z.string().optional().meta({ example: 'whsec_…' }) }),
      },
    },
    refusals: [409],
    change: (change, body, c) => webhooks.createWebhook(change, c.get('settings'), body),
  }),
  operation({
    method: 'GET',
    path: '/webhooks',
    needs: 'operator',
    summary: 'All webhooks, and how their messages go',
    query: page,
    answers: { 200: pageOf('webhooks', webhooks.shownWebhook) },
    reply: async (c, { query: { after, limit } }) => {
      const rows = await webhooks.listWebhooks(c.env.DB, after, limit);
      const asked = rows.map(webhooks.askedOf);
      const all = await askFeed(c.env, async (feed) => feed.deliveries(asked));
      const shown = rows.map((row, at) => ({
        ...webhooks.describeWebhook(row),
        delivery: webhooks.describeProgress(all[at] ?? null),
      }));
      return c.json({ webhooks: shown, next: nextOf(rows, limit, ({ id }) => id) });
    },
  }),
  operation({
    method: 'GET',
    path: '/webhooks/{name}',
    needs: 'operator',
    summary: 'One webhook, and how its messages go',
    answers: { 200: { description: 'Its ETag is its revision.', body: webhooks.shownWebhook } },
    refusals: [404],
    reply: async (c) => {
      const webhook = await webhooks.findWebhook(c.env.DB, nameOf(c));
      if (!webhook) return problem({ kind: 'not-found', what: `webhook ${nameOf(c)}` });
      const asked = [webhooks.askedOf(webhook)];
      const [progress] = await askFeed(c.env, async (feed) => feed.deliveries(asked));
      c.header('etag', etagOf(webhook.revision));
      return c.json({
        ...webhooks.describeWebhook(webhook),
        delivery: webhooks.describeProgress(progress ?? null),
      });
    },
  }),
  mutation({
    method: 'PATCH',
    path: '/webhooks/{name}',
    needs: 'operator',
    summary: 'Change where its messages go, or which it gets',
    description: 'What is not named stays as it is. What waits is sent to the new address at once.',
    body: webhooks.webhookChange,
    ifMatch: 'required',
    answers: { 200: { description: 'Changed.', body: described } },
    refusals: [404],
    change: (change, body, c) => webhooks.changeWebhook(change, c.get('settings'), nameOf(c), body),
  }),
  mutation({
    method: 'DELETE',
    path: '/webhooks/{name}',
    needs: 'operator',
    summary: 'Delete a webhook, and what waits for it',
    body: nothing,
    ifMatch: 'optional',
    answers: { 204: { description: 'Deleted.' } },
    refusals: [404],
    change: (change, _, c) => webhooks.deleteWebhook(change, nameOf(c)),
  }),
  operation({
    method: 'POST',
    path: '/webhooks/{name}/test',
    needs: 'operator',
    summary: 'Send it a message of type `webhook.test` now',
    description:
      'Past the messages that wait, and once. If it takes the message, those that wait are sent at once.',
    answers: {
      200: {
        description: 'What came of it, also where it did not take the message.',
        body: z.object({
          ok: z.boolean(),
          at: time,
          status: z.int().nullable(),
          problem: z.string().nullable(),
        }),
      },
    },
    refusals: [404],
    reply: async (c) => {
      const named = nameOf(c);
      const unknown = { kind: 'not-found', what: `webhook ${named}` } as const;
      if (!(await webhooks.findWebhook(c.env.DB, named))) return problem(unknown);
      const asked = await mutationOf(c, '');
      if (!asked.ok) return problem(asked.failure);
      const noted = await note({ ...asked.value, idempotency: null }, 'webhook.test', named, {});
      if (!noted.ok) return problem(noted.failure);
      const outcome = await askFeed(c.env, async (feed) => feed.testWebhook(named));
      if (!outcome) return problem(unknown);
      const { atMs, status, problem: wrong } = outcome;
      return c.json({ ok: wrong === null, at: isoTime(atMs), status, problem: wrong });
    },
  }),
];

function nameOf(c: Context<AppEnv>): string {
  return c.req.param('name') ?? '';
}
