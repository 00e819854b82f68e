// Waiting for something another process does: poll, with a deadline and a failure that tells what was seen.
import { setTimeout as delay } from 'node:timers/promises';
import { inspect } from 'node:util';

const pauseMs = 50;

/**
 * Asks `probe` until it answers something else than `undefined` or `false`, and answers that.
 * A probe that throws means "not yet"; `saw` notes what it looked at, for the message of the failure.
 */
export async function until<T>(
  what: string,
  probe: (saw: (thing: unknown) => void) => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs = 30_000,
): Promise<T> {
  const deadlineMs = Date.now() + timeoutMs;
  let last: unknown = 'nothing';
  const saw = (thing: unknown) => {
    last = thing;
  };
  for (;;) {
    try {
      const answer = await probe(saw);
      if (answer !== undefined && answer !== false) return answer;
    } catch (error) {
      last = error;
    }
    if (Date.now() >= deadlineMs) {
      throw new Error(`waited ${timeoutMs / 1000} s until ${what}; last seen: ${describe(last)}`);
    }
    await delay(pauseMs);
  }
}

function describe(thing: unknown): string {
  if (thing instanceof Error) return thing.message;
  if (typeof thing === 'string') return thing;
  return inspect(thing, { depth: 4, breakLength: 110, maxArrayLength: 20 });
}
