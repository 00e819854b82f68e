// A host sends the key under which Lapidary pulls from its engine. As registration.ts, with one difference: here the key
// itself travels, and is kept, sealed (engine-key.ts).

import { sql } from 'drizzle-orm';
import * as db from '../db/hosts.ts';
import { fail, succeed, type Result } from '../failure.ts';
import { digestOf } from '../secret.ts';
import type { BootstrapSecrets } from '../settings.ts';
import { seal, unseal } from './engine-key.ts';
import { mutate, type Answer } from './mutations.ts';
import { hostMutation, mayRegister, mismatch, readSlot, type Registration } from './registration.ts';

/** The answer, and what the feed is to be told. */
export interface EngineAnswer {
  readonly answer: Answer;
  readonly sealed: string;
}

export async function registerEngineKey(
  d1: D1Database,
  secrets: BootstrapSecrets,
  asked: Pick<Registration, 'host' | 'generation' | 'nonce' | 'bootId'> & { readonly engineKey: string },
  nowMs: number,
): Promise<Result<EngineAnswer>> {
  const { nonce, engineKey, generation, bootId } = asked;
  const digest = await digestOf(engineKey);
  const sealed = await seal(secrets, engineKey);
  let repeated: Result<EngineAnswer> | undefined;
  const done = await mutate(hostMutation(d1, asked.host.name, nowMs), async () => {
    if (await db.isBurnt(d1, nonce)) return fail({ kind: 'replayed' });
    const found = await readSlot(d1, asked.host, db.engineSlot);
    if (!found.ok) return found;
    const { host, hostKey } = found.value;
    const kept = await db.findEngineKey(d1);
    if (kept?.host === host.name && kept.digest === digest) {
      if (generation !== hostKey.generation && generation !== hostKey.generation - 1) {
        return mismatch(host, hostKey, asked, nowMs);
      }
      if (await db.burn(d1, nonce, host.id, nowMs)) {
        repeated = succeed(await unchanged(d1, secrets, kept, sealed, hostKey));
      }
      return fail({ kind: 'replayed' });
    }
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
        ...db.keepEngineKeyStatements(d, { host: host.name, sealed, digest, createdMs: nowMs }),
        ...db.registeredStatements(d, hostKey, leave.to, nowMs),
      ],
      answer: { status: 200, body: { generation: hostKey.generation + 1, state: 'registered' } },
      clash: () => ({ kind: 'replayed' }),
    });
  });
  if (repeated) return repeated;
  if (!done.ok) return done;
  if (done.value.status !== 409) return succeed({ answer: done.value, sealed });
  return fail({ kind: 'generation-mismatch', generation: Number(done.value.body['generation']) });
}

/** What was sealed under the secret before, or under one that is gone, is sealed anew. */
async function unchanged(
  d1: D1Database,
  secrets: BootstrapSecrets,
  kept: db.EngineKey,
  sealed: string,
  { generation }: db.HostKey,
): Promise<EngineAnswer> {
  const read = await unseal(secrets, kept.sealed);
  const current = read !== null && read.resealed === null;
  if (!current) await db.resealEngineKey(d1, kept, sealed);
  const answer = { status: 200, body: { generation, state: 'unchanged' } };
  return { answer, sealed: current ? kept.sealed : sealed };
}
