// The operator API of hosts, and of the tokens with which they enrol themselves.

import * as z from 'zod';
import type { Context } from 'hono';
import type { AppEnv } from '../env.ts';
import { badInput, problem, succeed, type Result } from '../http/failure.ts';
import * as enrolments from './enrolments.ts';
import { nameMustBe, nameRule, nextOf, nothing, page, pageOf } from '../operations/fields.ts';
import * as hosts from './hosts.ts';
import { findHostFacts, hostStates, listHosts } from './hosts.sql.ts';
import { listEnrolments } from './enrolments.sql.ts';
import { noMachines } from '../machines/blocklist.ts';
import { etagOf } from '../operations/mutate.ts';
import { mutation, operation } from '../operations/operation.ts';
import { changePublicUrl, publicUrlFields, publicUrlShape } from './public-url.ts';

const described = z.object({ host: hosts.hostShape });
const describedEnrolment = z.object({ enrolment: enrolments.enrolmentShape });

const enrolmentOrders = ['oldest', 'newest'] as const;

export const hostOperations = [
  operation({
    method: 'GET',
    path: '/hosts',
    needs: 'viewer',
    summary: 'All hosts, with the bouncers whose keys they register',
    query: page.extend({
      state: z
        .enum(hostStates, `must be one of ${hostStates.join(', ')}`)
        .optional()
        .meta({ description: 'Only those in this state.' }),
    }),
    answers: { 200: pageOf('hosts', hosts.hostShape) },
    reply: async (c, { query: { state, after, limit } }) => {
      const rows = await listHosts(c.env.DB, state, after, limit);
      const next = nextOf(rows, limit, ({ host }) => host.id);
      return c.json({ hosts: rows.map(hosts.describeHost), next });
    },
  }),
  operation({
    method: 'GET',
    path: '/hosts/{name}',
    needs: 'viewer',
    summary: 'One host',
    answers: { 200: { description: 'Its ETag is its revision.', body: described } },
    refusals: [404],
    reply: async (c) => {
      const name = c.req.param('name') ?? '';
      const found = await findHostFacts(c.env.DB, name);
      if (!found || found.host.removedMs !== null)
        return problem({ kind: 'not-found', what: `host ${name}` });
      c.header('etag', etagOf(found.host.revision));
      return c.json({ host: hosts.describeHost(found) });
    },
  }),
  mutation({
    method: 'PUT',
    path: '/hosts/{name}',
    needs: 'operator',
    summary: 'Make a host known by its SSH public key, or change it',
    description:
      'Fields that are left out get their defaults. With another public key its next registration is taken whatever its ' +
      'generation; the keys of its bouncers stay valid until then.',
    body: hosts.hostFields,
    ifMatch: 'optional',
    answers: {
      200: { description: 'Changed.', body: described },
      201: { description: 'Made.', body: described },
    },
    refusals: [409],
    change: async (change, fields, c) => {
      const name = c.req.param('name') ?? '';
      if (!nameRule.test(name)) return badInput('name', nameMustBe);
      const engine = checkEngine(c, fields.machine);
      if (!engine.ok) return engine;
      return hosts.putHost(change, name, fields);
    },
  }),
  mutation({
    method: 'DELETE',
    path: '/hosts/{name}',
    needs: 'operator',
    summary: 'Remove a host: the keys of its bouncers, and its machine, are refused everywhere within 5 s',
    description: 'Its next request is answered with 410. Its bouncers stay, without a key.',
    body: nothing,
    ifMatch: 'optional',
    answers: { 204: { description: 'Removed.' } },
    refusals: [404],
    change: (change, _, c) => hosts.removeHost(change, c.req.param('name') ?? ''),
  }),
  mutation({
    method: 'POST',
    path: '/hosts/{name}/recoveries',
    needs: 'operator',
    summary: 'Let a host that was rebuilt register once more, and take the suspicion back',
    body: nothing,
    ifMatch: 'optional',
    answers: { 200: { description: 'Allowed, once for each of its keys.', body: described } },
    refusals: [404],
    change: (change, _, c) => hosts.allowRecovery(change, c.req.param('name') ?? ''),
  }),
  mutation({
    method: 'PUT',
    path: '/public-url',
    needs: 'operator',
    summary: 'Set the address by which hosts know this broker',
    description:
      'It replaces the one that the first operator’s request fixed. `GET /feed` shows the current one.',
    body: publicUrlFields,
    answers: { 200: { description: 'Changed.', body: z.object({ public_urls: z.array(publicUrlShape) }) } },
    refusals: [409],
    change: (change, { url }, c) => changePublicUrl(change, c.get('settings'), url),
  }),
  mutation({
    method: 'POST',
    path: '/enrolments',
    needs: 'operator',
    summary: 'Make a token with which hosts enrol themselves',
    description:
      'The token is shown once. Each host that uses it is bound to the SSH key that it sends with it.',
    body: enrolments.newEnrolment,
    answers: {
      201: {
        description: 'Made.',
        body: describedEnrolment.extend({ token: z.string().optional().meta({ example: 'cse_…' }) }),
      },
    },
    change: async (change, fields, c) => {
      const engine = checkEngine(c, fields.machine);
      return engine.ok ? enrolments.createEnrolment(change, fields) : engine;
    },
  }),
  operation({
    method: 'GET',
    path: '/enrolments',
    needs: 'viewer',
    summary: 'All enrolment tokens, and who used them',
    query: page.extend({
      order: z
        .enum(enrolmentOrders, `must be one of ${enrolmentOrders.join(', ')}`)
        .default('oldest')
        .meta({
          description: 'Which come first.',
        }),
    }),
    answers: { 200: pageOf('enrolments', enrolments.enrolmentShape) },
    reply: async (c, { query: { order, after, limit } }) => {
      const rows = await listEnrolments(c.env.DB, order, after, limit);
      const all = rows.map((facts) => enrolments.describeEnrolment(facts, Date.now()));
      return c.json({ enrolments: all, next: nextOf(rows, limit, ({ enrolment }) => enrolment.id) });
    },
  }),
  mutation({
    method: 'DELETE',
    path: '/enrolments/{id}',
    needs: 'operator',
    summary: 'Revoke an enrolment token: no further host can use it',
    body: nothing,
    answers: { 200: { description: 'Revoked. Hosts that used it stay.', body: describedEnrolment } },
    refusals: [404, 409],
    change: (change, _, c) => enrolments.revokeEnrolment(change, c.req.param('id') ?? ''),
  }),
];

function checkEngine(c: Context<AppEnv>, machine: string | null): Result<void> {
  const { engines, machineRoutes } = c.get('settings');
  if (machine === null) return succeed(undefined);
  if (!machineRoutes) return badInput('machine', noMachines);
  const isThere = engines.some(({ name }) => name === machine);
  return isThere ? succeed(undefined) : badInput('machine', `there is no engine ${machine}`);
}
