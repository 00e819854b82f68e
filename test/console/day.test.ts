// The last 24 hours in numbers: what is known, what is not, and what is said of it.
import { expect, test } from 'vitest';
import {
  dayOf,
  hoursOf,
  levelWords,
  stretchesOf,
  sumWords,
  topOf,
  type Series,
} from '../../src/console/day.ts';
import { stepMs, type Step } from '../../src/counters/steps.ts';

/** 12:02 UTC. The running step began two minutes ago. */
const nowMs = Date.UTC(2026, 10, 28, 12, 2);
const runningMs = Date.UTC(2026, 10, 28, 12, 0);

/** Steps before the running one, 0: itself. */
const step = (before: number, changes: Partial<Step> = {}): Step => {
  return {
    startMs: runningMs - before * stepMs,
    decisions: 10,
    changes: 1,
    polls: 2,
    refused: {},
    ...changes,
  };
};

test('a time without a step is not known, and is no zero', () => {
  const day = dayOf([step(5), step(4), step(2, { changes: 0, polls: 0 }), step(0)], nowMs);
  expect(day.decisions.slice(-6)).toEqual([10, 10, null, 10, null, 10]);
  expect(day.polls.slice(-5)).toEqual([2, 2, null, 0, null]);
  expect(stretchesOf(day.polls)).toEqual([
    { from: 0, to: 282, isKnown: false },
    { from: 282, to: 284, isKnown: true },
    { from: 284, to: 285, isKnown: false },
    { from: 285, to: 286, isKnown: true },
    { from: 286, to: 287, isKnown: false },
  ]);
});

test('the running step counts for what there is, not for what is counted', () => {
  const day = dayOf([step(1), step(0, { decisions: 11, polls: 1 })], nowMs);
  expect([day.decisions.at(-1), day.polls.length, day.polls.at(-1)]).toEqual([11, 287, 2]);
});

test('steps of another day are left out, as are those of a clock that was set back', () => {
  const day = dayOf([step(288, { decisions: 999 }), step(0), step(-3, { decisions: 999 })], nowMs);
  expect(day.decisions.filter((count) => count !== null)).toEqual([10]);
});

test('steps of the release before say nothing of who was refused', () => {
  const older: Step = { startMs: runningMs - 2 * stepMs, decisions: 10, changes: 1, polls: 2 };
  const day = dayOf([older, step(1, { refused: { 'bouncer no-key': 3, 'operator role': 4 } })], nowMs);
  expect(day.refused.slice(-2)).toEqual([null, 7]);
  expect(day.refusals).toEqual([
    ['operator role', 4],
    ['bouncer no-key', 3],
  ]);
});

test('a scale ends at a round number', () => {
  const tops = ([[], [0], [7], [95], [110], [48_917]] as Series[]).map(topOf);
  expect(tops).toEqual([1, 1, 7, 100, 200, 50_000]);
});

test('the words say the range, and how much is not known', () => {
  const whole = Array.from({ length: 288 }, (_, at) => (at === 3 ? 49_230 : 47_300));
  expect(levelWords(whole)).toBe('47\u202f300 now, between 47\u202f300 and 49\u202f230.');
  expect(levelWords([null, 5, 5])).toBe('5 now, always 5. Nothing is known of 5 min.');
  expect(sumWords([null, null, 80, 20])).toBe(
    '100 in all, at most 80 in five minutes. Nothing is known of 10 min.',
  );
  expect(sumWords([0, 0])).toBe('None.');
  expect(sumWords([null, null])).toBe('Not known yet: no five minutes are over.');
});

test('hours add up what is known of them', () => {
  const hours = hoursOf(
    dayOf([step(13, { polls: 5 }), step(12), step(11, { decisions: 12 }), step(0)], nowMs),
  );
  expect(hours.length).toBe(25);
  expect(hours.slice(0, 3)).toMatchObject([
    { startMs: runningMs, minutes: 5, decisions: 10, changes: null, polls: null },
    { startMs: runningMs - 3_600_000, minutes: 10, decisions: 12, changes: 2, polls: 4 },
    { startMs: runningMs - 7_200_000, minutes: 5, decisions: 10, changes: 1, polls: 5 },
  ]);
  expect(hours.at(-1)).toMatchObject({ minutes: 0, decisions: null, changes: null, refused: null });
});
