// The fast path: most polls change nothing, many lookups ask what was asked a moment ago, and an isolate that knows
// so answers them without the feed's object. Memory of this isolate only. A mistake here keeps a ban from a bouncer,
// so nothing counts but at the head that the feed was seen to have in the last second.

import type { Sighting } from '../feed/clients.ts';
import type { Decision } from '../feed/decision.ts';

/** So late a change may be seen in one isolate after another has followed it. */
const headFreshMs = 1_000;
const mostClients = 20_000;
const mostLookups = 20_000;
const mostSightings = 2_000;

let head = { sequence: -1, seenMs: 0 };
/** Client and view → the sequence at which the feed owed it nothing. */
const settledAt = new Map<string, number>();
/** A lookup → what the feed found, and at which sequence. */
const found = new Map<string, { readonly sequence: number; readonly decisions: readonly Decision[] }>();
let sightings = new Map<string, Sighting>();

/** Whether nothing can have changed for this client; notes the poll for the next report if so. */
export function isQuiet(client: string, poll: Sighting): boolean {
  if (!isFresh(poll) || settledAt.get(client) !== head.sequence) return false;
  noteHere(poll);
  return true;
}

/** What the feed found for the same lookup, if it would find the same now. */
export function recall(lookup: string, poll: Sighting): readonly Decision[] | undefined {
  const known = found.get(lookup);
  if (!known || !isFresh(poll) || known.sequence !== head.sequence) return undefined;
  noteHere(poll);
  return known.decisions;
}

function isFresh(poll: Sighting): boolean {
  return poll.seenMs - head.seenMs <= headFreshMs;
}

function noteHere(poll: Sighting): void {
  if (sightings.size < mostSightings) sightings.set(`${poll.bouncerId} ${poll.address}`, poll);
}

/** What the feed said at `askedMs`, which is when the poll came, not when the answer did. */
export function learn(client: string, sequence: number, settled: boolean, askedMs: number): void {
  sawHead(sequence, askedMs);
  if (!settled) settledAt.delete(client);
  else {
    if (settledAt.size >= mostClients) settledAt.clear();
    settledAt.set(client, sequence);
  }
}

/** What the feed found for a lookup at `askedMs`. */
export function remember(
  lookup: string,
  sequence: number,
  decisions: readonly Decision[],
  askedMs: number,
): void {
  sawHead(sequence, askedMs);
  if (found.size >= mostLookups) found.clear();
  found.set(lookup, { sequence, decisions });
}

function sawHead(sequence: number, askedMs: number): void {
  if (askedMs >= head.seenMs) head = { sequence, seenMs: askedMs };
}

/** Something was changed through this isolate: the next poll must ask. So must one that asked before, and is late. */
export function forgetHead(nowMs: number): void {
  head = { sequence: -1, seenMs: nowMs };
}

/** The polls answered here since the last report. */
export function takeSightings(): Sighting[] {
  if (sightings.size === 0) return [];
  const taken = [...sightings.values()];
  sightings = new Map();
  return taken;
}
