// Notes that a request under a known host's name was refused, for operators to see: when and why, and of a relay a row in
// the audit log. Strangers can cause some of these notes, so they are bounded: a host's every ten minutes at most, relays
// once an hour for each audience, twenty an hour in all.

import { eq, lte, sql } from 'drizzle-orm';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { sinceMs } from '../runtime/clock.ts';
import type { Host } from './hosts.sql.ts';
import { selectHolds } from '../store/facts.ts';
import { askD1 } from '../store/ask.ts';
import { hosts, relayedAudiences } from '../store/schema.ts';
import { causeOf, fail, succeed } from '../http/failure.ts';
import { mutate } from '../operations/mutate.ts';
import { hostMutation } from './registration.ts';
import { fingerprintOf, parsePublicKey } from '../crypto/ssh-key.ts';
import { toBase64 } from '../formats/bytes.ts';
import { cut } from '../formats/texts.ts';
import { claimedType, verifySignature } from '../crypto/sshsig.ts';
import { namespace, type Refusal } from './signed-request.ts';

const refusedEveryMs = 600_000;
const relayedEveryMs = 3_600_000;
const mostRelays = 20;
/** Of an audience as it is kept. */
const mostCharacters = 200;

/** `address`: where the request came from. It never throws: the request is refused with or without a note. */
export async function noteRefusal(
  env: Env,
  host: Host,
  refusal: Refusal,
  address: string,
  nowMs: number,
): Promise<void> {
  try {
    if (sinceMs(host.lastRefusedMs ?? -Infinity, nowMs) >= refusedEveryMs) {
      const why = await whyOf(refusal);
      if (why !== null) {
        const noted = { lastRefusedMs: nowMs, lastRefusedWhy: why };
        await askD1(env.DB, (d) => d.update(hosts).set(noted).where(eq(hosts.id, host.id)));
      }
    }
    if (refusal.kind === 'relay')
      await noteRelay(env, host.name, cut(refusal.audience, mostCharacters), address, nowMs);
  } catch (error) {
    console.error(`a refusal of host ${host.name} was not noted: ${causeOf(error).message}`);
  }
}

/** Null: the signature is not good for the key in it either. */
async function whyOf(refusal: Refusal): Promise<string | null> {
  if (refusal.kind === 'relay') return `it signed for ${cut(refusal.audience, mostCharacters)}`;
  const { signature, bytes } = refusal;
  const key = await parsePublicKey(`${claimedType(signature)} ${toBase64(signature.key)}`);
  if (!key.ok || !(await verifySignature(signature, key.value, namespace, bytes))) return null;
  return `it came with another SSH key, ${await fingerprintOf(key.value)}`;
}

async function noteRelay(
  env: Env,
  host: string,
  audience: string,
  address: string,
  nowMs: number,
): Promise<void> {
  const afterMs = nowMs - relayedEveryMs;
  // None was noted for this audience since, and not too many for others.
  const isNew = sql`(SELECT count(*) < ${mostRelays} AND total(audience = ${audience}) = 0
    FROM relayed_audiences WHERE noted_ms > ${afterMs})`;
  const reads = (d: DrizzleD1Database) => [selectHolds(d, isNew)] as const;
  await mutate(hostMutation(env, host, nowMs), reads, ([[found]]) => {
    if (!found?.holds) return fail({ kind: 'replayed' });
    return succeed({
      entry: { action: 'host.relay-refused', target: host, detail: { audience, address } },
      unchanged: isNew,
      statements: (d) => [
        d.delete(relayedAudiences).where(lte(relayedAudiences.notedMs, afterMs)),
        d.insert(relayedAudiences).values({ audience, notedMs: nowMs }),
      ],
      answer: { status: 200, body: {} },
    });
  });
}
