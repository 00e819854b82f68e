// The fast path: what this isolate can answer without asking the feed's object. Most polls change nothing, and many
// look-ups repeat one of a moment ago. A mistake here keeps a ban from a bouncer, so nothing counts unless it was learnt
// at the feed's latest sequence, and the feed was seen to be there within the last second.

import { sinceMs } from '../runtime/clock.ts';
import { clientName, type Sighting } from '../stream/clients.ts';
import { createGenerations } from '../runtime/generations.ts';
import type { ShortList } from './questions.ts';
import type { StreamAnswer } from '../stream/poll.ts';

/** So late this isolate may see a change that another one has followed. */
const latestFreshMs = 1_000;
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

/** The feed's latest sequence, and the time of the poll that learnt it. */
let latest = { sequence: -1, seenMs: 0 };
let changes = 0;
/** Client and view → the sequence at which the client was up to date. */
const upToDateAt = createGenerations<number>(mostClients);
/** Numbers in place of views in the keys of so many clients: the texts would take most of the memory. */
const viewNumbers = createGenerations<number>(mostViewBytes, (view) => entryBytes + view.length);
let views = 0;
/** A look-up → what the feed found at its latest sequence. */
const found = createGenerations<ShortList>(mostLookupBytes, (lookup, { decisions }) => {
  return entryBytes + lookup.length + decisions.length * decisionBytes;
});
const sightings = createGenerations<Sighting>(mostSightings);

/** Whether nothing has changed for this client. If so, notes the poll for the next report to the feed. */
export function isUpToDate(poll: Sighting, view: string): boolean {
  if (!isFresh(poll)) return false;
  const name = clientName(poll.bouncerId, poll.address);
  if (upToDateAt.get(keyOf(name, view)) !== latest.sequence) return false;
  sightings.set(name, poll);
  return true;
}

function keyOf(client: string, view: string): string {
  let number = viewNumbers.get(view);
  if (number === undefined) viewNumbers.set(view, (number = ++views));
  return `${number} ${client}`;
}

/** What the feed found for the same look-up, if it would find the same now. */
export function recall(lookup: string, poll: Sighting): ShortList | undefined {
  const list = isFresh(poll) ? found.get(lookup) : undefined;
  if (list) sightings.set(clientName(poll.bouncerId, poll.address), poll);
  return list;
}

function isFresh(poll: Sighting): boolean {
  return sinceMs(latest.seenMs, poll.seenMs) <= latestFreshMs;
}

/** Learns from the feed's answer to a poll of the stream. It holds for when the poll came, not for when it was answered. */
export function learnStream(
  poll: Sighting,
  view: string,
  { sequence, upToDate }: Pick<StreamAnswer, 'sequence' | 'upToDate'>,
): void {
  learnLatest(sequence, poll.seenMs);
  const key = keyOf(clientName(poll.bouncerId, poll.address), view);
  if (upToDate) upToDateAt.set(key, sequence);
  else upToDateAt.delete(key);
}

/** Learns from the feed's answer to a look-up. */
export function learnList(poll: Sighting, lookup: string, list: ShortList): void {
  learnLatest(list.sequence, poll.seenMs);
  if (list.sequence === latest.sequence && lookup.length <= lookupLength) found.set(lookup, list);
}

function learnLatest(sequence: number, askedMs: number): void {
  // Of two answers that of the later poll counts, unless the clock was set back in between.
  const isLate = askedMs < latest.seenMs && sinceMs(latest.seenMs, askedMs) < Infinity;
  if (isLate) return;
  if (sequence !== latest.sequence) found.clear();
  latest = { sequence, seenMs: askedMs };
}

/** For a change made through this isolate: the next poll must ask. What is learnt from polls before it does not count. */
export function forgetLatest(nowMs: number): void {
  changes++;
  found.clear();
  latest = { sequence: -1, seenMs: nowMs };
}

/** How many changes were made through this isolate: what the feed said at another count may be out of date. */
export function changesHere(): number {
  return changes;
}

/** The polls that were answered here since the last report. */
export function takeSightings(): Sighting[] {
  const taken = sightings.values();
  if (taken.length > 0) sightings.clear();
  return taken;
}
