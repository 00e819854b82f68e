// The operator API: who calls it, and the list of all its operations.

import { Hono } from 'hono';
import { clientAddress, type AppEnv } from './env.ts';
import { causeOf, problem } from './http/failure.ts';
import { forgetLatest } from './feed/client.ts';
import { bouncerOperations } from './bouncers/api.ts';
import { decisionOperations } from './decisions/api.ts';
import { feedOperations } from './decisions/feed-api.ts';
import { rotationOperations } from './bouncers/rotations-api.ts';
import { hostOperations } from './hosts/api.ts';
import { machineOperations } from './machines/api.ts';
import type { Group } from './operations/openapi.ts';
import { mount } from './operations/operation.ts';
import { operatorOperations } from './operators/api.ts';
import { authenticateOperator, noteBreakGlassRead } from './operators/authenticate.ts';
import { fixPublicUrl } from './hosts/public-url.ts';
import { settleStore } from './operations/settle.ts';

/** Every operation, by subject, in the order of the documentation. */
export const operatorApi: readonly Group[] = [
  { tag: 'bouncers', operations: bouncerOperations },
  { tag: 'rotations', operations: rotationOperations },
  { tag: 'hosts', operations: hostOperations },
  { tag: 'decisions', operations: decisionOperations },
  { tag: 'machines', operations: machineOperations },
  { tag: 'feed', operations: feedOperations },
  { tag: 'operators', operations: operatorOperations },
].map((group) => ({ ...group, basePath: '/api/v1' }));

export const operatorRoutes = new Hono<AppEnv>();

operatorRoutes.use(async (c, next) => {
  const nowMs = Date.now();
  const settings = c.get('settings');
  const address = clientAddress(c.req.raw, settings);
  const authenticate = () => authenticateOperator(settings, c.env.DB, c.req.raw, address, nowMs);
  let caller = await authenticate();
  // A restored backup may have brought back a revoked token. Mutations are compared when they are written (writer.ts).
  const isRead = c.req.method === 'GET' || c.req.method === 'HEAD';
  if (caller.ok && isRead) {
    const settled = await settleStore(c.env).catch((error: unknown) => {
      console.error(`the key store was not compared with the feed: ${causeOf(error).message}`);
      return null;
    });
    // Reads go on without the comparison, unless the operator's token is itself in D1.
    if (settled === null && caller.value.actor.startsWith('token:')) {
      return problem({ kind: 'unavailable', problem: 'the key store is out of reach; try again' });
    }
    if (settled === 'restored') caller = await authenticate();
  }
  if (!caller.ok) return problem(caller.failure);
  const { actor, role, breakGlass } = caller.value;
  c.set('actor', actor);
  c.set('role', role);
  c.set('breakGlass', breakGlass);
  if (breakGlass && isRead) await noteBreakGlassRead(settings, c.env, `${c.req.method} ${c.req.path}`, nowMs);
  await Promise.all([next(), fixPublicUrl(c, nowMs)]);
  // The next poll of this isolate sees what was changed here.
  if (!isRead) forgetLatest(Date.now());
});

mount(
  operatorRoutes,
  operatorApi.flatMap(({ operations }) => operations),
);
