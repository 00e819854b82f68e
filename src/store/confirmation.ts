// For how long an isolate may use what it remembers of D1. Two times decide. When D1 last confirmed it: only D1's answers
// move that. Since when it is used without asking: a change by this isolate resets that.

import { sinceMs } from '../runtime/clock.ts';

/** How long what D1 has confirmed is used without asking: after this time a revoked key is refused everywhere. */
const freshMs = 5_000;
/**
 * While D1 is out of reach or silent, what it confirmed this long ago still counts: a firewall without its list is worse
 * than a late revocation.
 */
const outageMs = 15 * 60_000;

/** Whether what D1 last confirmed at a moment may be used while it does not answer. */
export function isWithinOutage(confirmedMs: number, nowMs: number): boolean {
  return sinceMs(confirmedMs, nowMs) < outageMs;
}

/** How often D1 is asked again while it fails, beside the answers that are given meanwhile. */
const retryMs = 1_000;

export function createConfirmation() {
  let confirmedMs = -Infinity;
  let trustedFromMs = -Infinity;
  let failedMs: number | null = null;
  let questions = 0;
  let newest = 0;
  let changes = 0;

  const isGraced = (nowMs: number): boolean => isWithinOutage(confirmedMs, nowMs);

  return {
    /** Whether it may be used without asking: D1 confirmed it a moment ago, or failed a moment ago. */
    isTrusted: (nowMs: number): boolean => sinceMs(trustedFromMs, nowMs) < freshMs && isGraced(nowMs),
    /** Whether it may be used when D1 does not answer. */
    isGraced,
    /** When the question was sent that D1 answered last; `-Infinity`: it never answered. */
    confirmedMs: () => confirmedMs,
    /** Whether D1 failed last. */
    isFailing: () => failedMs !== null,
    /** Whether the caller should ask, beside its answer, if D1 is back. */
    takeRetry(nowMs: number): boolean {
      const isDue = failedMs !== null && sinceMs(failedMs, nowMs) >= retryMs;
      if (isDue) failedMs = nowMs;
      return isDue;
    },
    /** Notes that D1 is asked now. */
    ask(nowMs: number) {
      const number = ++questions;
      const changesBefore = changes;
      return {
        /** A later question was answered first. */
        isLate: () => number < newest,
        /** This isolate changed something meanwhile. */
        isOvertaken: () => changes !== changesBefore,
        /** D1 has answered. An answer from before a change of this isolate is confirmed, and asked for anew all the same. */
        confirm(): void {
          newest = number;
          confirmedMs = nowMs;
          trustedFromMs = changes === changesBefore ? nowMs : -Infinity;
          failedMs = null;
        },
      };
    },
    fail(nowMs: number): void {
      trustedFromMs = nowMs;
      failedMs = nowMs;
    },
    /** This isolate changed it in D1: it asks anew at the next use. */
    forget(): void {
      changes++;
      trustedFromMs = -Infinity;
    },
  };
}
