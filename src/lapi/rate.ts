// How often a bouncer or an unknown host may ask, and a machine try to log in. Cloudflare's rate limits where they are
// bound: each counts per location and lets a little more through. Plain workerd has none: there this isolate counts.

import { bareName } from '../broker/machines.ts';
import type { RateTier } from '../broker/policy.ts';
import { sinceMs } from '../clock.ts';
import { sha256Hex } from '../secret.ts';
import { limitedNetwork } from './ip.ts';

/** Seconds after which a refused client may try again, or null: it may go on. */
export type Wait = number | null;

const windowMs = 60_000;
const mostCounted = 20_000;

/** Who asks → requests in the window that began at `startMs`. */
const counts = new Map<string, { readonly startMs: number; requests: number }>();

export async function takeTurn(
  env: Env,
  bouncerId: number,
  perMinute: RateTier | null,
  nowMs: number,
): Promise<Wait> {
  if (perMinute === null) return null;
  return turn(bound(env, perMinute), `bouncer ${bouncerId}`, perMinute, nowMs);
}

/** wrangler.toml's RATE_LIMIT_BOOTSTRAP: a first boot takes two requests, and a network of hosts may share an address. */
const bootstrapsPerMinute = 120;

/** A request below /bootstrap of this address: its network's, as every limit by address. */
export function takeBootstrapTurn(env: Partial<Env>, address: string, nowMs: number): Promise<Wait> {
  return turn(env.RATE_LIMIT_BOOTSTRAP, `network ${limitedNetwork(address)}`, bootstrapsPerMinute, nowMs);
}

/** As wrangler.toml has them. Under one name more than from one address: an attacker's keeps no machine out alone. */
const loginsPerMinute = { address: 30, machine: 60 };

/** A machine's try to log in, before its body is read: that costs most of what a try can cost here. */
export function takeLoginTurn(env: Partial<Env>, address: string, nowMs: number): Promise<Wait> {
  return turn(
    env.LOGIN_LIMIT_ADDRESS,
    `login from ${limitedNetwork(address)}`,
    loginsPerMinute.address,
    nowMs,
  );
}

/** The same try, once the body has told which `machine` it claims to be. */
export async function takeLoginTurnAs(env: Partial<Env>, machine: string, nowMs: number): Promise<Wait> {
  // Of any length and content, where a counter's key has bounds.
  const name = `login as ${(await sha256Hex(bareName(machine))).slice(0, 32)}`;
  return turn(env.LOGIN_LIMIT_MACHINE, name, loginsPerMinute.machine, nowMs);
}

async function turn(
  limit: RateLimit | undefined,
  key: string,
  perMinute: number,
  nowMs: number,
): Promise<Wait> {
  if (!limit) return countTurn(key, perMinute, nowMs);
  const { success } = await limit.limit({ key });
  // It does not tell when it will let through again; after a whole period it does.
  return success ? null : windowMs / 1000;
}

/** The types come from wrangler.toml, whose bindings `npm start` does not have. */
function bound(env: Partial<Env>, perMinute: RateTier): RateLimit | undefined {
  switch (perMinute) {
    case 10:
      return env.RATE_LIMIT_10;
    case 60:
      return env.RATE_LIMIT_60;
    case 600:
      return env.RATE_LIMIT_600;
    default:
      return perMinute satisfies never;
  }
}

function countTurn(key: string, perMinute: number, nowMs: number): Wait {
  let count = counts.get(key);
  if (!count || sinceMs(count.startMs, nowMs) >= windowMs) {
    if (counts.size >= mostCounted) counts.clear();
    counts.set(key, (count = { startMs: nowMs, requests: 0 }));
  }
  count.requests++;
  return count.requests <= perMinute ? null : Math.ceil((count.startMs + windowMs - nowMs) / 1000);
}
