// The last 24 hours in numbers: a series for each plot, what is said of it, and a row for each hour. Pure. Where no step is kept
// nothing is known: Lapidary did not run, or did not count yet. That is never a zero.

import { mostSteps, stepMs, type Step } from '../counters/steps.ts';
import { countOf, spanOf } from './words.ts';

/** One number for each five minutes, the oldest first; null: not known. */
export type Series = readonly (number | null)[];

export interface Day {
  /** Where its first step begins. */
  readonly fromMs: number;
  /** The last one is of the step that is running: how many there are now. */
  readonly decisions: Series;
  /** Of whole steps, so one fewer: what the running step has counted says nothing yet. */
  readonly changes: Series;
  readonly polls: Series;
  readonly refused: Series;
  /** Callers that were refused in that time, by face and reason, the most first. */
  readonly refusals: readonly (readonly [what: string, count: number])[];
}

export function dayOf(steps: readonly Step[], nowMs: number): Day {
  const fromMs = nowMs - (nowMs % stepMs) - (mostSteps - 1) * stepMs;
  const known = new Map(steps.map((step) => [(step.startMs - fromMs) / stepMs, step]));
  const series = (length: number, of: (step: Step) => number | null): Series => {
    return Array.from({ length }, (_, at) => {
      const step = known.get(at);
      return step ? of(step) : null;
    });
  };
  const whole = mostSteps - 1;
  return {
    fromMs,
    decisions: series(mostSteps, (step) => step.decisions),
    changes: series(whole, (step) => step.changes),
    polls: series(whole, (step) => step.polls),
    refused: series(whole, ({ refused }) => (refused ? sumOf(Object.values(refused)) : null)),
    refusals: refusalsIn(steps.filter(({ startMs }) => startMs >= fromMs)),
  };
}

function refusalsIn(steps: readonly Step[]): (readonly [string, number])[] {
  const counts = new Map<string, number>();
  for (const { refused = {} } of steps) {
    for (const [what, count] of Object.entries(refused)) counts.set(what, (counts.get(what) ?? 0) + count);
  }
  return [...counts].sort(([, a], [, b]) => b - a);
}

function sumOf(counts: readonly number[]): number {
  return counts.reduce((sum, count) => sum + count, 0);
}

export function knownOf(series: Series): number[] {
  return series.filter((value) => value !== null);
}

/** Stretches of a series of one kind, from the first step to the one after the last. */
export interface Stretch {
  readonly from: number;
  readonly to: number;
  readonly isKnown: boolean;
}

export function stretchesOf(series: Series): Stretch[] {
  const stretches: { from: number; to: number; isKnown: boolean }[] = [];
  for (const [at, value] of series.entries()) {
    const last = stretches.at(-1);
    if (last?.isKnown === (value !== null)) last.to = at + 1;
    else stretches.push({ from: at, to: at + 1, isKnown: value !== null });
  }
  return stretches;
}

/** Where the scale of a plot ends: a round number. It begins at 0, so that a height is what it looks like. */
export function topOf(series: Series): number {
  const most = Math.max(1, ...knownOf(series));
  const unit = 10 ** Math.floor(Math.log10(most));
  return Math.ceil(most / unit) * unit;
}

/** Of numbers that are there at a time: `48 917 now, between 47 300 and 49 230.` */
export function levelWords(series: Series): string {
  const known = knownOf(series);
  if (known.length === 0) return 'Not known yet.';
  const [least, most] = [Math.min(...known), Math.max(...known)];
  const range = least === most ? `always ${countOf(most)}` : `between ${countOf(least)} and ${countOf(most)}`;
  const now = series.at(-1) ?? null;
  return `${now === null ? '' : `${countOf(now)} now, `}${range}.${unknownWords(series)}`;
}

/** Of numbers that are counted in a time: `12 408 in all, at most 80 in five minutes.` */
export function sumWords(series: Series): string {
  const known = knownOf(series);
  if (known.length === 0) return 'Not known yet: no five minutes are over.';
  const most = Math.max(...known);
  const sum =
    most === 0 ? 'None.' : `${countOf(sumOf(known))} in all, at most ${countOf(most)} in five minutes.`;
  return sum + unknownWords(series);
}

function unknownWords(series: Series): string {
  const unknown = series.length - knownOf(series).length;
  return unknown === 0 ? '' : ` Nothing is known of ${spanOf(unknown * stepMs)}.`;
}

export interface Hour {
  readonly startMs: number;
  /** Of how many minutes there is a number. */
  readonly minutes: number;
  /** At its end, or the last that is known; null, as below: nothing is. */
  readonly decisions: number | null;
  readonly changes: number | null;
  readonly polls: number | null;
  readonly refused: number | null;
}

const hourMs = 3_600_000;

/** The hours that a day touches, the newest first. */
export function hoursOf({ fromMs, decisions, changes, polls, refused }: Day): Hour[] {
  const endMs = fromMs + mostSteps * stepMs;
  const hours: Hour[] = [];
  for (let startMs = endMs - 1 - ((endMs - 1) % hourMs); startMs + hourMs > fromMs; startMs -= hourMs) {
    const from = Math.max(0, (startMs - fromMs) / stepMs);
    const to = (startMs + hourMs - fromMs) / stepMs;
    const within = (series: Series): number[] => knownOf(series.slice(from, to));
    const sum = (series: Series): number | null =>
      within(series).length === 0 ? null : sumOf(within(series));
    hours.push({
      startMs,
      minutes: (within(decisions).length * stepMs) / 60_000,
      decisions: within(decisions).at(-1) ?? null,
      changes: sum(changes),
      polls: sum(polls),
      refused: sum(refused),
    });
  }
  return hours;
}
