// Part e: memory of the isolate that holds the feed's object and the Worker. Local workerd enforces none of
// Cloudflare's 128 MB, so its inspector is asked, also while ten start-up pulls hold their answers open at once.
import { setTimeout as delay } from 'node:timers/promises';
import type { Bench } from './bench.ts';
import { startChild } from '../lab/child.ts';
import { startLapidary } from '../lab/lapidary.ts';
import { freePort } from '../lab/ports.ts';
import { until } from '../lab/wait.ts';
import { commandOf, residentBytes } from './cpu.ts';
import { openInspector } from './inspector.ts';
import { startUp } from './startup.ts';
import { alone, type Row } from './table.ts';

const limitMb = 128;
const pullsAtOnce = 10;

/** Measures with the decisions that the engine has, then with twice as many. */
export async function measureHeap({ sizes, engine }: Bench, importMore: () => Promise<void>): Promise<Row[]> {
  const upstream = { url: engine.url, key: await engine.addBouncer('heap') };
  const lapidary = await startLapidary({ upstream, settings: { SYNC_INTERVAL_SECONDS: '10' } });
  // The same process once more, with an inspector: what `npm start` runs is not written down twice.
  const { command, env } = commandOf((await lapidary.pids()).workerd);
  await lapidary.stop();
  const port = await freePort();
  const workerd = startChild(command[0], [...command.slice(1), `--inspector-addr=127.0.0.1:${port}`], {
    env,
  });
  try {
    await until('workerd answers', async () => (await lapidary.health()).status === 'up');
    const inspector = await openInspector(port, 'lapidary');
    const key = await lapidary.addBouncer('heap');

    const rest = async () => {
      await inspector.collectGarbage(lapidary.health);
      return (await inspector.usedBytes()) / 1e6;
    };
    /** The most that was seen while `work` ran, as often as the isolate finds a turn to answer. */
    const most = async (work: () => Promise<void>) => {
      let mostMb = await rest();
      let running = true;
      const done = work().finally(() => (running = false));
      while (running) {
        mostMb = Math.max(mostMb, (await inspector.usedBytes()) / 1e6);
        await delay(2);
      }
      await done;
      return mostMb;
    };
    const synced = async (count: number) => {
      await lapidary.sync({ full: true });
      await until(`${count} are mirrored`, async () => (await lapidary.feed()).decisions === count);
    };

    const figures = async (decisions: number, below?: number) => {
      const name = `${decisions / 1000}k decisions`;
      return [
        alone(`${name}: at rest`, 'MB', await rest(), below),
        alone(`  most in ${pullsAtOnce} start-ups at once`, 'MB', await most(() => pulls(false)), below),
        alone(`  most in ${pullsAtOnce} with gzip at once`, 'MB', await most(() => pulls(true)), below),
        alone('  resident process', 'MB', residentBytes(workerd.pid) / 1e6),
      ];
    };
    /** None reads on before all have begun. */
    const pulls = async (gzip: boolean) => {
      let begun = 0;
      let release = () => {};
      const all = new Promise<void>((resolve) => (release = resolve));
      const hold = () => {
        if (++begun === pullsAtOnce) release();
        return all;
      };
      await Promise.all(Array.from({ length: pullsAtOnce }, () => startUp(lapidary.url, key, gzip, hold)));
    };

    await synced(sizes.decisions);
    const single = await figures(sizes.decisions);
    await importMore();
    const growing = await most(() => synced(2 * sizes.decisions));
    const name = `  most while ${sizes.decisions / 1000}k more come in`;
    return [...single, alone(name, 'MB', growing, limitMb), ...(await figures(2 * sizes.decisions, limitMb))];
  } finally {
    await workerd.end();
    await lapidary.close();
  }
}
