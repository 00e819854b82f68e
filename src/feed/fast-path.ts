// The fast path: most polls change nothing, many lookups ask what was asked a moment ago, and an isolate that knows
// so answers them without the feed's object. Memory of this isolate only. A mistake here keeps a ban from a bouncer,
// so nothing counts but at the head that the feed was seen to have in the last second.

import { sinceMs } from '../runtime/clock.ts';
import type { Sighting } from '../stream/clients.ts';
import type { Decision } from '../formats/decision.ts';
import { createGenerations } from '../runtime/generations.ts';
import { forgetHealth } from './health.ts';

/** So late a change may be seen in one isolate after another has followed it. */
const headFreshMs = 1_000;
/** As many as the feed knows. */
const mostClients = 200_000;
const mostViewBytes = 1024 * 1024;
const mostLookupBytes = 8 * 1024 * 1024;
/** What a decision takes, and what an entry does besides. */
const decisionBytes = 250;
const entryBytes = 100;
/** A longer one is not asked again and again. */
const lookupLength = 2_000;
/** More than an isolate answers in the second between two reports. */
const mostSightings = 10_000;

let head = { sequence: -1, seenMs: 0 };
/** Client and view → the sequence at which the feed owed it nothing. */
const settledAt = createGenerations<number>(mostClients);
/** Views by number: of so many clients their texts would be the most. */
const viewNumbers = createGenerations<number>(mostViewBytes, (view) => entryBytes + view.length);
let views = 0;
/** A lookup → what the feed found at the head's sequence. */
const found = createGenerations<readonly Decision[]>(mostLookupBytes, (lookup, decisions) => {
  return entryBytes + lookup.length + decisions.length * decisionBytes;
});
const sightings = createGenerations<Sighting>(mostSightings);

/** Whether nothing can have changed for this client; notes the poll for the next report if so. */
export function isQuiet(poll: Sighting, view: string): boolean {
  if (!isFresh(poll) || settledAt.get(clientOf(poll, view)) !== head.sequence) return false;
  noteHere(poll);
  return true;
}

function clientOf({ bouncerId, address }: Sighting, view: string): string {
  let number = viewNumbers.get(view);
  if (number === undefined) viewNumbers.set(view, (number = ++views));
  return `${number} ${bouncerId} ${address}`;
}

/** What the feed found for the same lookup, if it would find the same now. */
export function recall(lookup: string, poll: Sighting): readonly Decision[] | undefined {
  const decisions = isFresh(poll) ? found.get(lookup) : undefined;
  if (decisions) noteHere(poll);
  return decisions;
}

function isFresh(poll: Sighting): boolean {
  return sinceMs(head.seenMs, poll.seenMs) <= headFreshMs;
}

function noteHere(poll: Sighting): void {
  sightings.set(`${poll.bouncerId} ${poll.address}`, poll);
}

/** What the feed said when a poll came (not when the answer did): its head, and whether it owes the client nothing. */
export function learn(poll: Sighting, view: string, sequence: number, settled: boolean): void {
  sawHead(sequence, poll.seenMs);
  if (settled) settledAt.set(clientOf(poll, view), sequence);
  else settledAt.delete(clientOf(poll, view));
}

/** What the feed found for a lookup when a poll came. */
export function remember(
  lookup: string,
  sequence: number,
  decisions: readonly Decision[],
  poll: Sighting,
): void {
  sawHead(sequence, poll.seenMs);
  if (sequence === head.sequence && lookup.length <= lookupLength) found.set(lookup, decisions);
}

function sawHead(sequence: number, askedMs: number): void {
  // Later by a clock that was set back since, it is what no poll would be later than.
  const isLate = askedMs < head.seenMs && sinceMs(head.seenMs, askedMs) < Infinity;
  if (isLate) return;
  if (sequence !== head.sequence) found.clear();
  head = { sequence, seenMs: askedMs };
}

/** Something was changed through this isolate: the next poll must ask. So must one that asked before, and is late. */
export function forgetLatest(nowMs: number): void {
  forgetHealth();
  found.clear();
  head = { sequence: -1, seenMs: nowMs };
}

/** The polls answered here since the last report. */
export function takeSightings(): Sighting[] {
  const taken = sightings.values();
  if (taken.length > 0) sightings.clear();
  return taken;
}
