// What unknown keys and tokens may cost. Each vain look-up counts for the network that it came from. Over the bound,
// unknown keys of that network wait for the next full second, and all that wait are looked up together. A good key among
// them is late once, and never refused.

import { sinceMs } from '../runtime/clock.ts';
import { createGenerations } from '../runtime/generations.ts';
import { limitedNetwork } from '../formats/ip.ts';
import { countOf, createLimit } from './rate-limit.ts';

const refusedMs = 5_000;
const mostRefused = 20_000;
const tickMs = 1_000;

/** Vain look-ups by network. */
const lookUps = createLimit(null, 30);

/** By digest: what was looked up in vain is refused for 5 s without another look-up. */
export function createRefusals() {
  const atMs = createGenerations<number>(mostRefused);
  return {
    has: (digest: string, nowMs: number) => sinceMs(atMs.get(digest) ?? -Infinity, nowMs) < refusedMs,
    note: atMs.set,
    forget: atMs.delete,
    /** For when keys have changed: what opened nothing may open something now. */
    clear: atMs.clear,
  };
}

/** Counts a vain look-up. */
export function noteUnknownKey(address: string, nowMs: number): void {
  countOf(lookUps, limitedNetwork(address), nowMs).spent++;
}

/** Waits before the look-up of a key that this isolate does not know, if its network is over the bound. */
export async function delayUnknownKey(address: string, nowMs: number): Promise<void> {
  if (countOf(lookUps, limitedNetwork(address), nowMs).spent < lookUps.perMinute) return;
  await scheduler.wait(tickMs - (nowMs % tickMs));
}
