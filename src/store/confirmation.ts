// For how long an isolate may go on with what it remembers of D1. Two times that are not one: when D1 last confirmed it,
// which only D1's answers move, and since when it is used without asking, which this isolate's own changes end.

import { sinceMs } from '../runtime/clock.ts';

/** How long what D1 has confirmed is used without asking: a revoked key is refused everywhere after this time. */
export const freshMs = 5_000;
/**
 * With D1 out of reach, or silent, what was confirmed this long ago still counts: a firewall without its list is worse
 * than a late revocation.
 */
const outageMs = 15 * 60_000;

/** Whether what D1 last confirmed at a moment may be used while it does not answer. */
export function isWithinOutage(confirmedMs: number, nowMs: number): boolean {
  return sinceMs(confirmedMs, nowMs) < outageMs;
}

/** While D1 fails it is asked this often, beside the answers. */
const retryMs = 1_000;

export interface Confirmation {
  /** Whether it may be used without asking: it was confirmed, or could not be, a moment ago. */
  isTrusted(nowMs: number): boolean;
  /** Whether it may be used when D1 does not answer. */
  isGraced(nowMs: number): boolean;
  /** When D1 was asked that answered last; `-Infinity`: it never did. */
  confirmedMs(): number;
  /** Whether D1 failed last. */
  isFailing(): boolean;
  /** Whether the caller should ask, beside its answer, if D1 is back. */
  takeRetry(nowMs: number): boolean;
  /** Notes that D1 is asked now. */
  ask(nowMs: number): Asked;
  fail(nowMs: number): void;
  /** This isolate changed it in D1 itself: it asks anew at the next use. */
  forget(): void;
}

export interface Asked {
  /** An answer to a later question was here first. */
  isLate(): boolean;
  /** This isolate changed something meanwhile. */
  isOvertaken(): boolean;
  /** D1 has answered. What it said before a change of this isolate's own is confirmed, and yet asked for anew. */
  confirm(): void;
}

export function createConfirmation(): Confirmation {
  let confirmedMs = -Infinity;
  let trustedFromMs = -Infinity;
  let failedMs: number | null = null;
  let questions = 0;
  let newest = 0;
  let changes = 0;

  const isGraced = (nowMs: number): boolean => isWithinOutage(confirmedMs, nowMs);

  return {
    isTrusted: (nowMs) => sinceMs(trustedFromMs, nowMs) < freshMs && isGraced(nowMs),
    isGraced,
    confirmedMs: () => confirmedMs,
    isFailing: () => failedMs !== null,
    takeRetry(nowMs) {
      const isDue = failedMs !== null && sinceMs(failedMs, nowMs) >= retryMs;
      if (isDue) failedMs = nowMs;
      return isDue;
    },
    ask(nowMs) {
      const number = ++questions;
      const changesBefore = changes;
      return {
        isLate: () => number < newest,
        isOvertaken: () => changes !== changesBefore,
        confirm() {
          newest = number;
          confirmedMs = nowMs;
          trustedFromMs = changes === changesBefore ? nowMs : -Infinity;
          failedMs = null;
        },
      };
    },
    fail(nowMs) {
      trustedFromMs = nowMs;
      failedMs = nowMs;
    },
    forget() {
      changes++;
      trustedFromMs = -Infinity;
    },
  };
}
