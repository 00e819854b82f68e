// What the parts of the benchmark share: both sides with the same decisions, and how long each part may take.
import type { Engine, ImportRow } from '../lab/engine.ts';
import type { Lapidary } from '../lab/lapidary.ts';

export interface Sizes {
  decisions: number;
  /** Of load, on each side: LAPI needs longer for a figure. */
  lapiSeconds: number;
  lapidarySeconds: number;
  pulls: number;
  /** Start-ups whose gzip is made anew, which takes 5 s of silence before each. */
  coldPulls: number;
  /** Between two polls of a bouncer, and between two of Lapidary's rounds of sync. */
  intervalSeconds: number;
  /** How long many bouncers are watched; a multiple of the interval. */
  windowSeconds: number;
  /** Keys that are looked up for the first time, in each of the rounds that measure this. */
  newKeys: number;
  /** Keys that are revoked in one isolate and watched in another, for 5 s each. */
  revocations: number;
  /** Alerts of each kind, and between two polls of the bouncers that wait for their bans. */
  alerts: number;
  pollSeconds: number;
  /** What is bounded in the object, at its bound: tombstones, clients that poll, and decisions as on Cloudflare. */
  tombstones: number;
  clients: number;
  ceiling: number;
  /** How long a feed moves under many bouncers; a multiple of the time between two changes, which is 4 s. */
  movingSeconds: number;
  /** Clients before one Worker, fewer first. */
  crowds: number[];
}

export const fullSizes: Sizes = {
  decisions: 50_000,
  lapiSeconds: 6,
  lapidarySeconds: 4,
  pulls: 5,
  coldPulls: 4,
  intervalSeconds: 10,
  windowSeconds: 60,
  newKeys: 2_000,
  revocations: 20,
  alerts: 20,
  pollSeconds: 2,
  tombstones: 100_000,
  // More than there is room for.
  clients: 210_000,
  ceiling: 90_000,
  movingSeconds: 32,
  crowds: [15_000, 200_000],
};

/** To see that it works; its figures mean nothing. */
export const quickSizes: Sizes = {
  decisions: 5_000,
  lapiSeconds: 1,
  lapidarySeconds: 1,
  pulls: 2,
  coldPulls: 1,
  intervalSeconds: 2,
  windowSeconds: 4,
  newKeys: 200,
  revocations: 2,
  alerts: 4,
  pollSeconds: 1,
  tombstones: 1_000,
  clients: 1_000,
  ceiling: 5_000,
  movingSeconds: 8,
  crowds: [100, 1_000],
};

/** One of the two servers, as a bouncer sees it. */
export interface Side {
  url: string;
  /** The process that answers. */
  pid: number;
  /** Of bouncers registered there, as many on each side. */
  keys: string[];
}

export interface Bench {
  sizes: Sizes;
  rows: ImportRow[];
  engine: Engine;
  lapidary: Lapidary;
  lapi: Side;
  ours: Side;
}
