// `npm start` ended under load in every way that there is, again and again: what was acknowledged is there afterwards,
// each answer that a bouncer got was a whole one, and the next start serves.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { isRunning, type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { type Poller, pullList, startPoller, valuesOf } from '../lab/poller.ts';
import { until } from '../lab/wait.ts';
import { writersOf } from '../lab/writers.ts';

/** STOP_ROUNDS asks for more of them; each takes some five seconds. */
const rounds = Number(process.env['STOP_ROUNDS'] ?? 8);

let lapidary: Lapidary;
let pollers: Poller[];
beforeAll(async () => {
  lapidary = await startLapidary();
  pollers = [];
  for (const startup of [true, false]) {
    const key = await lapidary.addBouncer(`polling-${startup}`);
    pollers.push(startPoller({ url: lapidary.url, key }, { startup }));
  }
});
afterAll(async () => {
  await Promise.all((pollers ?? []).map((each) => each.stop()));
  await lapidary?.close();
});

/** Each leaves nothing running, or what the next start has to take over. */
const ends: Record<string, () => Promise<void>> = {
  async SIGTERM() {
    const { supervisor, workerd } = await lapidary.pids();
    await lapidary.stop();
    expect([isRunning(supervisor), isRunning(workerd)]).toEqual([false, false]);
  },
  'SIGKILL to both': () => lapidary.kill(),
  'SIGKILL to the supervisor alone': () => lapidary.kill('supervisor'),
};

it(
  'loses nothing',
  async () => {
    const writers = writersOf(lapidary);
    const { banned, unbanned, keys, uncertain } = writers;
    const certain = (values: Iterable<string>) => [...values].filter((value) => !uncertain.has(value)).sort();
    for (let round = 0; round < rounds; round++) {
      const [name, end] = Object.entries(ends)[round % 3]!;
      const writing = writers.start(4);
      const target = banned.length + 50;
      await until(`${target} bans are acknowledged`, () => banned.length >= target);
      await end();
      // Where workerd serves on, the next start ends it under the writers' hands.
      await lapidary.start();
      await writing.stop();

      const expected = [...banned].sort();
      for (const key of keys.slice(-4)) {
        const list = await pullList({ url: lapidary.url, key });
        expect(certain(valuesOf(list)), `after ${name}`).toEqual(expected);
      }
      await until('the pollers have the same', (saw) => {
        const has = pollers.map((each) => certain(each.values()));
        saw(has.map((each) => [each.length, expected.length]));
        return has.every((each) => JSON.stringify(each) === JSON.stringify(expected));
      });
    }
    expect(unbanned.length).toBeGreaterThan(0);
    expect((await lapidary.operator('GET', '/audit/verify')).status).toBe(200);
    // A connection may be refused or lost; an answer is never half of one, nor a refusal.
    const refused = pollers.flatMap((each) => each.failures()).filter((why) => /status|JSON/.test(why));
    expect(refused).toEqual([]);
  },
  (rounds * 15 + 60) * 1000,
);
