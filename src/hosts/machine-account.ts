// A known host gets its account at an engine, as a machine. The registration is written first and the engine is asked
// afterwards: if the Worker stops in between, the host's next request makes the account good. The password is passed to the
// engine and stored nowhere here; the account's name has 8 hex digits of a digest of it.

import { keyOfMachine } from '../bouncers/host-keys.sql.ts';
import type { EngineSettings } from '../config/engines.ts';
import { digestOf } from '../crypto/secret.ts';
import { conflict, fail, succeed, type Result } from '../http/failure.ts';
import { openAccount } from '../machines/account.ts';
import * as db from '../machines/machines.sql.ts';
import type { Answer } from '../operations/mutate.ts';
import { actorOf, register } from './registration.ts';
import type { KnownRequest, MachinePayload } from './signed-request.ts';

const nameTaken = conflict('machine_password', 'its account was revoked; make a new one');

/**
 * The same password means the same account. A new password gets a new account in place of the one before. A host whose
 * machine an operator refuses gets no other. `address`: the host's.
 */
export async function registerMachine(
  env: Env,
  engines: readonly EngineSettings[],
  request: KnownRequest<MachinePayload>,
  address: string,
  nowMs: number,
): Promise<Result<Answer>> {
  const { machine_password: password } = request.payload;
  const { id: hostId, name: hostName, machineEngine } = request.host;
  const engine = engines.find(({ name }) => name === machineEngine);
  const machine = nameOf(hostName, machineEngine ?? '', password);
  let known = false;
  const done = await register(env, request, nowMs, {
    key: keyOfMachine(hostName),
    reads: (d) => [db.selectAccount(d, hostName), db.selectBlocked(d, [machine])] as const,
    decide: ([[had], blocked], { hostKey }) => {
      if (!engine) {
        const problem = `there is no engine ${machineEngine} any more; an operator has to name another`;
        return fail({ kind: 'unavailable', problem });
      }
      if (had?.isBlocked) {
        const problem = `an operator refuses the machine ${had.account.machine}`;
        return fail({ kind: 'forbidden', problem });
      }
      known = had?.account.machine === machine;
      const answer = { status: 200, body: { generation: hostKey.generation } };
      return succeed({
        repeated: known ? { answer, mayBeBehind: true, again: true } : null,
        register: ({ reason }, generation) => {
          if (!known && blocked.length > 0) return fail(nameTaken);
          const taken = {
            blockedMs: nowMs,
            actor: actorOf(hostName),
            reason: `its host has ${machine} now`,
          };
          const row = { hostId, machine, engine: engine.name, createdMs: nowMs };
          const detail = {
            machine,
            engine: engine.name,
            generation,
            recovered: reason !== 'in-order',
            ...(had && !known ? { replaced: had.account.machine } : {}),
          };
          return succeed({
            entry: { action: 'host.machine', detail },
            unchanged: db.mayHave(hostId, machine, engine.name),
            statements: (d) =>
              known
                ? []
                : [...db.takeMachineStatements(d, hostId, taken), ...db.giveMachineStatements(d, row)],
            answer: { status: 200, body: { generation } },
            clash: nameTaken,
          });
        },
      });
    },
  });
  if (!done.ok || !engine) return done;
  const opened = await openAccount(engine, { machine, password }, known, address);
  if (!opened.ok) return opened;
  await db.noteState(env.DB, { hostId, machine, validatedMs: opened.value === 'validated' ? nowMs : null });
  const body = {
    machine,
    engine: engine.name,
    lapi_path: engine === engines[0] ? '/' : `/engines/${engine.name}/`,
    generation: done.value.body['generation'],
    state: opened.value === 'waiting' ? 'waiting' : known ? 'unchanged' : 'registered',
  };
  return succeed({ status: 200, body });
}

/**
 * `web-1-3f2a9c01`: the host's name, and 8 hex digits of a digest of the engine and the password. So a repeated request
 * means the same account, and a new account never has the name of a revoked one, or of one at another engine.
 */
function nameOf(host: string, engine: string, password: string): string {
  return `${host}-${digestOf(`${engine} ${password}`).slice(0, 8)}`;
}
