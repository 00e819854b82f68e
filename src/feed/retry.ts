// The feed's object can go away under a question: in a deploy, in a move to another machine, by a fault. The platform marks
// such errors (workerd: jsg/util.c++), and the question is asked again. Most bouncers do nothing until their next poll when
// one fails, and Debian's firewall bouncer exits and removes its rules when its first one does.

import type { Failure } from '../http/failure.ts';
import { isUnwritable } from '../store/unwritable.ts';

const mostTries = 3;
/** Before the second try and the third. A random part of up to a half is left out, so that not all come back at once. */
const pausesMs = [100, 500] as const;

/** Asks up to three times. `again`: it may have been done before, and its answer lost. `ask` must be idempotent. */
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
  /** The object was reset: its memory is gone, and so is what it had not written yet. */
  readonly durableObjectReset?: boolean;
  /** The object has too many requests already. */
  readonly overloaded?: boolean;
}

function isLost(error: unknown): boolean {
  const { retryable, durableObjectReset, overloaded } = error as Marked;
  return (retryable === true || durableObjectReset === true) && overloaded !== true;
}

/** The failure for an error of the object that is not a bug of ours. Null: it is a bug. */
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

/** The object still runs the release before this one: a deploy takes some seconds to reach it. */
function isOlder(error: unknown): boolean {
  return error instanceof TypeError && error.message.startsWith('The RPC receiver does not implement');
}
