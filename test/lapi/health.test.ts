// `/health` as a crowd of strangers asks for it: the feed is asked once a second, and nobody is told what nobody knows.
import { env } from 'cloudflare:workers';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { forgetLatest } from '../../src/feed/client.ts';
import { startModelEngine } from '../support/model-engine.ts';
import { serveWith } from '../support/edge.ts';
import { waitUntil } from '../support/patience.ts';

beforeEach(() => {
  startModelEngine();
  forgetLatest(Date.now());
  vi.useFakeTimers({ toFake: ['Date'] });
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const pass = (ms: number): void => void vi.setSystemTime(Date.now() + ms);

let asked: number;
let reached: () => Promise<void>;

/** Asks through this isolate, whose way to the feed is `reached`. */
async function health() {
  const { DECISION_FEED } = env;
  const counted = {
    getByName(name: string) {
      asked++;
      const feed = DECISION_FEED.getByName(name);
      return { status: () => reached().then(() => feed.status()) };
    },
  };
  const response = await serveWith({ ...env, DECISION_FEED: counted }, '/health');
  return { status: response.status, body: await response.json() };
}

beforeEach(() => {
  asked = 0;
  reached = async () => undefined;
});

const up = { status: 200, body: expect.objectContaining({ status: 'up' }) as unknown };
const outOfReach = { status: 503, body: { message: 'the feed is out of reach; try again' } };

test('a thousand questions in a second are one to the feed, also those that come while it is asked', async () => {
  const opened = Promise.withResolvers<void>();
  reached = () => opened.promise;
  const answers = Array.from({ length: 500 }, health);
  await waitUntil(() => asked === 1);
  opened.resolve();
  expect(await Promise.all(answers)).toEqual(Array(500).fill(up));
  for (let i = 0; i < 500; i++) await health();
  expect(asked).toBe(1);
  pass(1_000);
  expect(await health()).toEqual(up);
  expect(asked).toBe(2);
});

test('a feed that is out of reach is not called up for longer than the second', async () => {
  vi.spyOn(console, 'error').mockReturnValue(undefined);
  expect(await health()).toEqual(up);
  reached = () => Promise.reject(new Error('gone'));
  pass(999);
  expect(await health()).toEqual(up);
  pass(1);
  expect(await health()).toEqual(outOfReach);
  reached = async () => undefined;
  pass(1_000);
  expect(await health()).toEqual(up);
  expect(asked).toBe(3);
});

test('a question whose asker has no answer for a second is asked anew by the next', async () => {
  const opened = Promise.withResolvers<void>();
  reached = () => opened.promise;
  const first = health();
  await waitUntil(() => asked === 1);
  const second = health();
  reached = async () => undefined;
  pass(1_000);
  expect(await second).toEqual(up);
  expect(asked).toBe(2);
  opened.resolve();
  expect(await first).toEqual(up);
});
