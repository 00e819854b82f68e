// A host's account at an engine, as the broker gives it: decided and written first, then asked for at the engine, so that
// a crash between the two leaves an account that the host's next request makes good. The password is in the host's
// request and in the engine's; here it is in the account's name only, as a part of a digest.

import { sql } from 'drizzle-orm';
import * as db from '../db/hosts.ts';
import {
  findBlocked,
  giveMachineStatements,
  machinesOf,
  mayHave,
  takeMachineStatements,
} from '../db/machines.ts';
import type { EngineSettings } from '../engines.ts';
import { fail, succeed, type Failure, type Result } from '../failure.ts';
import { digestOf } from '../secret.ts';
import type { Account } from './machine-account.ts';
import { mutate } from './mutations.ts';
import { hostMutation, mayRegister, mismatch, readSlot, told, type Registration } from './registration.ts';

/** What a host asks for, its signature checked. */
export type AskedMachine = Pick<Registration, 'host' | 'generation' | 'nonce' | 'bootId'> & {
  readonly password: string;
};

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
  problem: 'machine_password: its account was taken away; make a new one',
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
  const { nonce, password, generation, bootId } = asked;
  let given: HostAccount | undefined;
  let repeated = false;
  const done = await mutate(hostMutation(env, asked.host.name, nowMs), async () => {
    if (await db.isBurnt(env.DB, nonce)) return fail({ kind: 'replayed' });
    const found = await readSlot(env.DB, asked.host, db.machineSlot(asked.host.name));
    if (!found.ok) return found;
    const { host, hostKey } = found.value;
    const engine = engines.find(({ name }) => name === host.machineEngine);
    if (!engine) {
      const problem = `there is no engine ${host.machineEngine} any more; an operator has to name another`;
      return fail({ kind: 'unavailable', problem });
    }
    const machine = await nameOf(host.name, engine.name, password);
    const [kept] = await machinesOf(env.DB, [host.id]);
    if (kept && (await findBlocked(env.DB, kept.machine))) {
      return fail({ kind: 'forbidden', problem: `an operator refuses the machine ${kept.machine}` });
    }
    const account = { machine, password, engine, hostId: host.id };
    const known = kept?.machine === machine;
    if (known && (generation === hostKey.generation || generation === hostKey.generation - 1)) {
      repeated = await db.burn(env.DB, nonce, host.id, nowMs);
      given = { ...account, generation: hostKey.generation, known: true };
      return fail({ kind: 'replayed' });
    }
    if (!known && (await findBlocked(env.DB, machine))) return fail(nameTaken);
    const leave = mayRegister(host, hostKey, generation);
    if (!leave) return mismatch(host, hostKey, asked, nowMs);
    given = { ...account, generation: hostKey.generation + 1, known };
    const { actor } = hostMutation(env, host.name, nowMs);
    const taken = { blockedMs: nowMs, actor, reason: `its host has ${machine} now` };
    const row = { hostId: host.id, machine, engine: engine.name, createdMs: nowMs };
    return succeed({
      entry: {
        action: 'host.machine',
        target: host.name,
        detail: {
          machine,
          engine: engine.name,
          generation: given.generation,
          recovered: leave.why !== 'in-order',
          ...(kept && !known ? { replaced: kept.machine } : {}),
          ...(bootId === null ? {} : { boot_id: bootId }),
        },
      },
      unchanged: sql`${db.atGeneration(hostKey)} AND ${mayHave(host.id, machine, engine.name)}`,
      statements: (d) => [
        ...db.burnStatements(d, nonce, nowMs),
        ...(known ? [] : [...takeMachineStatements(d, host.id, taken), ...giveMachineStatements(d, row)]),
        ...db.registeredStatements(d, hostKey, leave.to, nowMs),
      ],
      answer: { status: 200, body: {} },
      clash: (column) => (column === 'burnt_nonces.nonce' ? { kind: 'replayed' } : nameTaken),
    });
  });
  const answer = repeated ? succeed({}) : told(done);
  return answer.ok ? succeed(given as HostAccount) : answer;
}

/**
 * `web-1-3f2a9c01`: the host's, with 8 hex digits of the password's digest. So a request that is repeated means the same
 * account, and an account that was taken away, or is at another engine, is not in the way of the next.
 */
async function nameOf(host: string, engine: string, password: string): Promise<string> {
  return `${host}-${(await digestOf(`${engine} ${password}`)).slice(0, 8)}`;
}
