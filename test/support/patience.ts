// Waiting for what happens by itself, for as long as a busy machine takes: no test measures how fast that is.
import { vi } from 'vitest';

/** Less than a poll of the tests waits at most: one that ends by its own time fails its test. */
const patience = { timeout: 20_000 };

/** Until `isSo` answers something true. */
export function waitUntil(isSo: () => unknown): Promise<unknown> {
  return vi.waitUntil(isSo, patience);
}

/** Until what `check` expects holds. Answers what it does. */
export function waitFor<T>(check: () => T | Promise<T>): Promise<T> {
  return vi.waitFor(check, patience);
}
