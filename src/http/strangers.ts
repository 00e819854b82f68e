// What keys and tokens that open nothing may cost. Each that is looked up in vain counts for the network that it came
// from; over the bound its unknown keys wait for the next second, and are looked up together with all that wait then. A
// good key among them is late once, and never refused.

import { sinceMs } from '../runtime/clock.ts';
import { createGenerations } from '../runtime/generations.ts';
import { limitedNetwork } from '../formats/ip.ts';

const refusedMs = 5_000;
const mostRefused = 20_000;
const windowMs = 60_000;
const freePerWindow = 30;
const tickMs = 1_000;
const mostNetworks = 20_000;

/** Network → what it had looked up in vain in the window that began at `startMs`. */
const lookedUp = createGenerations<{ readonly startMs: number; keys: number }>(mostNetworks);

/** By digest: what was looked up in vain is refused for 5 s without asking again. */
export interface Refusals {
  has(digest: string, nowMs: number): boolean;
  note(digest: string, nowMs: number): void;
  forget(digest: string): void;
  /** What opened nothing may open something now. */
  clear(): void;
}

export function createRefusals(): Refusals {
  const atMs = createGenerations<number>(mostRefused);
  return {
    has: (digest, nowMs) => sinceMs(atMs.get(digest) ?? -Infinity, nowMs) < refusedMs,
    note: atMs.set,
    forget: atMs.delete,
    clear: atMs.clear,
  };
}

/** Something from this address was looked up, and opens nothing. */
export function noteStranger(address: string, nowMs: number): void {
  const network = limitedNetwork(address);
  const counted = lookedUp.get(network);
  if (counted && sinceMs(counted.startMs, nowMs) < windowMs) counted.keys++;
  else lookedUp.set(network, { startMs: nowMs, keys: 1 });
}

/** Before something that nobody here knows is looked up. */
export async function waitAsStranger(address: string, nowMs: number): Promise<void> {
  const counted = lookedUp.get(limitedNetwork(address));
  if (!counted || counted.keys < freePerWindow || sinceMs(counted.startMs, nowMs) >= windowMs) return;
  await scheduler.wait(tickMs - (nowMs % tickMs));
}
