// The feed's object can go away under a question: a deploy, a move to another machine, a fault. What the platform marks
// so (workerd: jsg/util.c++) is asked again, since most bouncers that are told of a fault do nothing until their next
// poll, and Debian's firewall bouncer ends, and takes its rules down, when its first one fails.

import type { Failure } from '../http/failure.ts';
import { isUnwritable } from '../store/unwritable.ts';

const mostTries = 3;
/** Before the second try and before the third; at least half of it, so that not all who ask come back at once. */
const pausesMs = [100, 500] as const;

/**
 * Asks up to three times. `again`: it may have been done before, and its answer lost. What `ask` does must come to the
 * same when it is done twice.
 */
export async function withRetries<T>(ask: (again: boolean) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask(attempt > 1);
    } catch (error) {
      if (!isLost(error) || attempt === mostTries) throw error;
    }
    await scheduler.wait((pausesMs[attempt - 1] as number) * (0.5 + Math.random() / 2));
  }
}

interface Marked {
  /** The connection to the object broke. */
  readonly retryable?: boolean;
  /** The object was taken away: what it had in memory is gone, and so is what it had not written yet. */
  readonly durableObjectReset?: boolean;
  /** Too much is asked of it already. */
  readonly overloaded?: boolean;
}

function isLost(error: unknown): boolean {
  const { retryable, durableObjectReset, overloaded } = error as Marked;
  return (retryable === true || durableObjectReset === true) && overloaded !== true;
}

/** What whoever asked is told of an error of the object's that is not a fault of its code; null: it is one. */
export function whyUnavailable(error: unknown): Failure | null {
  if (isUnwritable(error)) return { kind: 'unavailable', problem: (error as Error).message };
  if (isLost(error) || (error as Marked).overloaded === true) {
    return { kind: 'unavailable', problem: 'the feed is out of reach; try again', waitSeconds: 1 };
  }
  if (isOlder(error)) {
    return { kind: 'unavailable', problem: 'an update is under way; try again', waitSeconds: 5 };
  }
  return null;
}

/** The object is one of a release before this one, for the seconds that a deploy takes to reach it. */
function isOlder(error: unknown): boolean {
  return error instanceof TypeError && error.message.startsWith('The RPC receiver does not implement');
}
