// The operator behind a request: authenticated, compared with a restored D1 where that matters, and noted where it is
// break-glass. Every route of operators begins here.

import type { Context } from 'hono';
import { clientAddress, type AppEnv } from '../env.ts';
import { countRefusal } from '../feed/client.ts';
import { causeOf, type Failure, type Result } from '../http/failure.ts';
import { settleStore } from '../operations/settle.ts';
import { authenticateOperator, noteBreakGlassRead, type Operator } from './authenticate.ts';
import { identifySession } from './sessions.ts';

export function isRead(c: Context<AppEnv>): boolean {
  return c.req.method === 'GET' || c.req.method === 'HEAD';
}

/**
 * Sets `actor`, `role` and `breakGlass`, or says why the request is refused. `shows`: the caller may be shown what is there,
 * and not only what it changed. `isNoted`: whether a read with `OPERATOR_TOKEN` leaves a row in the audit log.
 */
export async function identifyOperator(
  c: Context<AppEnv>,
  { shows = isRead(c), isNoted = true } = {},
): Promise<Failure | null> {
  const nowMs = Date.now();
  const settings = c.get('settings');
  const address = clientAddress(c.req.raw, settings);
  const refused = await identifyBy(c, shows, () => {
    return authenticateOperator(settings, c.env.DB, c.req.raw, address, nowMs);
  });
  if (refused === null && isNoted && c.get('breakGlass') && isRead(c)) {
    await noteBreakGlassRead(settings, c.env, `${c.req.method} ${c.req.path}`, nowMs);
  }
  return refused;
}

/** The same for the session of a cookie, which is shown pages. It was noted when it began. */
export function identifyBySession(c: Context<AppEnv>, session: string): Promise<Failure | null> {
  return identifyBy(c, true, () => identifySession(c.env, session, Date.now()));
}

async function identifyBy(
  c: Context<AppEnv>,
  shows: boolean,
  authenticate: () => Promise<Result<Operator>>,
): Promise<Failure | null> {
  let caller = await authenticate();
  // A restored backup may have brought back a revoked token. Mutations are compared when they are written (writer.ts).
  if (caller.ok && shows) {
    const settled = await settleStore(c.env).catch((error: unknown) => {
      console.error(`the key store was not compared with the feed: ${causeOf(error).message}`);
      return null;
    });
    // Reads go on without the comparison, unless the operator's token is itself in D1.
    if (settled === null && caller.value.actor.startsWith('token:')) {
      return { kind: 'unavailable', problem: 'the key store is out of reach; try again' };
    }
    if (settled === 'restored') caller = await authenticate();
  }
  if (!caller.ok) {
    const { kind } = caller.failure;
    if (kind === 'unauthorised' || kind === 'forbidden') countRefusal('operator', kind);
    return caller.failure;
  }
  const { actor, role, breakGlass } = caller.value;
  c.set('actor', actor);
  c.set('role', role);
  c.set('breakGlass', breakGlass);
  return null;
}
