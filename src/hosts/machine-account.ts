// A host's account at an engine, as the broker gives it: decided and written first, then asked for at the engine, so that
// a crash between the two leaves an account that the host's next request makes good. The password is in the host's
// request and in the engine's; here it is in the account's name only, as a part of a digest.

import * as db from './hosts.sql.ts';
import {
  giveMachineStatements,
  mayHave,
  selectAccount,
  selectBlocked,
  takeMachineStatements,
} from '../machines/machines.sql.ts';
import type { EngineSettings } from '../config/engines.ts';
import { fail, succeed, type Failure, type Result } from '../http/failure.ts';
import { digestOf } from '../crypto/secret.ts';
import type { Account } from '../machines/account.ts';
import { actorOf, register, type Asked } from './registration.ts';
import { type HostKey, machineSlot } from '../bouncers/host-keys.sql.ts';

/** What a host asks for, its signature checked. */
export type AskedMachine = Asked & { readonly host: db.Host; readonly password: string };

/** What is written, and is to be asked for at the engine. */
export interface HostAccount extends Account {
  readonly engine: EngineSettings;
  readonly hostId: number;
  readonly generation: number;
  /** It was given before. */
  readonly known: boolean;
}

const nameTaken: Failure = {
  kind: 'conflict',
  field: 'machine_password',
  problem: 'its account was taken away; make a new one',
};

/**
 * The account of a host, by its password: the same one for the same, another one, in place of the one before, for a
 * new one. A host whose machine an operator refuses gets no other.
 */
export async function giveMachine(
  env: Env,
  engines: readonly EngineSettings[],
  asked: AskedMachine,
  nowMs: number,
): Promise<Result<HostAccount>> {
  const { password } = asked;
  const { name: hostName, machineEngine } = asked.host;
  const engine = engines.find(({ name }) => name === machineEngine);
  const machine = await nameOf(hostName, machineEngine ?? '', password);
  let known = false;
  const done = await register(
    env,
    asked,
    {
      slot: machineSlot(hostName),
      reads: (d) => [selectAccount(d, hostName), selectBlocked(d, [machine])] as const,
      refuse: ([[had]]) => {
        if (!engine) {
          const problem = `there is no engine ${machineEngine} any more; an operator has to name another`;
          return { kind: 'unavailable', problem };
        }
        if (!had?.isBlocked) return null;
        return { kind: 'forbidden', problem: `an operator refuses the machine ${had.account.machine}` };
      },
      repeated: ([[had]]) => {
        known = had?.account.machine === machine;
        if (!known) return null;
        const answer = ({ hostKey: { generation } }: { hostKey: HostKey }) => ({
          status: 200,
          body: { generation },
        });
        return { answer, mayBeBehind: true, again: true };
      },
      register: ([[had], blocked], { host }, { why }, generation) => {
        if (!known && blocked.length > 0) return fail(nameTaken);
        const { name } = engine as EngineSettings;
        const taken = { blockedMs: nowMs, actor: actorOf(hostName), reason: `its host has ${machine} now` };
        const row = { hostId: host.id, machine, engine: name, createdMs: nowMs };
        return succeed({
          entry: {
            action: 'host.machine',
            detail: {
              machine,
              engine: name,
              generation,
              recovered: why !== 'in-order',
              ...(had && !known ? { replaced: had.account.machine } : {}),
            },
          },
          unchanged: mayHave(host.id, machine, name),
          statements: (d) =>
            known ? [] : [...takeMachineStatements(d, host.id, taken), ...giveMachineStatements(d, row)],
          answer: { status: 200, body: { generation } },
          clash: nameTaken,
        });
      },
    },
    nowMs,
  );
  if (!done.ok) return done;
  const generation = Number(done.value.body['generation']);
  return succeed({
    machine,
    password,
    engine: engine as EngineSettings,
    hostId: asked.host.id,
    generation,
    known,
  });
}

/**
 * `web-1-3f2a9c01`: the host's, with 8 hex digits of the password's digest. So a request that is repeated means the same
 * account, and an account that was taken away, or is at another engine, is not in the way of the next.
 */
async function nameOf(host: string, engine: string, password: string): Promise<string> {
  return `${host}-${(await digestOf(`${engine} ${password}`)).slice(0, 8)}`;
}
