// Who may call the operator API. Fails closed: without `OPERATOR_TOKEN` nobody may.

import { fail, succeed, type Result } from '../failure.ts';
import { sameSecret } from '../secret.ts';
import type { Settings } from '../settings.ts';

/** `authorization` is the header as it came. */
export async function authenticateOperator(
  settings: Settings,
  authorization: string | undefined,
): Promise<Result<'operator'>> {
  if (settings.operatorToken === null) {
    return fail({
      kind: 'unauthorised',
      problem: 'no operator can log in: OPERATOR_TOKEN is not set (wrangler secret put OPERATOR_TOKEN)',
    });
  }
  const token = /^Bearer +([\x21-\x7e]+)$/i.exec(authorization ?? '')?.[1];
  if (token === undefined) {
    return fail({ kind: 'unauthorised', problem: 'send the operator token as Authorization: Bearer …' });
  }
  if (await sameSecret(token, settings.operatorToken)) return succeed('operator');
  return fail({ kind: 'unauthorised', problem: 'this operator token is not valid' });
}
