// The last day as a console draws it: what happened in each five minutes, and no more than a day of it.
import { evictDurableObject, runInDurableObject } from 'cloudflare:test';
import { expect, test, vi } from 'vitest';
import { counted } from '../../src/counters/counting.ts';
import { noSteps, withNow } from '../../src/counters/steps.ts';
import { feed } from '../support/bouncer.ts';

const stepMs = 300_000;
const startMs = 1_800_000_000_000;

test('a step has the decisions at its end, and the changes and polls of its time', () => {
  const at = (now: [decisions: number, sequence: number, polls: number], ms: number, kept = noSteps) => {
    const [decisions, sequence, polls] = now;
    return withNow(kept, { decisions, sequence, polls }, startMs + ms);
  };
  let kept = at([5, 100, 2], 0);
  kept = at([7, 103, 1], 10_000, kept);
  kept = at([7, 103, 0], 20_000, kept);
  kept = at([6, 104, 4], stepMs, kept);
  expect(kept.steps).toEqual([
    { startMs, decisions: 7, changes: 3, polls: 3 },
    { startMs: startMs + stepMs, decisions: 6, changes: 1, polls: 4 },
  ]);
  // The feed was lost, and counts from 0 again.
  expect(at([1, 1, 0], stepMs + 1, kept).steps.at(-1)).toMatchObject({ decisions: 1, changes: 1, polls: 4 });
});

test('a day of steps is kept, and none of a time that has not come', () => {
  let kept = noSteps;
  for (let step = 0; step < 300; step++) {
    kept = withNow(kept, { decisions: step, sequence: step, polls: 1 }, startMs + step * stepMs);
  }
  expect(kept.steps).toHaveLength(288);
  expect(kept.steps.at(-1)?.startMs).toBe(startMs + 299 * stepMs);
  kept = withNow(kept, { decisions: 1, sequence: 300, polls: 1 }, startMs + 200 * stepMs);
  expect(kept.steps.at(-1)?.startMs).toBe(startMs + 200 * stepMs);
});

test('the object keeps them, from what isolates count and the feed changes', async () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  vi.setSystemTime(startMs);
  await feed().steps();
  const requests = [1, counted.polls, 7, 1, counted.lookUps, 2, 1, counted.found, 2];
  await feed().note([], null, { isolate: 'a', counts: { number: 1, requests } });
  await feed().addLocal({
    scenario: 'test',
    scope: 'Ip',
    type: 'ban',
    value: '192.0.2.1',
    untilMs: startMs + 60_000,
  });
  const step = { startMs, decisions: 1, changes: 1, polls: 9 };
  expect(await feed().steps()).toEqual([step]);
  await runInDurableObject(feed(), (object) => object.alarm());
  await evictDurableObject(feed());
  expect(await feed().steps()).toEqual([step]);
  vi.setSystemTime(startMs + stepMs);
  const next = { startMs: startMs + stepMs, decisions: 0, changes: 1, polls: 0 };
  expect(await feed().steps()).toEqual([step, next]);
});
