// The operator API of machines: which of them are blocked here.

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
    summary: 'Machines that are blocked here',
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
    summary: 'Block a machine: everywhere within 5 s, also while its token is valid',
    description:
      'The engine does not learn of it. `cscli machines delete` there stops new log-ins, but not tokens that were issued.',
    body: z.strictObject({ reason }),
    answers: { 200: { description: 'Blocked.', body: described } },
    change: (change, body, c) => blockMachine(change, c.req.param('machine') ?? '', body.reason),
  }),
  mutation({
    method: 'DELETE',
    path: '/blocked-machines/{machine}',
    needs: 'operator',
    summary: 'Unblock a machine',
    body: nothing,
    answers: { 204: { description: 'Unblocked.' } },
    refusals: [404],
    change: (change, _, c) => unblockMachine(change, c.req.param('machine') ?? ''),
  }),
];
