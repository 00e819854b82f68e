// Who may do what LAPI lets local callers do. The engine sees everyone who comes through a tunnel as local, and local
// callers may delete alerts and register machines. So what LAPI decides by the peer's address is decided here.

import type { Context } from 'hono';
import { authenticateOperator } from '../operators/authenticate.ts';
import { mutationBy, note } from '../operations/mutate.ts';
import { clientAddress, type AppEnv } from '../env.ts';
import { causeOf, done, fail, type Result } from '../http/failure.ts';
import { mayAct } from '../config/roles.ts';
import { covers, parseNetwork } from '../formats/ip.ts';
import { claimedMachine } from './tokens.ts';

/**
 * Lets through callers from an address in `MACHINE_ALLOW`, and those with an operator's token beside the machine's. The
 * audit log has what a token is used for before it is done.
 */
export async function mayAsLocal(c: Context<AppEnv>, action: string): Promise<Result<void>> {
  const settings = c.get('settings');
  const network = parseNetwork(clientAddress(c.req.raw, settings));
  if (network && settings.machineAllow.some((range) => covers(range, network))) return done;
  const token = c.req.header('x-lapidary-token');
  if (token === undefined) {
    return forbidden(
      `${action} only from addresses in MACHINE_ALLOW, or with an operator's token in X-Lapidary-Token`,
    );
  }
  try {
    return await mayByToken(c, token, action);
  } catch (error) {
    console.error(`the key store is out of reach: ${causeOf(error).message}`);
    return fail({ kind: 'unavailable', problem: 'operator tokens can not be checked now; try again' });
  }
}

async function mayByToken(c: Context<AppEnv>, token: string, action: string): Promise<Result<void>> {
  const nowMs = Date.now();
  const settings = c.get('settings');
  const address = clientAddress(c.req.raw, settings);
  const asked = new Request(c.req.url, { headers: { authorization: `Bearer ${token}` } });
  const operator = await authenticateOperator(settings, c.env.DB, asked, address, nowMs);
  if (!operator.ok) {
    const { failure } = operator;
    return failure.kind === 'unauthorised' ? forbidden(failure.problem) : operator;
  }
  const { actor, role, breakGlass } = operator.value;
  if (!mayAct(role, 'operator')) return forbidden(`this needs the role operator; yours is ${role}`);
  const { pathname, search } = new URL(c.req.url);
  const detail = { address, machine: claimedMachine(c.req.raw.headers) };
  const target = `${c.req.method} ${pathname}${search}`.slice(0, 200);
  // Refused where D1 is a restored backup: the token may be one that it brought back.
  const mutation = { ...mutationBy(c.env, actor, nowMs), breakGlass };
  const noted = await note(mutation, `machine.${action.replaceAll(' ', '-')}`, target, detail);
  return noted.ok ? done : noted;
}

function forbidden(problem: string): Result<never> {
  return fail({ kind: 'forbidden', problem: `access forbidden: ${problem}` });
}
