// Part g: how long a key that was taken away through one isolate is still accepted by another. Each round begins with
// the moment in which the other has looked at the store, and takes the key away a little later than the round before.
import { startTwoIsolates } from '../lab/isolates.ts';
import { revocationBoundMs, watchRevocation } from '../lab/revocation.ts';
import type { Sizes } from './bench.ts';
import { alone, type Row } from './table.ts';

export async function measureRevocation({ revocations }: Sizes): Promise<Row[]> {
  const isolates = await startTwoIsolates();
  try {
    const acceptedMs: number[] = [];
    for (let round = 0; round < revocations; round++) {
      const name = `revoked-${round}`;
      const key = await isolates.addBouncer(name);
      const phaseMs = (round * revocationBoundMs) / revocations;
      const watched = await watchRevocation(isolates, key, phaseMs, async () => {
        const { status } = await isolates.first.operator('POST', `/bouncers/${name}/versions/1/revoke`);
        if (status !== 200) throw new Error(`the revocation was answered ${status}`);
      });
      acceptedMs.push(watched.acceptedMs);
    }
    acceptedMs.sort((a, b) => a - b);
    const median = acceptedMs[Math.floor(acceptedMs.length / 2)];
    return [
      alone('a revoked key, last accepted by another isolate: least', 'ms', acceptedMs[0]),
      alone('  median', 'ms', median),
      alone('  most', 'ms', acceptedMs[acceptedMs.length - 1], revocationBoundMs),
    ];
  } finally {
    await isolates.close();
  }
}
