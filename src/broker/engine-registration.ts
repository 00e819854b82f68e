// A host sends the key under which Lapidary pulls from its engine. As registration.ts, with one difference: here the key
// itself travels. D1 has its digest, to know it again; the feed is given the key, sealed, when this is written.

import { sql } from 'drizzle-orm';
import * as db from '../db/hosts.ts';
import { isKnownDigest } from '../db/keys.ts';
import { fail, succeed, type Failure, type Result } from '../failure.ts';
import { digestOf } from '../secret.ts';
import { mutate, type Answer } from './mutations.ts';
import { hostMutation, mayRegister, mismatch, readSlot, told, type Registration } from './registration.ts';

const digestTaken: Failure = {
  kind: 'conflict',
  problem: 'engine_key: a bouncer has or had this key; the feed needs one that nothing else uses',
};

export async function registerEngineKey(
  env: Env,
  asked: Pick<Registration, 'host' | 'generation' | 'nonce' | 'bootId'> & { readonly engineKey: string },
  nowMs: number,
): Promise<Result<Answer>> {
  const { nonce, engineKey, generation, bootId } = asked;
  const digest = await digestOf(engineKey);
  let repeated: Result<Answer> | undefined;
  const done = await mutate(hostMutation(env, asked.host.name, nowMs), async () => {
    if (await db.isBurnt(env.DB, nonce)) return fail({ kind: 'replayed' });
    const found = await readSlot(env.DB, asked.host, db.engineSlot);
    if (!found.ok) return found;
    const { host, hostKey } = found.value;
    const kept = await db.findEngineKey(env.DB);
    if (kept?.host === host.name && kept.digest === digest) {
      if (generation !== hostKey.generation && generation !== hostKey.generation - 1) {
        return mismatch(host, hostKey, asked, nowMs);
      }
      if (await db.burn(env.DB, nonce, host.id, nowMs)) {
        const body = { generation: hostKey.generation, state: 'unchanged' };
        repeated = succeed({ status: 200, body });
      }
      return fail({ kind: 'replayed' });
    }
    if (await isKnownDigest(env.DB, digest)) return fail(digestTaken);
    const leave = mayRegister(host, hostKey, generation);
    if (!leave) return mismatch(host, hostKey, asked, nowMs);
    return succeed({
      entry: {
        action: 'host.engine-key',
        target: host.name,
        detail: {
          start: digest.slice(0, 8),
          generation: hostKey.generation + 1,
          recovered: leave.why !== 'in-order',
          ...(bootId === null ? {} : { boot_id: bootId }),
        },
      },
      unchanged: sql`${db.atGeneration(hostKey)}`,
      statements: (d) => [
        ...db.burnStatements(d, nonce, nowMs),
        ...db.keepEngineKeyStatements(d, { host: host.name, digest, createdMs: nowMs }),
        ...db.registeredStatements(d, hostKey, leave.to, nowMs),
      ],
      answer: { status: 200, body: { generation: hostKey.generation + 1, state: 'registered' } },
      clash: () => ({ kind: 'replayed' }),
    });
  });
  return repeated ?? told(done);
}
