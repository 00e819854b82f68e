// A host's account at an engine. Registers it at the engine's LAPI if it is not there; logs in if it is, which alone tells
// whether the engine accepts it. A mistake here shows a password or the registration token.

import type { EngineSettings } from '../config/engines.ts';
import { ownUserAgent } from '../engines/upstream.ts';
import { fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { forward } from './forward.ts';

export interface Account {
  /** LAPI's `machine_id`. */
  readonly machine: string;
  readonly password: string;
}

/** `waiting`: somebody has to validate it with cscli. */
export type AccountState = 'validated' | 'waiting';

/** For the bodies of a log-in and a registration. LAPI's answers to them have at most a token of 300 characters. */
const limitBytes = 4096;

/**
 * Makes sure that the account exists. `known`: it existed before. `address`: the host's, for the engine's list of machines
 * and the `allowed_ranges` of its auto-registration. Fails with `conflict` if the name has another password.
 */
export async function openAccount(
  engine: EngineSettings,
  account: Account,
  known: boolean,
  address: string,
): Promise<Result<AccountState>> {
  const found = known ? await logIn(engine, account, address) : null;
  if (found && (!found.ok || found.value !== 'not found')) return found as Result<AccountState>;
  const token = engine.registrationToken;
  const more = token === null ? {} : { registration_token: token };
  const answer = await ask(engine, 'watchers', account, more, address);
  if (!answer.ok) return answer;
  const { status, words } = answer.value;
  // LAPI: 202 with a good registration token (1.6.3 on), 201 without one.
  if (status === 202) return succeed('validated');
  if (status === 201) return succeed('waiting');
  if (status === 403 && /already exist/.test(words)) {
    const there = await logIn(engine, account, address);
    if (!there.ok || there.value !== 'not found') return there as Result<AccountState>;
  }
  return refusedBy(engine, `the registration of a machine with status ${status}`, words);
}

/** LAPI says only in words what is wrong with a log-in (middlewares/v1/jwt.go): the status is always 401. */
async function logIn(
  engine: EngineSettings,
  account: Account,
  address: string,
): Promise<Result<AccountState | 'not found'>> {
  // No scenarios: the engine keeps those that the log processor named.
  const answer = await ask(engine, 'watchers/login', account, { scenarios: [] }, address);
  if (!answer.ok) return answer;
  const { status, words } = answer.value;
  if (status === 200) return succeed('validated');
  if (/not validated/.test(words)) return succeed('waiting');
  if (/machine not found/.test(words)) return succeed('not found');
  if (/incorrect Username or Password/.test(words)) return fail(passwordTaken);
  return refusedBy(engine, `a machine's login with status ${status}`, words);
}

const passwordTaken: Failure = {
  kind: 'conflict',
  field: 'machine_password',
  problem: 'the engine has another password for this account; make a new one',
};

interface Answered {
  readonly status: number;
  /** The engine's message, without the secrets that it was sent. */
  readonly words: string;
}

async function ask(
  engine: EngineSettings,
  path: 'watchers' | 'watchers/login',
  { machine, password }: Account,
  more: { readonly scenarios?: readonly string[]; readonly registration_token?: string },
  address: string,
): Promise<Result<Answered>> {
  const body = { machine_id: machine, password, ...more };
  // Without exactly one `/` LAPI refuses the log-in; what follows it becomes the machine's version (middlewares/v1/jwt.go).
  const headers = { 'content-type': 'application/json', 'user-agent': ownUserAgent };
  const request = new Request(`${engine.url}/v1/${path}`, { method: 'POST', headers });
  const bytes = new TextEncoder().encode(JSON.stringify(body));
  const answer = await forward(request, engine, { target: `/v1/${path}`, address, limitBytes, body: bytes });
  if (!answer.ok) return answer;
  const { status } = answer.value;
  try {
    const text = await answer.value.text();
    // The answer to a good log-in has a token, which goes nowhere.
    return succeed({
      status,
      words: status === 200 ? '' : wordsOf(text, [password, more.registration_token ?? password]),
    });
  } catch {
    return fail({ kind: 'unavailable', problem: 'the engine fell silent in the middle of its answer' });
  }
}

function wordsOf(text: string, secrets: readonly string[]): string {
  const [, message = ''] = /"message":"((?:[^"\\]|\\.)*)"/.exec(text) ?? [];
  const plain = secrets.reduce((words, secret) => words.replaceAll(secret, '…'), message);
  return plain.replace(/\\n|[^\x20-\x7e…]/g, ' ').slice(0, 200);
}

/** 503: an operator has to mend it, and the host tries again. */
function refusedBy(engine: EngineSettings, what: string, words: string): Result<never> {
  const said = words === '' ? '' : `: ${words}`;
  const problem = `the engine ${engine.name} answers ${what}${said}`;
  console.error(problem);
  return fail({ kind: 'unavailable', problem });
}
