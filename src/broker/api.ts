// The operator API: who is calling, and every operation there is.

import { Hono } from 'hono';
import type { AppEnv } from '../context.ts';
import { problem } from '../failure.ts';
import { forgetHead } from '../lapi/quiet.ts';
import { anchorAudit } from './audit.ts';
import { bouncerOperations } from './bouncer-api.ts';
import { decisionOperations } from './decision-api.ts';
import { feedOperations } from './feed-api.ts';
import { fleetOperations } from './fleet-api.ts';
import type { Group } from './openapi.ts';
import { mount } from './operation.ts';
import { operatorOperations } from './operator-api.ts';
import { authenticateOperator, noteBreakGlassRead } from './operators.ts';

/** Every operation, by what it is about, in the order in which they are documented. */
export const operatorApi: readonly Group[] = [
  { tag: 'bouncers', operations: bouncerOperations },
  { tag: 'rotations', operations: fleetOperations },
  { tag: 'decisions', operations: decisionOperations },
  { tag: 'feed', operations: feedOperations },
  { tag: 'operators', operations: operatorOperations },
].map((group) => ({ ...group, basePath: '/api/v1' }));

export const operatorRoutes = new Hono<AppEnv>();

operatorRoutes.use(async (c, next) => {
  const nowMs = Date.now();
  const caller = await authenticateOperator(c.get('settings'), c.env.DB, c.req.raw, nowMs);
  if (!caller.ok) return problem(caller.failure);
  const { actor, role, breakGlass } = caller.value;
  c.set('actor', actor);
  c.set('role', role);
  c.set('breakGlass', breakGlass);
  if (breakGlass && c.req.method === 'GET') {
    const use = `${c.req.method} ${c.req.path}`;
    if (await noteBreakGlassRead(c.get('settings'), c.env.DB, use, nowMs)) await anchorAudit(c.env);
  }
  await next();
  // What an operator changed here, this isolate's next poll sees.
  if (c.req.method !== 'GET') forgetHead();
});

mount(
  operatorRoutes,
  operatorApi.flatMap(({ operations }) => operations),
);
