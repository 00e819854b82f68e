// How long a key that is taken away through one isolate still opens the other.
import { setTimeout as delay } from 'node:timers/promises';
import type { TwoIsolates } from './isolates.ts';

/** docs/figures.md: a revoked key is refused everywhere after this time. */
export const revocationBoundMs = 5_000;

export interface Revocation {
  /** From the answer to the revocation to the sending of the last request that was still accepted; 0 when none was. */
  acceptedMs: number;
  /** From the answer to the revocation to the first refusal. */
  refusedMs: number;
}

const pauseMs = 10;

/**
 * Uses the key in the second isolate, waits `phaseMs`, takes it away through the first one with `revoke`, and asks the
 * second until it refuses. The first use of a new key makes the isolate look at the store, so 0 is the worst phase.
 */
export async function watchRevocation(
  { second }: Pick<TwoIsolates, 'second'>,
  key: string,
  phaseMs: number,
  revoke: () => Promise<void>,
): Promise<Revocation> {
  const ask = async (): Promise<number> => {
    const response = await fetch(`${second.url}/v1/decisions/stream`, { headers: { 'x-api-key': key } });
    await response.text();
    return response.status;
  };
  const before = await ask();
  if (before !== 200) throw new Error(`the key is refused before it is taken away: ${before}`);
  await delay(phaseMs);
  await revoke();
  const revokedMs = performance.now();
  let acceptedMs = 0;
  for (;;) {
    const sentMs = performance.now() - revokedMs;
    const status = await ask();
    if (status === 403) return { acceptedMs, refusedMs: performance.now() - revokedMs };
    if (status !== 200) throw new Error(`the other isolate answered ${status}`);
    acceptedMs = sentMs;
    if (sentMs > 10 * revocationBoundMs) throw new Error('the other isolate goes on accepting the key');
    await delay(pauseMs);
  }
}
