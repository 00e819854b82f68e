// The last day as a console draws it: what happened in each five minutes, and no more than a day of it.
import { evictDurableObject, runInDurableObject } from 'cloudflare:test';
import { expect, test, vi } from 'vitest';
import { counted } from '../../src/counters/counting.ts';
import { noSteps, withNow } from '../../src/counters/steps.ts';
import { feed } from '../support/bouncer.ts';

const stepMs = 300_000;
const startMs = 1_800_000_000_000;
const nobody = new Map<string, number>();
const onePoll = { polls: 1, refused: nobody };

test('a step has the decisions at its end, and the changes and polls of its time', () => {
  const at = (now: [decisions: number, sequence: number, polls: number], ms: number, kept = noSteps) => {
    const [decisions, sequence, polls] = now;
    return withNow(kept, { decisions, sequence, polls, refused: nobody }, startMs + ms);
  };
  let kept = at([5, 100, 2], 0);
  kept = at([7, 103, 1], 10_000, kept);
  kept = at([7, 103, 0], 20_000, kept);
  kept = at([6, 104, 4], stepMs, kept);
  expect(kept.steps).toEqual([
    { startMs, decisions: 7, changes: 3, polls: 3, refused: {} },
    { startMs: startMs + stepMs, decisions: 6, changes: 1, polls: 4, refused: {} },
  ]);
  // The feed was lost, and counts from 0 again.
  expect(at([1, 1, 0], stepMs + 1, kept).steps.at(-1)).toMatchObject({ decisions: 1, changes: 1, polls: 4 });
});

test('a day of steps is kept, and none of a time that has not come', () => {
  let kept = noSteps;
  for (let step = 0; step < 300; step++) {
    kept = withNow(kept, { ...onePoll, decisions: step, sequence: step }, startMs + step * stepMs);
  }
  expect(kept.steps).toHaveLength(288);
  expect(kept.steps.at(-1)?.startMs).toBe(startMs + 299 * stepMs);
  kept = withNow(kept, { ...onePoll, decisions: 1, sequence: 300 }, startMs + 200 * stepMs);
  expect(kept.steps.at(-1)?.startMs).toBe(startMs + 200 * stepMs);
});

test('who was refused is added up by reason; a step of the release before has none', () => {
  const now = { decisions: 0, sequence: 0, polls: 0 };
  const after = (refused: Record<string, number>, kept = noSteps) =>
    withNow(kept, { ...now, refused: new Map(Object.entries(refused)) }, startMs);
  const twice = after({ 'bouncer no-key': 1 }, after({ 'bouncer no-key': 2, 'operator role': 1 }));
  expect(twice.steps[0]?.refused).toEqual({ 'bouncer no-key': 3, 'operator role': 1 });
  const older = { sequence: 0, steps: [{ startMs, decisions: 0, changes: 0, polls: 0 }] };
  expect(withNow(older, { ...now, refused: nobody }, startMs)).toBe(older);
  expect(after({ 'host forbidden': 1 }, older).steps[0]?.refused).toEqual({ 'host forbidden': 1 });
});

test('the object keeps them, from what isolates count and the feed changes', async () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  vi.setSystemTime(startMs);
  await feed().steps();
  const requests = [1, counted.polls, 7, 1, counted.lookUps, 2, 1, counted.found, 2];
  await feed().note([], null, {
    isolate: 'a',
    counts: { number: 1, requests, refused: { 'bouncer unknown-key': 3 } },
  });
  await feed().addLocal({
    scenario: 'test',
    scope: 'Ip',
    type: 'ban',
    value: '192.0.2.1',
    untilMs: startMs + 60_000,
  });
  const step = { startMs, decisions: 1, changes: 1, polls: 9, refused: { 'bouncer unknown-key': 3 } };
  expect(await feed().steps()).toEqual([step]);
  await runInDurableObject(feed(), (object) => object.alarm());
  await evictDurableObject(feed());
  expect(await feed().steps()).toEqual([step]);
  vi.setSystemTime(startMs + stepMs);
  const next = { startMs: startMs + stepMs, decisions: 0, changes: 1, polls: 0, refused: {} };
  expect(await feed().steps()).toEqual([step, next]);
});
