// When a bouncer counts as silent: by the interval that it keeps itself, and by our own time awake.
import { expect, test } from 'vitest';
import {
  countsFromMs,
  excuseOf,
  isNews,
  isSilent,
  patienceMs,
  seen,
  type Watched,
} from '../../src/events/silence.ts';

const minute = 60_000;

/** A bouncer that was seen at these minutes. */
function seenAt(minutes: readonly number[], awakeSinceMs = 0): Watched {
  let known: Watched | undefined;
  for (const at of minutes) known = seen(known, at * minute, awakeSinceMs);
  return known as Watched;
}

test('an interval is learnt from three gaps on', () => {
  expect(seenAt([1, 2, 3]).expectedMs).toBeNull();
  expect(seenAt([1, 2, 3, 4]).expectedMs).toBe(minute);
});

test('one long pause, such as a night, is no interval', () => {
  expect(seenAt([1, 2, 3, 4, 5, 500]).expectedMs).toBe(minute);
  expect(seenAt([1, 2, 3, 4, 5, 500, 501, 502, 503]).expectedMs).toBe(minute);
});

test('another interval is learnt within a few polls', () => {
  expect(seenAt([1, 2, 3, 4, 5, 6, 36, 66, 96]).expectedMs).toBe(30 * minute);
});

test('a pause in which nobody looked is learnt by nobody', () => {
  const before = seenAt([1, 2, 3, 4]);
  expect(seen(before, 600 * minute, 500 * minute)).toEqual({ ...before, seenMs: 600 * minute });
});

test('what was learnt before a restart holds until new gaps were seen', () => {
  let known = seen(undefined, 0, 0, 5 * minute);
  expect(known.expectedMs).toBe(5 * minute);
  for (const at of [1, 2]) known = seen(known, at * minute, 0);
  expect(known.expectedMs).toBe(5 * minute);
  expect(seen(known, 3 * minute, 0).expectedMs).toBe(minute);
});

test('a bouncer may be silent for three of its intervals, and for two minutes at least', () => {
  expect(patienceMs(10_000)).toBe(2 * minute);
  expect(patienceMs(30 * minute)).toBe(90 * minute);
  expect(isSilent(0, patienceMs(10_000), 0, 2 * minute)).toBe(false);
  expect(isSilent(0, patienceMs(10_000), 0, 2 * minute + 1)).toBe(true);
});

test('one that waits for changes is not silent after a burst of them, when it waits for long again', () => {
  // It is looked at every 10 s. In a burst it was seen a moment before each look; then it waits 55 s at a time.
  const looksMs = Array.from({ length: 60 }, (_, at) => at * 10_000);
  const seenMsAt = (nowMs: number): number =>
    nowMs < 200_000 ? nowMs : nowMs - ((nowMs - 200_000) % 55_000);
  let known = seen(undefined, 0, 0);
  for (const nowMs of looksMs) {
    known = seen(known, seenMsAt(nowMs), 0);
    expect(isSilent(known.seenMs, patienceMs(known.expectedMs ?? 0), 0, nowMs)).toBe(false);
    if (nowMs === 190_000) expect(known.expectedMs).toBe(10_000);
  }
  expect(known.expectedMs).toBeGreaterThan(40_000);
});

test('after our own absence each has its whole patience again', () => {
  expect(isSilent(0, 2 * minute, 600 * minute, 601 * minute)).toBe(false);
  expect(isSilent(0, 2 * minute, 600 * minute, 603 * minute)).toBe(true);
});

test('after a restart one that may have polled just before it has its whole patience again', () => {
  const restart = { atMs: 601 * minute, lookedMs: 600 * minute };
  const awake = { sinceMs: 500 * minute, restart };
  expect(countsFromMs(599 * minute, awake)).toBe(601 * minute);
  expect(countsFromMs(590 * minute, awake)).toBe(500 * minute);
  expect(countsFromMs(599 * minute, { ...awake, restart: null })).toBe(500 * minute);
});

test('one that may not poll is excused, and once more when it may again', () => {
  const paused = excuseOf(undefined, false, 10)!;
  expect(paused).toEqual({ sinceMs: 10, mayPoll: false });
  expect(excuseOf(paused, false, 20)).toEqual({ sinceMs: 20, mayPoll: false });
  const resumed = excuseOf(paused, true, 30)!;
  expect(resumed).toEqual({ sinceMs: 30, mayPoll: true });
  expect([excuseOf(resumed, true, 40), excuseOf(undefined, true, 40)]).toEqual([null, null]);
});

test('a bouncer that was seen in what is the future now is not silent', () => {
  expect(isSilent(600 * minute, 2 * minute, 0, 300 * minute)).toBe(false);
});

test('what is learnt is stored when it is new, or differs by a quarter', () => {
  expect([isNews(null, 60), isNews(60, 60), isNews(60, 70), isNews(60, 80), isNews(60, null)]).toEqual([
    true,
    false,
    false,
    true,
    true,
  ]);
});
