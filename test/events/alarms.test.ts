// When operators are told of what is wrong, and of its end: once, however often it comes and goes, and together.
import { expect, test } from 'vitest';
import { forgetTimes, judge, noAlarms, type Alarms, type Wrong } from '../../src/events/alarms.ts';

const minute = 60_000;
const silent = (name: number): Wrong => ({ type: 'bouncer.silent', subject: `bouncer ${name}` });
const stale: Wrong = { type: 'engine.stale', subject: 'engine main' };
const refused: Wrong = { type: 'engine.refused', subject: 'engine main' };

/** Looks every ten seconds; what was said, as `minute:second type subject`. */
function said(untilMs: number, wrongAt: (nowMs: number) => Wrong[], before: Alarms = noAlarms): string[] {
  const lines: string[] = [];
  let alarms = before;
  for (let nowMs = 0; nowMs <= untilMs; nowMs += 10_000) {
    const { next, begun, over } = judge(alarms, wrongAt(nowMs), nowMs);
    alarms = next;
    for (const { type, subject } of [...begun, ...over]) {
      lines.push(`${Math.floor(nowMs / minute)}:${(nowMs % minute) / 1000} ${type} ${subject}`);
    }
  }
  return lines;
}

test('what is wrong is said once, and its end when it was well for five minutes', () => {
  expect(said(20 * minute, (nowMs) => (nowMs < 4 * minute ? [silent(1)] : []))).toEqual([
    '0:0 bouncer.silent bouncer 1',
    '9:0 bouncer.recovered bouncer 1',
  ]);
});

test('twenty flaps are one beginning and one end', () => {
  const flap = (nowMs: number) => (nowMs < 40 * minute && nowMs % (2 * minute) < minute ? [silent(1)] : []);
  expect(said(60 * minute, flap)).toEqual([
    '0:0 bouncer.silent bouncer 1',
    '44:0 bouncer.recovered bouncer 1',
  ]);
});

test('what many have one after the other is said in one go every five minutes', () => {
  const growing = (nowMs: number) =>
    Array.from({ length: Math.min(100, nowMs / 10_000) }, (_, at) => silent(at));
  const lines = said(25 * minute, growing);
  expect(lines).toHaveLength(100);
  const times = new Set(lines.map((line) => line.split(' ')[0]));
  expect([...times]).toEqual(['0:10', '5:10', '10:10', '15:10', '20:10']);
});

test('what ends before it is said is never said', () => {
  const blip = (nowMs: number) => [silent(1), ...(nowMs > minute && nowMs < 4 * minute ? [silent(2)] : [])];
  expect(said(10 * minute, blip)).toEqual(['0:0 bouncer.silent bouncer 1']);
});

test('an engine that is stale for a moment is no event', () => {
  expect(said(10 * minute, (nowMs) => (nowMs % minute < 30_000 ? [stale] : []))).toEqual([]);
  expect(said(10 * minute, (nowMs) => (nowMs < minute ? [stale] : []))).toEqual([
    '0:30 engine.stale engine main',
    '6:0 engine.recovered engine main',
  ]);
});

test('an engine that is stale, then refuses, then is stale again, recovers once', () => {
  const troubled = (nowMs: number) =>
    nowMs >= 10 * minute ? [] : [Math.floor(nowMs / (2 * minute)) % 2 === 0 ? stale : refused];
  expect(said(30 * minute, troubled)).toEqual([
    '0:30 engine.stale engine main',
    '2:30 engine.refused engine main',
    '15:0 engine.recovered engine main',
  ]);
});

test('after an absence what is raised stays raised, and every wait begins anew', () => {
  const { next } = judge(noAlarms, [silent(1), stale], 1_000_000);
  const anew = forgetTimes(next);
  expect(judge(anew, [silent(1), stale], 0).begun).toEqual([]);
  expect(said(10 * minute, () => [], anew)).toEqual(['5:0 bouncer.recovered bouncer 1']);
});
