// How often D1 is asked for webhooks: when one may have come, and hardly ever while nothing changes.
import { env } from 'cloudflare:workers';
import { beforeEach, expect, test, vi } from 'vitest';
import { createTargets } from '../../src/events/targets.ts';
import { backUp, putBack } from '../support/backup.ts';
import { operator } from '../support/http.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { startReceiver, type Receiver } from '../support/receiver.ts';
import { makeWebhook, round } from '../support/webhooks.ts';

const minute = 60_000;
let engine: ModelEngine;
let ops: Receiver;

beforeEach(() => {
  engine = startModelEngine();
  ops = startReceiver('ops.example');
  vi.useFakeTimers({ toFake: ['Date'] });
});

test('while the audit log has no newer row D1 is asked once in ten minutes', async () => {
  let questions = 0;
  const counted = {
    prepare: (text: string) => {
      questions++;
      return env.DB.prepare(text);
    },
  } as D1Database;
  let head = { seq: 1, hash: 'a' };
  const read = createTargets(counted, null, () => head);
  const startMs = Date.now();
  for (let at = 0; at < 60; at++) expect(await read(startMs + at * 10_000)).toEqual([]);
  expect(questions).toBe(1);
  await read(startMs + 10 * minute);
  expect(questions).toBe(2);
  head = { seq: 2, hash: 'b' };
  await read(startMs + 10 * minute);
  expect(questions).toBe(3);
  await read(startMs - 60 * minute);
  expect(questions).toBe(4);
});

/** Makes an event, and waits until it is said. */
async function told(): Promise<string[]> {
  engine.keys = [];
  for (let at = 0; at < 6; at++) await round(10_000);
  await ops.reaches(1);
  return ops.taken();
}

test('one that is made after many rounds without any is told at once', async () => {
  for (let at = 0; at < 5; at++) await round(10_000);
  await makeWebhook('ops');
  expect(await told()).toEqual(['engine.refused']);
});

test.each([
  ['the next question of an operator', () => operator('GET', '/feed')],
  ['ten minutes', () => round(10 * minute)],
])('one that a restored D1 brings back is told after %s', async (_, passes) => {
  await makeWebhook('ops');
  const backup = await backUp();
  await operator('DELETE', '/webhooks/ops');
  for (let at = 0; at < 3; at++) await round(10_000);
  await putBack(backup);
  await passes();
  expect(await told()).toEqual(['engine.refused']);
});
