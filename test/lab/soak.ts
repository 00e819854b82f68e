// What long runs share: their switches, and the memory of a process again and again.
import { residentBytes } from '../bench/cpu.ts';

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
