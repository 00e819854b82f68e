// How long the properties of the feed run. CI has a minute for each suite; the switch is for a machine that has nothing else to do.
import { env } from 'cloudflare:workers';

/** The runs of a property that has `usual` in CI: PROPERTY_RUNS asks for more. */
export function runsOf(usual: number): number {
  return Number(env.PROPERTY_RUNS || usual);
}

/** Each test's time limit. */
export const patienceMs = env.PROPERTY_RUNS ? 86_400_000 : 300_000;
