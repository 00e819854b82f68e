// The operator API: who is calling, and every operation there is.

import { Hono, type Context } from 'hono';
import { clientAddress, type AppEnv } from './env.ts';
import { causeOf, fail, problem, succeed, type Result } from './http/failure.ts';
import { forgetHead } from './feed/fast-path.ts';
import { bouncerOperations } from './bouncers/api.ts';
import { decisionOperations } from './decisions/api.ts';
import { feedOperations } from './decisions/feed-api.ts';
import { fleetOperations } from './bouncers/rotations-api.ts';
import { hostOperations } from './hosts/api.ts';
import { machineOperations } from './machines/api.ts';
import type { Group } from './operations/openapi.ts';
import { mount } from './operations/operation.ts';
import { operatorOperations } from './operators/api.ts';
import { authenticateOperator, noteBreakGlassRead, type Operator } from './operators/authenticate.ts';
import { fixPublicUrl } from './hosts/public-url.ts';
import { settleStore } from './operations/settle.ts';

/** Every operation, by what it is about, in the order in which they are documented. */
export const operatorApi: readonly Group[] = [
  { tag: 'bouncers', operations: bouncerOperations },
  { tag: 'rotations', operations: fleetOperations },
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
  // A token that a restored backup brought back is refused. What is written is compared as it is written (commit.ts).
  const isRead = c.req.method === 'GET' || c.req.method === 'HEAD';
  if (caller.ok && isRead) {
    const settled = await settleFor(c, caller.value);
    if (!settled.ok) return problem(settled.failure);
    if (settled.value === 'restored') caller = await authenticate();
  }
  if (!caller.ok) return problem(caller.failure);
  const { actor, role, breakGlass } = caller.value;
  c.set('actor', actor);
  c.set('role', role);
  c.set('breakGlass', breakGlass);
  if (breakGlass && isRead) {
    const use = `${c.req.method} ${c.req.path}`;
    await noteBreakGlassRead(settings, c.env, use, nowMs);
  }
  await Promise.all([next(), fixPublicUrl(c, nowMs)]);
  // What an operator changed here, this isolate's next poll sees.
  if (!isRead) forgetHead(Date.now());
});

/**
 * Sees to it that D1 is not a restored backup of itself. Reading goes on without that, unless the operator's own
 * right comes from D1.
 */
async function settleFor(c: Context<AppEnv>, { actor }: Operator): Promise<Result<'same' | 'restored'>> {
  try {
    return succeed(await settleStore(c.env));
  } catch (error) {
    console.error(`the key store was not compared with the feed: ${causeOf(error).message}`);
    if (!actor.startsWith('token:')) return succeed('same');
    return fail({ kind: 'unavailable', problem: 'the key store is out of reach; try again' });
  }
}

mount(
  operatorRoutes,
  operatorApi.flatMap(({ operations }) => operations),
);
