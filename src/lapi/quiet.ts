// The fast path: most polls change nothing, and an isolate that knows so answers them without the feed's
// object. Memory of this isolate only. A mistake here keeps a ban from a bouncer, so it answers only a client
// that the feed has called settled, at a head it has seen in the last two seconds.

import type { Sighting } from '../feed/clients.ts';

const headFreshMs = 2_000;
const mostClients = 20_000;
const mostSightings = 2_000;

let head = { sequence: -1, seenMs: 0 };
/** Client and view → the sequence at which the feed owed it nothing. */
const settledAt = new Map<string, number>();
let sightings = new Map<string, Sighting>();

/** Whether nothing can have changed for this client; notes the poll for the next report if so. */
export function isQuiet(client: string, poll: Sighting): boolean {
  if (poll.seenMs - head.seenMs > headFreshMs || settledAt.get(client) !== head.sequence) return false;
  if (sightings.size < mostSightings) sightings.set(`${poll.bouncerId} ${poll.address}`, poll);
  return true;
}

/** What the feed said at `askedMs`, which is when the poll came, not when the answer did. */
export function learn(client: string, sequence: number, settled: boolean, askedMs: number): void {
  if (askedMs >= head.seenMs) head = { sequence, seenMs: askedMs };
  if (!settled) settledAt.delete(client);
  else {
    if (settledAt.size >= mostClients) settledAt.clear();
    settledAt.set(client, sequence);
  }
}

/** Something was changed through this isolate: the next poll must ask. */
export function forgetHead(): void {
  head = { sequence: -1, seenMs: 0 };
}

/** The polls answered here since the last report. */
export function takeSightings(): Sighting[] {
  if (sightings.size === 0) return [];
  const taken = [...sightings.values()];
  sightings = new Map();
  return taken;
}
