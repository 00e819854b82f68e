// The operator API of the operators themselves: their tokens, and the log of what they did.

import * as z from 'zod';
import { askFeed } from '../feed/client.ts';
import { listAudit } from './audit.sql.ts';
import { problem } from '../http/failure.ts';
import type { AuditMemory } from '../writer/revocations.sql.ts';
import {
  auditShape,
  describeAudit,
  mostVerified,
  verdictShape,
  verifyLog,
  acknowledgeLostTails,
} from './audit.ts';
import { cursor, nextOf, nothing, page, pageFields } from '../operations/fields.ts';
import { mutation, mutationOf, operation } from '../operations/operation.ts';
import * as tokens from './tokens.ts';

const auditPage = z.strictObject({
  actor: z.string().optional(),
  action: z.string().optional(),
  target: z.string().optional(),
  before: cursor.optional().meta({ description: 'The `next` of the page before.' }),
  ...pageFields,
});

const verifyQuery = z
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
    error: 'must be there where hash is',
  });

const seal = (env: Env): Promise<AuditMemory> => askFeed(env, async (feed) => feed.sealAudit());

export const operatorOperations = [
  mutation({
    method: 'POST',
    path: '/operator-tokens',
    needs: 'admin',
    summary: 'Make an operator’s token',
    description:
      'The token is shown once. Its name is not given again before the audit log has forgotten it.',
    body: tokens.newToken,
    answers: {
      201: {
        description: 'Made.',
        body: z.object({ operator_token: tokens.tokenShape, token: z.string().optional() }),
      },
    },
    refusals: [409],
    change: tokens.createToken,
  }),
  operation({
    method: 'GET',
    path: '/operator-tokens',
    needs: 'admin',
    summary: 'Names, roles, ends and states of all, revoked ones too',
    query: page,
    answers: {
      200: {
        description: 'A page.',
        body: z.object({ operator_tokens: z.array(tokens.tokenShape), next: z.int().nullable() }),
      },
    },
    reply: async (c, { query: { after, limit } }) => {
      const rows = await tokens.listTokens(c.env.DB, after, limit);
      const described = rows.map((row) => tokens.describeToken(row, Date.now()));
      return c.json({ operator_tokens: described, next: nextOf(rows, limit, ({ id }) => id) });
    },
  }),
  mutation({
    method: 'DELETE',
    path: '/operator-tokens/{name}',
    needs: 'admin',
    summary: 'Revoke it: refused everywhere from the next request on',
    body: nothing,
    answers: { 200: { description: 'Revoked.', body: z.object({ operator_token: tokens.tokenShape }) } },
    refusals: [404, 409],
    change: (change, _, c) => tokens.revokeToken(change, c.req.param('name') ?? ''),
  }),
  operation({
    method: 'GET',
    path: '/audit',
    needs: 'viewer',
    summary: 'Who did what, the newest first',
    query: auditPage,
    answers: {
      200: {
        description: 'A page.',
        body: z.object({ audit: z.array(auditShape), next: z.int().nullable() }),
      },
    },
    reply: async (c, { query: { before, limit, ...filter } }) => {
      const rows = await listAudit(c.env.DB, filter, before ?? null, limit);
      return c.json({ audit: rows.map(describeAudit), next: nextOf(rows, limit, ({ seq }) => seq) });
    },
  }),
  operation({
    method: 'GET',
    path: '/audit/verify',
    needs: 'viewer',
    summary: 'Whether the log is whole: no row changed, missing, or cut off at its end',
    description:
      `At most ${mostVerified} rows at once: while \`next\` is a number, ask again with \`after\` set to it. With ` +
      '`after` and `hash` of a `head` that you kept, only what came since is looked at.',
    query: verifyQuery,
    answers: {
      200: { description: 'It is.', body: verdictShape },
      409: { description: 'It is not; at which row, and how.', body: verdictShape },
    },
    reply: async (c, { query: { after = 0, hash } }) => {
      for (let remembered = await seal(c.env); ;) {
        const verdict = await verifyLog(c.env.DB, { after, hash }, remembered, Date.now());
        if (verdict.ok) return c.json(verdict);
        // Rows that went by their age under this very look are not missing.
        const now = await seal(c.env);
        if (now.removed.seq === remembered.removed.seq) return c.json(verdict, 409);
        remembered = now;
      }
    },
  }),
  operation({
    method: 'POST',
    path: '/audit/acknowledge',
    needs: 'admin',
    summary: 'Say that you know why the log breaks off: D1 was restored',
    description: 'From then on `/audit/verify` names the break and is content. It leaves a row itself.',
    body: nothing,
    answers: {
      200: { description: 'How many breaks there were.', body: z.object({ acknowledged: z.int() }) },
    },
    reply: async (c) => {
      const asked = await mutationOf(c, '');
      if (!asked.ok) return problem(asked.failure);
      const acknowledged = await acknowledgeLostTails(c.env, asked.value);
      if (!acknowledged.ok) return problem(acknowledged.failure);
      return c.json({ acknowledged: acknowledged.value });
    },
  }),
];
