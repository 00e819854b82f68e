// The operator API of the allow-list.

import type { Context } from 'hono';
import * as z from 'zod';
import type { AppEnv } from '../env.ts';
import { problem } from '../http/failure.ts';
import { nextOf, nothing, page, pageOf } from '../operations/fields.ts';
import { etagOf } from '../operations/mutate.ts';
import { mutation, operation } from '../operations/operation.ts';
import { engineEntriesOperation } from './engines-api.ts';
import * as entries from './entries.ts';

const described = z.object({ entry: entries.entryShape });

export const allowlistOperations = [
  mutation({
    method: 'POST',
    path: '/allowlist',
    needs: 'operator',
    summary: 'Allow an address or a range, for all bouncers or for some: they are served no decision on it',
    description:
      'Bouncers that have such a decision are told with their next poll that it ended. A banned range is withheld as a ' +
      'whole where an allowed address is in it; look-ups and `/lists` still have its other addresses. Decisions on countries ' +
      'and AS numbers are served as before: a bouncer matches them itself. With `bouncers` all this is for those alone.',
    body: entries.newEntry,
    answers: { 201: { description: 'Allowed.', body: described.extend(entries.effectShape) } },
    refusals: [409],
    change: (change, body) => entries.createEntry(change, body),
  }),
  operation({
    method: 'GET',
    path: '/allowlist',
    needs: 'viewer',
    summary: 'The allow-list',
    description: 'Without the entries that have ended.',
    query: page,
    answers: { 200: pageOf('entries', entries.entryShape) },
    reply: async (c, { query: { after, limit } }) => {
      const rows = await entries.listEntries(c.env.DB, after, limit, Date.now());
      return c.json({ entries: rows.map(entries.describeEntry), next: nextOf(rows, limit, ({ id }) => id) });
    },
  }),
  // Before the entries by their ids, since its path would be one.
  engineEntriesOperation,
  operation({
    method: 'GET',
    path: '/allowlist/{id}',
    needs: 'viewer',
    summary: 'One entry, and what it withholds',
    answers: {
      200: { description: 'Its ETag is its revision.', body: entries.entryShape.extend(entries.effectShape) },
    },
    refusals: [404],
    reply: async (c) => {
      const entry = await entries.findEntry(c.env.DB, idOf(c), Date.now());
      if (!entry) return problem({ kind: 'not-found', what: `entry ${idOf(c)} of the allow-list` });
      const described = entries.describeEntry(entry);
      const found = await entries.askEffect(c.env, entry.value, described.bouncers);
      c.header('etag', etagOf(entry.revision));
      return c.json({ ...described, ...entries.describeEffect(entry.value, described.bouncers, found) });
    },
  }),
  mutation({
    method: 'PATCH',
    path: '/allowlist/{id}',
    needs: 'operator',
    summary: 'Change why it is there, or when it ends',
    description: 'What is not named stays as it is.',
    body: entries.entryChange,
    ifMatch: 'required',
    answers: { 200: { description: 'Changed.', body: described } },
    refusals: [404],
    change: (change, body, c) => entries.changeEntry(change, idOf(c), body),
  }),
  mutation({
    method: 'DELETE',
    path: '/allowlist/{id}',
    needs: 'operator',
    summary: 'Remove an entry: what it withheld is served again',
    body: nothing,
    ifMatch: 'optional',
    answers: { 204: { description: 'Removed.' } },
    refusals: [404],
    change: (change, _, c) => entries.removeEntry(change, idOf(c)),
  }),
];

function idOf(c: Context<AppEnv>): number {
  return Number(/^\d{1,15}$/.exec(c.req.param('id') ?? '')?.[0] ?? 0);
}
