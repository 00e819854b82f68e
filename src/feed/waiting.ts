// The polls that wait in an isolate for a change: how many there may be, and what wakes them. A request's timers and promises
// end with it, and its client may go at any time. So each has timers of its own, waits for no other, and is woken by a mark
// that it sees when it looks. A mistake here lets requests hang, or lets too many wait.

import { sinceMs } from '../runtime/clock.ts';
import { createGenerations } from '../runtime/generations.ts';

/** Of one bouncer: programs that share its key, and requests whose clients have gone unseen. */
const mostOfBouncer = 4;
/** In an isolate: beside each of them the runtime keeps a request. */
const mostInAll = 10_000;
/** Longer than any wait. The runtime ends a request without a word if its client has gone. */
const lostMs = 70_000;
/** The time between two looks, and between two answers that have the same changes. */
const lookMs = 1_000;

/** Of a request that waits. */
export interface Place {
  /** Waits until something may have changed, a second or `mostMs` at most. */
  sleep(mostMs: number): Promise<void>;
  /** Also wakes it: its client may have gone. */
  leave(): void;
}

interface Waiter {
  readonly bouncerId: number;
  readonly sinceMs: number;
  isWoken: boolean;
}

/**
 * How long one sleeps until it sees that it was woken. The more there are the longer, so that all wake 10,000 times a second
 * at most.
 */
function stepFor(waiters: number): number {
  return Math.min(lookMs, Math.max(250, waiters / 10));
}

export function createWaiting() {
  /** The oldest first. */
  const waiters = new Set<Waiter>();
  /** Bouncer's id → how many of them are its. */
  const ofBouncers = new Map<number, number>();
  /** Client → its newest answer with changes: when, and up to which sequence. */
  const answers = createGenerations<{ readonly atMs: number; readonly sequence: number }>(mostInAll);

  const remove = (waiter: Waiter): void => {
    if (!waiters.delete(waiter)) return;
    const left = (ofBouncers.get(waiter.bouncerId) ?? 1) - 1;
    if (left > 0) ofBouncers.set(waiter.bouncerId, left);
    else ofBouncers.delete(waiter.bouncerId);
  };
  const forgetLost = (nowMs: number): void => {
    for (const waiter of waiters) {
      if (sinceMs(waiter.sinceMs, nowMs) < lostMs) return;
      remove(waiter);
    }
  };
  const sleep = async (waiter: Waiter, mostMs: number): Promise<void> => {
    const leastMs = Math.min(mostMs, lookMs);
    for (let sleptMs = 0; sleptMs < leastMs && !waiter.isWoken;) {
      const stepMs = Math.min(leastMs - sleptMs, stepFor(waiters.size));
      await scheduler.wait(stepMs);
      sleptMs += stepMs;
    }
    waiter.isWoken = false;
  };

  return {
    /** A place to wait. Null: its bouncer has enough of them, or the isolate. */
    enter(bouncerId: number, nowMs: number): Place | null {
      forgetLost(nowMs);
      const own = ofBouncers.get(bouncerId) ?? 0;
      if (own >= mostOfBouncer || waiters.size >= mostInAll) return null;
      const waiter: Waiter = { bouncerId, sinceMs: nowMs, isWoken: false };
      waiters.add(waiter);
      ofBouncers.set(bouncerId, own + 1);
      return {
        sleep: (mostMs) => sleep(waiter, mostMs),
        leave(): void {
          remove(waiter);
          waiter.isWoken = true;
        },
      };
    },

    /** Something has changed, perhaps for them. */
    wakeAll(): void {
      for (const waiter of waiters) waiter.isWoken = true;
    },

    /** How many wait. */
    size(nowMs: number): number {
      forgetLost(nowMs);
      return waiters.size;
    },

    /** Notes that a client was answered with changes, up to a sequence. */
    noteAnswer(client: string, sequence: number, nowMs: number): void {
      answers.set(client, { atMs: nowMs, sequence });
    },

    /**
     * How long the next answer to a client is put off that could only repeat its last one: a change goes out in several
     * answers, and a client that asks without a pause would have them all at once.
     */
    pauseMs(client: string, sequence: number, nowMs: number): number {
      const last = answers.get(client);
      if (!last || sequence > last.sequence) return 0;
      return Math.max(0, lookMs - sinceMs(last.atMs, nowMs));
    },
  };
}
