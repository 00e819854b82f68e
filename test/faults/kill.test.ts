// SIGKILL to Lapidary's processes, in mid-sync and in mid-write: what was acknowledged is there afterwards, and a
// bouncer that only polls on loses no change. And how the supervisor keeps house.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { isRunning, type Lapidary, runStart, startLapidary } from '../lab/lapidary.ts';
import { type Liar, sendHalfAndWait, startLiar } from '../lab/liar.ts';
import { freePort } from '../lab/ports.ts';
import { type Poller, pullList, pullStream, startPoller, valuesOf } from '../lab/poller.ts';
import { until } from '../lab/wait.ts';
import { writersOf } from '../lab/writers.ts';

/** KILL_ROUNDS asks for more kills in mid-write. */
const rounds = Number(process.env['KILL_ROUNDS'] ?? 1);

const victims = ['supervisor', 'workerd', undefined] as const;
const nameOf = (victim: (typeof victims)[number]) => victim ?? 'supervisor and workerd';

/** The supervisor brings a killed workerd back; a killed supervisor is started again by whoever started it. */
async function comeBack(lapidary: Lapidary): Promise<void> {
  const { supervisor } = await lapidary.pids();
  if (!isRunning(supervisor)) await lapidary.start();
  await until('lapidary answers', async () => (await lapidary.health()).status === 'up');
}

describeWith('a kill of lapidary', ['lab'], () => {
  let engine: Engine;
  let liar: Liar;
  let lapidary: Lapidary;
  let polling: Poller;

  beforeEach(async () => {
    engine = await startEngine();
    liar = await startLiar(engine);
    const upstream = { url: liar.url, key: await engine.addBouncer('lapidary') };
    lapidary = await startLapidary({ upstream });
    polling = startPoller({ url: lapidary.url, key: await lapidary.addBouncer('polling') });
    await polling.untilAnswered(1);
  });
  afterEach(async () => {
    await polling?.stop();
    await lapidary?.close();
    await liar?.close();
    await engine?.close();
  });

  const network = (group: number, count: number) =>
    Array.from({ length: count }, (_, index) => `2001:db8:${group}::${(index + 1).toString(16)}`);

  async function importBans(values: string[]) {
    const row = { duration: '24h', scope: 'ip', type: 'ban', reason: 'lab' };
    await engine.importDecisions(values.map((value) => ({ ...row, value })));
  }

  async function untilSame(expected: string[]) {
    await until(`the poller has exactly the ${expected.length} of the engine`, (saw) => {
      const has = polling.values();
      saw([has.size, expected.filter((value) => !has.has(value)).slice(0, 5), polling.failures().slice(-2)]);
      return has.size === expected.length && expected.every((value) => has.has(value));
    });
  }

  it.each(victims.map((victim) => [nameOf(victim), victim] as const))(
    'in mid-sync: %s',
    async (_, victim) => {
      let banned = network(0, 500);
      await importBans(banned);
      // A delta that was pulled while they were imported may have passed some of them by.
      await lapidary.sync({ full: true });
      await untilSame(banned);

      // Killed while an answer streams in, of which the engine believes that it was delivered.
      liar.lie(sendHalfAndWait);
      const streams = liar.asked('stream');
      await until('a sync hangs in mid-answer', () => liar.asked('stream') > streams);
      await importBans(network(1, 1000));
      await engine.unban(banned[0]!);
      await lapidary.kill(victim);
      liar.tellTheTruth();
      banned = [...banned.slice(1), ...network(1, 1000)];
      await comeBack(lapidary);
      await untilSame(banned);

      // Killed while the feed writes down what it has read.
      for (const group of [2, 3]) {
        const gone = banned[group]!;
        await importBans(network(group, 1500));
        await engine.unban(gone);
        const answered = liar.answered('stream');
        void lapidary.sync().catch(() => undefined);
        await until('the delta is sent', () => liar.answered('stream') > answered);
        await lapidary.kill(victim);
        await comeBack(lapidary);
        banned = [...banned.filter((value) => value !== gone), ...network(group, 1500)];
        await untilSame(banned);
      }
      expect(valuesOf(await pullList({ url: engine.url, key: await engine.addBouncer('direct') }))).toEqual(
        [...banned].sort(),
      );
    },
  );

  it.each(victims.map((victim) => [nameOf(victim), victim] as const))(
    'in mid-write: %s',
    async (_, victim) => {
      const writers = writersOf(lapidary);
      const { banned, unbanned, keys, uncertain } = writers;

      for (let round = 1; round <= rounds; round++) {
        const target = banned.length + 60;
        const writing = writers.start(3);
        await until(`${target} bans are acknowledged`, () => banned.length >= target);
        await lapidary.kill(victim);
        await writing.stop();
        await comeBack(lapidary);

        expect(keys.length).toBeGreaterThan(0);
        const lists = await Promise.all(keys.map((key) => pullList({ url: lapidary.url, key })));
        for (const list of lists) {
          // What was under way when the connection broke may have come to pass or not.
          const served = valuesOf(list).filter((value) => !uncertain.has(value));
          expect(served).toEqual([...banned].sort());
        }
        const certain = () => [...polling.values()].filter((value) => !uncertain.has(value)).sort();
        await until('the poller has what was acknowledged', (saw) => {
          const has = certain();
          saw([has.length, banned.length, unbanned.filter((value) => has.includes(value))]);
          return JSON.stringify(has) === JSON.stringify([...banned].sort());
        });
      }
      expect(unbanned.length).toBeGreaterThan(0);
    },
  );

  it('of the supervisor alone leaves workerd serving; the next start takes over', async () => {
    await engine.ban('192.0.2.1');
    await polling.untilHas({ banned: ['192.0.2.1'] });
    const before = await lapidary.pids();
    await lapidary.kill('supervisor');
    expect(isRunning(before.workerd)).toBe(true);
    await polling.untilAnswered(3);
    expect(polling.failures()).toEqual([]);

    await lapidary.start();
    const after = await lapidary.pids();
    expect(isRunning(before.workerd)).toBe(false);
    expect(after.workerd).not.toBe(before.workerd);
    await engine.ban('192.0.2.2');
    await polling.untilHas({ banned: ['192.0.2.1', '192.0.2.2'] });
  });

  it('of workerd alone is mended by the supervisor', async () => {
    await engine.ban('192.0.2.1');
    await polling.untilHas({ banned: ['192.0.2.1'] });
    const before = await lapidary.pids();
    await lapidary.kill('workerd');
    await until('another workerd serves', async () => {
      const { supervisor, workerd } = await lapidary.pids();
      expect(supervisor).toBe(before.supervisor);
      return workerd !== before.workerd && isRunning(workerd) && (await lapidary.health()).status === 'up';
    });
    await engine.ban('192.0.2.2');
    await polling.untilHas({ banned: ['192.0.2.1', '192.0.2.2'] });
  });
});

