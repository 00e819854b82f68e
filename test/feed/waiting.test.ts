// The places of polls that wait: their bounds, and how long a client's next answer is put off.
import { expect, test, vi } from 'vitest';
import { createWaiting } from '../../src/feed/waiting.ts';

const minute = 60_000;

test('a bouncer has four places', () => {
  const waiting = createWaiting();
  const places = Array.from({ length: 5 }, () => waiting.enter(1, 0));
  expect(places.map((place) => place !== null)).toEqual([true, true, true, true, false]);
  expect(waiting.enter(2, 0)).not.toBeNull();
  places[0]?.leave();
  places[0]?.leave();
  expect(waiting.size(0)).toBe(4);
  expect(waiting.enter(1, 0)).not.toBeNull();
  expect(waiting.enter(1, 0)).toBeNull();
});

test('an isolate has 10,000', () => {
  const waiting = createWaiting();
  const places = Array.from({ length: 10_001 }, (_, at) => waiting.enter(at, 0));
  expect([places.at(-2) === null, places.at(-1)]).toEqual([false, null]);
  places[0]?.leave();
  expect(waiting.enter(20_000, 0)).not.toBeNull();
});

test('a place is free again whose request the runtime ended without a word, also if the clock was set back', () => {
  for (const laterMs of [2 * minute, -60 * minute]) {
    const waiting = createWaiting();
    for (let at = 0; at < 4; at++) waiting.enter(1, 0);
    expect(waiting.enter(1, minute)).toBeNull();
    expect(waiting.enter(1, laterMs)).not.toBeNull();
    expect(waiting.size(laterMs)).toBe(1);
  }
});

test('who is woken while it looks does not sleep', async () => {
  const waiting = createWaiting();
  const place = waiting.enter(1, 0);
  waiting.wakeAll();
  const wait = vi.spyOn(scheduler, 'wait');
  await place?.sleep(1_000);
  expect(wait).not.toHaveBeenCalled();
  await place?.sleep(1);
  expect(wait).toHaveBeenCalled();
});

test('an answer that could only repeat the last one is put off to a second after it', () => {
  const waiting = createWaiting();
  expect(waiting.pauseMs('one', 5, 0)).toBe(0);
  waiting.noteAnswer('one', 5, 0);
  expect([waiting.pauseMs('one', 5, 400), waiting.pauseMs('one', 5, 1_000)]).toEqual([600, 0]);
  // Something new, another client, and a clock that was set back.
  expect([waiting.pauseMs('one', 6, 400), waiting.pauseMs('other', 5, 400)]).toEqual([0, 0]);
  expect(waiting.pauseMs('one', 5, -60 * minute)).toBe(0);
});
