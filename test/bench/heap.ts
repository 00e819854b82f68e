// Parts e and i: memory of the isolate that holds the feed's object and the Worker, against Cloudflare's 128 MB: also while ten
// start-up pulls hold their answers open at once, and with everything that is bounded at its bound.
import { insertDecisions, openDatabase } from '../lab/database.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { until } from '../lab/wait.ts';
import type { Bench, Sizes } from './bench.ts';
import { makeDecisions } from './decisions.ts';
import { load, requestBytes } from './load.ts';
import { alone, type Row } from './table.ts';
import { limitMb, watch, type Watched } from './watched.ts';

/** With the decisions that the engine has, then with twice as many. */
export async function measureHeap({ sizes, engine }: Bench, importMore: () => Promise<void>): Promise<Row[]> {
  return withWatched(engine, {}, async (lapidary, watched) => {
    const key = await lapidary.addBouncer('heap');
    await synced(lapidary, sizes.decisions);
    const single = await watched.figures(nameOf(sizes.decisions), key);
    await importMore();
    const growing = await watched.most(() => synced(lapidary, 2 * sizes.decisions));
    return [
      ...single,
      alone(`  most while ${thousands(sizes.decisions)} more come in`, 'MB', growing, limitMb),
      ...(await watched.figures(nameOf(2 * sizes.decisions), key, limitMb)),
    ];
  });
}

/** With as many ends, clients and decisions as the object takes. */
export async function measureBounds(sizes: Sizes): Promise<Row[]> {
  const engine = await startEngine();
  try {
    const most = { MAX_DECISIONS: String(Math.max(sizes.tombstones, sizes.ceiling)) };
    return await withWatched(engine, most, async (lapidary, watched) => {
      const all = makeDecisions(sizes.tombstones + 2 * sizes.ceiling).map(({ value }) => ({
        value,
        seconds: 24 * 3600,
      }));
      const replaceAll = async (from: number, to: number) => {
        const database = openDatabase(engine);
        database.exec('DELETE FROM decisions');
        database.close();
        insertDecisions(engine, all.slice(from, to));
        await lapidary.sync({ full: true, force: true });
        await synced(lapidary, to - from);
      };
      await replaceAll(0, sizes.tombstones);
      await replaceAll(0, 0);
      const keys = await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map((at) => lapidary.addBouncer(`heap-${at}`)));
      const requests = Array.from({ length: sizes.clients }, (_, at) => {
        const address = `2001:db8::${(1 + (at >> 16)).toString(16)}:${(at & 0xffff).toString(16)}`;
        const key = keys[at % keys.length] as string;
        return requestBytes('/v1/decisions/stream', key, 'GET', {
          [addressHeader]: address,
          'User-Agent': userAgent,
        });
      });
      await load({
        url: lapidary.url,
        requests,
        connections: 32,
        count: requests.length,
        pid: watched.pid(),
      });
      const { tombstones, cursors } = await lapidary.feed();
      const bounds = `${thousands(tombstones)} ends, ${thousands(cursors)} clients`;
      const empty = alone(`${bounds}: at rest`, 'MB', await watched.rest());
      const first = sizes.tombstones + sizes.ceiling;
      const growing = await watched.most(() => replaceAll(sizes.tombstones, first));
      const figures = await watched.figures(
        `${nameOf(sizes.ceiling)} beside them`,
        keys[0] as string,
        limitMb,
      );
      const replacing = await watched.most(() => replaceAll(first, first + sizes.ceiling));
      await until('the oldest ends are forgotten', async () => {
        return (await lapidary.feed()).tombstones <= Math.max(1.1 * sizes.tombstones, sizes.ceiling);
      });
      const young = thousands((await lapidary.feed()).tombstones);
      const replaced = await watched.figures(
        `replaced by as many, ${young} ends`,
        keys[0] as string,
        limitMb,
      );
      await watched.restart();
      const written = (await lapidary.feed()).cursors;
      const woken = `  woken again, ${thousands(written)} clients of them in storage: at rest`;
      return [
        empty,
        alone(`  most while ${thousands(sizes.ceiling)} decisions come in`, 'MB', growing, limitMb),
        ...figures,
        alone(`  most while as many take their place`, 'MB', replacing, limitMb),
        ...replaced,
        alone(woken, 'MB', await watched.rest(), limitMb),
      ];
    });
  } finally {
    await engine.close();
  }
}

const addressHeader = 'x-client-address';
/** As long as most: it counts. */
const userAgent =
  'crowdsec-firewall-bouncer/v0.0.31-debian-pragmatic-amd64-4b99c161b2c1837d76c5fa89e1df83803dfbcb87';

async function withWatched(
  engine: Engine,
  more: Record<string, string>,
  work: (lapidary: Lapidary, watched: Watched) => Promise<Row[]>,
): Promise<Row[]> {
  const upstream = { url: engine.url, key: await engine.addBouncer('heap') };
  const settings = { SYNC_INTERVAL_SECONDS: '10', CLIENT_ADDRESS_HEADER: addressHeader, ...more };
  const lapidary = await startLapidary({ upstream, settings });
  let watched: Watched | undefined;
  try {
    watched = await watch(lapidary);
    return await work(lapidary, watched);
  } finally {
    await watched?.end();
    await lapidary.close();
  }
}

async function synced(lapidary: Lapidary, count: number): Promise<void> {
  await lapidary.sync({ full: true });
  await until(`${count} are mirrored`, async () => (await lapidary.feed()).decisions === count, 60_000);
}

function nameOf(decisions: number): string {
  return `${thousands(decisions)} decisions`;
}

function thousands(count: number): string {
  return `${Math.round(count / 1000)}k`;
}