describe('the supervisor', () => {
  let lapidary: Lapidary;
  beforeEach(async () => {
    lapidary = await startLapidary();
  });
  afterEach(() => (lapidary as Lapidary | undefined)?.close());

  it('leaves no process after SIGTERM', async () => {
    const { supervisor, workerd } = await lapidary.pids();
    expect([isRunning(supervisor), isRunning(workerd)]).toEqual([true, true]);
    await lapidary.stop();
    expect([isRunning(supervisor), isRunning(workerd)]).toEqual([false, false]);
    await expect(fetch(`${lapidary.url}/health`)).rejects.toThrow();
  });

  it('leaves no process when SIGTERM comes while it brings workerd back', async () => {
    await lapidary.kill('workerd');
    await lapidary.stop();
    const { workerd } = await lapidary.pids().catch(() => ({ workerd: 0 }));
    expect(isRunning(workerd)).toBe(false);
    await expect(fetch(`${lapidary.url}/health`)).rejects.toThrow();
  });

  it('refuses a state that another one uses, which goes on', async () => {
    const key = await lapidary.addBouncer('first');
    await lapidary.ban('192.0.2.1');
    const second = runStart(lapidary.stateDir, await freePort());
    expect(await second.exit).toBe(1);
    expect(second.log()).toContain('is in use by another npm start');
    const answer = await pullStream({ url: lapidary.url, key }, 'startup=true');
    expect(valuesOf(answer.new)).toEqual(['192.0.2.1']);
    // Nor has the second one taken the first one's place in the state.
    const { supervisor, workerd } = await lapidary.pids();
    expect([isRunning(supervisor), isRunning(workerd)]).toEqual([true, true]);
  });
});
