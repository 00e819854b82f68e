// The operator API of bouncers, their keys and their policies.

import type { Context } from 'hono';
import * as z from 'zod';
import { type AppEnv } from '../env.ts';
import * as db from './bouncers.sql.ts';
import { badInput, problem } from '../http/failure.ts';
import * as bouncers from './bouncers.ts';
import { keyOf, name, newKey, nextOf, nothing, page, pageOf, isoTime, time } from '../operations/fields.ts';
import * as imports from './import.ts';
import { etagOf } from '../operations/mutate.ts';
import { mutation, operation } from '../operations/operation.ts';
import { policyChange } from './policy.ts';
import { overlapFields, overlapOf } from './versions.ts';
import { askFeed } from '../feed/client.ts';

const described = z.object({ bouncer: bouncers.bouncerShape });
const withKey = described.extend({
  key: z
    .string()
    .optional()
    .meta({ description: 'Shown this once, and only when it was made here.', example: 'csb_…' }),
});

export const bouncerOperations = [
  operation({
    method: 'GET',
    path: '/bouncers',
    needs: 'viewer',
    summary: 'All bouncers, with their keys’ versions and clients',
    query: page,
    answers: { 200: pageOf('bouncers', bouncers.bouncerShape) },
    reply: async (c, { query: { after, limit } }) => {
      const rows = await db.listBouncers(c.env.DB, after, limit);
      const ids = rows.map(({ bouncer }) => bouncer.id);
      const clients = await askFeed(c.env, async (feed) => feed.clientsOf(ids));
      const all = rows.map((facts, index) => bouncers.describeBouncer(facts, clients[index] ?? []));
      return c.json({ bouncers: all, next: nextOf(rows, limit, ({ bouncer }) => bouncer.id) });
    },
  }),
  mutation({
    method: 'POST',
    path: '/bouncers',
    needs: 'operator',
    summary: 'Register a bouncer',
    description: 'Makes its key, or takes the digest of one that you made or that it has already.',
    body: z.strictObject({ name, ...newKey }),
    answers: { 201: { description: 'Registered.', body: withKey } },
    refusals: [409],
    change: (change, body) => bouncers.createBouncer(change, body.name, keyOf(body)),
  }),
  mutation({
    method: 'POST',
    path: '/bouncers/import',
    needs: 'operator',
    summary: 'Import LAPI’s bouncers with the keys that they have',
    description:
      'Takes the rows that the documented export writes. Imports all of them or none, and is safe to repeat.',
    body: imports.lapiExport,
    bodyLimitBytes: imports.importLimitBytes,
    answers: { 200: { description: 'What became of each.', body: imports.importShape } },
    refusals: [409],
    change: (change, rows, c) => imports.importBouncers(change, rows, c.get('settings')),
  }),
  operation({
    method: 'GET',
    path: '/bouncers/{name}',
    needs: 'viewer',
    summary: 'One bouncer, with its newest usage metrics',
    answers: {
      200: {
        description: 'Its ETag is its revision.',
        body: bouncers.bouncerShape.extend({
          metrics: z.unknown().meta({ description: 'As it sent them; null before the first.' }),
          metrics_at: time.nullable(),
        }),
      },
    },
    refusals: [404],
    reply: showBouncer,
  }),
  mutation({
    method: 'PATCH',
    path: '/bouncers/{name}',
    needs: 'operator',
    summary: 'Change what its keys may do, pause and resume it',
    description:
      'What is not named stays as it is. It needs `If-Match`, so that no policy is changed unseen.',
    body: policyChange,
    ifMatch: 'required',
    answers: { 200: { description: 'It holds everywhere within 5 s.', body: described } },
    refusals: [404],
    change: async (change, policy, c) => {
      const names = c.get('settings').upstreams.map(({ name }) => name);
      const unknown = policy.view?.engines?.find((engine) => !names.includes(engine));
      if (unknown !== undefined) return badInput('view.engines', `there is no engine ${unknown}`);
      return bouncers.changePolicy(change, nameOf(c), policy);
    },
  }),
  mutation({
    method: 'DELETE',
    path: '/bouncers/{name}',
    needs: 'operator',
    summary: 'Delete a bouncer and revoke its keys: they are refused everywhere within 5 s',
    body: nothing,
    ifMatch: 'optional',
    answers: { 204: { description: 'Deleted.' } },
    refusals: [404],
    change: (change, _, c) => bouncers.deleteBouncer(change, nameOf(c)),
  }),
  mutation({
    method: 'POST',
    path: '/bouncers/{name}/rotate',
    needs: 'operator',
    summary: 'A new version of its key',
    description:
      'The old version is valid until the new one is first used, and then for `grace`. A new version that is not ' +
      'used within `max_overlap` expires, and the old one stays. Where a host registers the key, the host is asked ' +
      'for a new one, unless you send a digest.',
    body: z.strictObject({ ...overlapFields, ...newKey }),
    ifMatch: 'optional',
    answers: {
      200: { description: 'Both versions, and the new key.', body: withKey },
      202: { description: 'Its host was asked for a new key.', body: described },
    },
    refusals: [404, 409],
    change: (change, body, c) => bouncers.rotateKey(change, nameOf(c), keyOf(body), overlapOf(body)),
  }),
  mutation({
    method: 'POST',
    path: '/bouncers/{name}/versions/{number}/revoke',
    needs: 'operator',
    summary: 'Revoke one version of its key: it is refused everywhere within 5 s',
    body: nothing,
    ifMatch: 'optional',
    answers: { 200: { description: 'The bouncer with what is left.', body: described } },
    refusals: [404],
    change: (change, _, c) => {
      const number = Number(/^\d{1,9}$/.exec(c.req.param('number') ?? '')?.[0] ?? 0);
      return bouncers.revokeVersion(change, nameOf(c), number);
    },
  }),
];

async function showBouncer(c: Context<AppEnv>): Promise<Response> {
  const found = await db.findBouncer(c.env.DB, nameOf(c));
  if (!found) return problem({ kind: 'not-found', what: `bouncer ${nameOf(c)}` });
  const { facts, metricsJson } = found;
  const { id, revision, metricsMs } = facts.bouncer;
  const metrics: unknown = metricsJson === null ? null : JSON.parse(metricsJson);
  const [clients] = await askFeed(c.env, async (feed) => feed.clientsOf([id]));
  c.header('etag', etagOf(revision));
  return c.json({
    ...bouncers.describeBouncer(facts, clients ?? []),
    metrics,
    metrics_at: isoTime(metricsMs),
  });
}

function nameOf(c: Context<AppEnv>): string {
  return c.req.param('name') ?? '';
}
