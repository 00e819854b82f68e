// What an engine says of a log-in or a registration, to somebody who may be anybody. LAPI answers whatever its database
// driver says (middlewares/v1/jwt.go: with 401; controllers/v1/errors.go: with 500): where the database is, and whose.

import { fail, succeed, type Result } from '../http/failure.ts';

/** All that LAPI says of the request itself, in any version. */
const aboutRequest =
  /^(incorrect Username or Password|input format error|(ent: )?machine not found|machine .* not validated|missing ?: .*|invalid token for auto registration|IP not in allowed range for auto registration)$/;

/**
 * The engine's answer where it is about the request. Else `unavailable`, after which log processors come again: a fault
 * of the engine is no refusal, though LAPI says it with 401.
 */
export async function forStrangers(result: Result<Response>): Promise<Result<Response>> {
  if (!result.ok) return result;
  const { status, headers } = result.value;
  if (status !== 401 && status < 500) return result;
  const text = await result.value.text();
  if (status !== 401 || !aboutRequest.test(messageIn(text))) {
    return fail({
      kind: 'unavailable',
      problem: 'the engine has a fault, which its own log names; try again',
    });
  }
  return succeed(new Response(text, { status, headers }));
}

function messageIn(text: string): string {
  try {
    return String((JSON.parse(text) as { message?: unknown } | null)?.message);
  } catch {
    return '';
  }
}
