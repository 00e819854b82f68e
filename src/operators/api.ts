// The operator API of the operators themselves: their tokens, and the audit log.

import * as z from 'zod';
import { askFeed } from '../feed/client.ts';
import { problem } from '../http/failure.ts';
import type { AuditMemory } from '../writer/revocations.sql.ts';
import * as audit from './audit.ts';
import { nextOf, nothing, page, pageOf } from '../operations/fields.ts';
import { mutation, mutationOf, operation } from '../operations/operation.ts';
import * as tokens from './tokens.ts';

const seal = (env: Env): Promise<AuditMemory> => askFeed(env, async (feed) => feed.sealAudit());

export const operatorOperations = [
  mutation({
    method: 'POST',
    path: '/operator-tokens',
    needs: 'admin',
    summary: 'Make an operator’s token',
    description: 'The token is shown once. Its name is not given again while the audit log names it.',
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
    summary: 'List all, revoked ones too: name, role, state, expiry',
    query: page,
    answers: { 200: pageOf('operator_tokens', tokens.tokenShape) },
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
    query: audit.auditPage,
    answers: { 200: pageOf('audit', audit.auditShape) },
    reply: async (c, { query }) => {
      const rows = await audit.listAudit(c.env.DB, query);
      return c.json({
        audit: rows.map(audit.describeAudit),
        next: nextOf(rows, query.limit, ({ seq }) => seq),
      });
    },
  }),
  operation({
    method: 'GET',
    path: '/audit/verify',
    needs: 'viewer',
    summary: 'Verify the log: no row changed, missing, or cut off at its end',
    description:
      `At most ${audit.mostVerified} rows at once: while \`next\` is a number, ask again with \`after\` set to it. With ` +
      '`after` and `hash` of a `head` that you kept, only the rows since are verified.',
    query: audit.verifyQuery,
    answers: {
      200: { description: 'It is.', body: audit.verdictShape },
      409: { description: 'It is not; at which row, and how.', body: audit.verdictShape },
    },
    reply: async (c, { query }) => {
      for (let remembered = await seal(c.env); ;) {
        const verdict = await audit.verifyLog(c.env.DB, query, remembered, Date.now());
        if (verdict.ok) return c.json(verdict);
        // Rows that were removed by their age meanwhile are not missing.
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
    summary: 'Acknowledge that the log breaks off where D1 was restored',
    description: 'From then on `/audit/verify` lists the break and passes. It leaves a row itself.',
    body: nothing,
    answers: {
      200: { description: 'How many breaks there were.', body: z.object({ acknowledged: z.int() }) },
    },
    reply: async (c) => {
      const asked = await mutationOf(c, '');
      if (!asked.ok) return problem(asked.failure);
      const acknowledged = await audit.acknowledgeLostTails(c.env, asked.value);
      if (!acknowledged.ok) return problem(acknowledged.failure);
      return c.json({ acknowledged: acknowledged.value });
    },
  }),
];
