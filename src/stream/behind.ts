// How far each bouncer's clients are behind the feed, as far as the feed's object knows. It says what was sent and never
// that it arrived. Read in pages: there may be 200,000 clients.

import type { Client } from './client-records.ts';
import { clientsIn, type Clients } from './clients.ts';

/** What is known of a bouncer's clients. Lags are in changes of the feed, in whatever view. */
export interface SeenBouncer {
  readonly bouncerId: number;
  /** Of the client that was seen last. */
  readonly seenMs: number;
  readonly userAgent: string;
  /** When a client with a cursor was last seen, its view (`requestKey`) and its lag; 0 and null: none has one. */
  readonly followedMs: number;
  readonly view: string | null;
  readonly newestLag: number | null;
  /** The longest lag of the clients that were seen in the last day; null: none was, or none has a cursor. */
  readonly longestLag: number | null;
}

export interface SeenPage {
  readonly bouncers: readonly SeenBouncer[];
  /** The row to go on after; null: there are no more. */
  readonly next: number | null;
}

/** An address that a bouncer has left for good keeps its cursor as long as tombstones are kept. */
const recentMs = 86_400_000;
const pageClients = 2_000;

/** The next page of clients, by bouncer. A bouncer may be in several pages (`joined`). `afterRow`: 0 begins. */
export function seenPage(clients: Clients, sequence: number, afterRow: number, nowMs: number): SeenPage {
  const bouncers = new Map<number, SeenBouncer>();
  let left = pageClients;
  // Rows are in the order of their ids. One that is split goes on in a later row: no client is passed over.
  for (const row of clients.rows.values()) {
    if (row.id <= afterRow) continue;
    if (left <= 0) return { bouncers: [...bouncers.values()], next: afterRow };
    afterRow = row.id;
    left -= row.entries.length;
    for (const client of clientsIn(clients, row)) {
      addSeen(bouncers, seenOf(client, sequence, nowMs));
    }
  }
  return { bouncers: [...bouncers.values()], next: null };
}

/** Adds what is known of a bouncer from a part of its clients. */
export function addSeen(bouncers: Map<number, SeenBouncer>, seen: SeenBouncer): void {
  const known = bouncers.get(seen.bouncerId);
  bouncers.set(seen.bouncerId, known ? joined(known, seen) : seen);
}

function joined(a: SeenBouncer, b: SeenBouncer): SeenBouncer {
  const newer = b.seenMs > a.seenMs ? b : a;
  const followed = b.followedMs > a.followedMs ? b : a;
  return {
    ...newer,
    followedMs: followed.followedMs,
    view: followed.view,
    newestLag: followed.newestLag,
    longestLag: longer(a.longestLag, b.longestLag),
  };
}

/** The lag of the client that is furthest behind. Null: none has a cursor. */
export function lagOf({ newestLag, longestLag }: SeenBouncer): number | null {
  return longer(newestLag, longestLag);
}

function longer(a: number | null, b: number | null): number | null {
  return a === null ? b : b === null ? a : Math.max(a, b);
}

function seenOf(
  { bouncerId, seenMs, userAgent, cursors }: Client,
  sequence: number,
  nowMs: number,
): SeenBouncer {
  // The view that it asked for last: a bouncer that was set up anew leaves the cursors of its old views behind.
  const cursor = cursors.at(-1);
  const isKnown = cursor !== undefined && cursor.lastSequence >= 0;
  const lag = isKnown ? Math.max(0, sequence - cursor.lastSequence) + cursor.pending.length : null;
  return {
    bouncerId,
    seenMs,
    userAgent,
    followedMs: cursor ? seenMs : 0,
    view: cursor?.view ?? null,
    newestLag: lag,
    longestLag: nowMs - seenMs < recentMs ? lag : null,
  };
}
