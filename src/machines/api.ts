// The operator API of machines: which of them are refused at the edge.

import * as z from 'zod';
import * as db from './machines.sql.ts';
import { nothing, pageFields } from '../operations/fields.ts';
import { blockedShape, blockMachine, describeBlocked, reason, unblockMachine } from './blocklist.ts';
import { mutation, operation } from '../operations/operation.ts';

const described = z.object({ blocked_machine: blockedShape });

const pageByName = z.strictObject({
  after: z.string().default('').meta({ description: 'The `next` of the page before.' }),
  ...pageFields,
});

export const machineOperations = [
  operation({
    method: 'GET',
    path: '/blocked-machines',
    needs: 'viewer',
    summary: 'Machines that are refused here',
    query: pageByName,
    answers: {
      200: {
        description: 'A page, by name.',
        body: z.object({ blocked_machines: z.array(blockedShape), next: z.string().nullable() }),
      },
    },
    reply: async (c, { query: { after, limit } }) => {
      const rows = await db.listBlocked(c.env.DB, after, limit);
      const next = rows.length === limit ? (rows.at(-1)?.machine ?? null) : null;
      return c.json({ blocked_machines: rows.map(describeBlocked), next });
    },
  }),
  mutation({
    method: 'PUT',
    path: '/blocked-machines/{machine}',
    needs: 'operator',
    summary: 'Refuse a machine: everywhere within 5 s, while its token lives too',
    description:
      'The engine is not told. `cscli machines delete` there stops new logins, but no token that is out.',
    body: z.strictObject({ reason }),
    answers: { 200: { description: 'Refused.', body: described } },
    change: async (change, body, c) => {
      const answer = await blockMachine(change, c.req.param('machine') ?? '', body.reason);
      return answer;
    },
  }),
  mutation({
    method: 'DELETE',
    path: '/blocked-machines/{machine}',
    needs: 'operator',
    summary: 'Let a machine pass again',
    body: nothing,
    answers: { 204: { description: 'It passes.' } },
    refusals: [404],
    change: async (change, _, c) => {
      const answer = await unblockMachine(change, c.req.param('machine') ?? '');
      return answer;
    },
  }),
];
