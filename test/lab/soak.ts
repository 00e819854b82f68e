// What long runs share: their switches, the memory of a process again and again, and how they come to rest.
import { residentBytes } from '../bench/cpu.ts';
import type { Lapi } from './enforcers.ts';
import type { Lapidary } from './lapidary.ts';
import { pullList } from './poller.ts';
import { until } from './wait.ts';

/** The switch of this name. What is no number would be an hour that shows nothing. */
export function numberOf(name: string, otherwise: number): number {
  const text = process.env[name] ?? String(otherwise);
  if (!/^\d+(\.\d+)?$/.test(text)) throw new Error(`${name} must be a number`);
  return Number(text);
}

const sampleMs = 500;

/** The resident memory of a process, again and again. */
export function watchMemory(pid: number) {
  const samples: { atMs: number; megabytes: number }[] = [];
  const timer = setInterval(() => {
    samples.push({ atMs: Date.now(), megabytes: Math.round(residentBytes(pid) / 1e6) });
  }, sampleMs);
  return {
    between: (fromMs: number, toMs: number): number[] =>
      samples.filter(({ atMs }) => atMs >= fromMs && atMs < toMs).map(({ megabytes }) => megabytes),
    stop: () => clearInterval(timer),
  };
}

/** When no request moves the engines any more: waits until time does not either, and Lapidary has what they have. */
export async function comeToRest(lapidary: Lapidary, engines: readonly Lapi[]): Promise<void> {
  await until('the short bans have ended', async () =>
    (await Promise.all(engines.map(pullList))).flat().every(({ duration }) => /^\d+h/.test(duration)),
  );
  await until('a full list is accepted', async () => {
    const { ok, warning } = await lapidary.sync({ full: true });
    return ok && warning === null;
  });
}
