// Part a: empty delta polls, which is what bouncers send nearly always. The last rows show where such a poll's
// time goes, and what it costs when the feed has moved.
import type { Bench, Side } from './bench.ts';
import { startEmptyWorker } from '../lab/empty-worker.ts';
import { besideEmpty } from './beside.ts';
import { load, type LoadResult, requestBytes } from './load.ts';
import { startUp } from './startup.ts';
import { alone, compared, type Row } from './table.ts';

const path = '/v1/decisions/stream';
/** Longer than any head with LAPI's or our empty lists, shorter than one with a decision. */
const emptyBytes = 420;
const pollsUntilSettled = 3;

export async function measurePolls(bench: Bench): Promise<Row[]> {
  const { sizes, lapi, ours } = bench;
  for (const { url, keys } of [lapi, ours]) {
    await startUp(url, keys[0], false);
    await poll(url, keys[0]);
  }
  await polls(ours, 16, 1);
  const rows: Row[] = [];
  for (const connections of [1, 16, 64]) {
    const theirs = await polls(lapi, connections, sizes.lapiSeconds);
    const mine = await polls(ours, connections, sizes.lapidarySeconds);
    for (const { mostBytes } of [theirs, mine]) {
      if (mostBytes > emptyBytes) throw new Error(`a poll was not empty: ${mostBytes} bytes`);
    }
    const name = `empty polls, ${connections} at once`;
    const atLeastRatio = connections === 16 ? 300 : undefined;
    rows.push(
      compared(name, '/s', {
        lapi: theirs.perSecond,
        lapidary: mine.perSecond,
        better: 'more',
        atLeastRatio,
      }),
      compared('  p50', 'ms', { lapi: theirs.p50Ms, lapidary: mine.p50Ms, better: 'less' }),
      compared('  p99', 'ms', { lapi: theirs.p99Ms, lapidary: mine.p99Ms, better: 'less' }),
    );
    if (connections === 16) rows.push(cpuRow(theirs, mine));
  }
  const { url, pid, keys } = ours;
  const shared = { url, pid, requests: [requestBytes(path, keys[0])], seconds: sizes.lapidarySeconds / 2 };
  const beside = await besideEmpty('empty polls', shared, { rate: 0.75, cpu: 0.68 });
  const more = [beside, await waits(bench), await costs(bench), await movedFeed(bench)];
  return [...rows, ...more.flat()];
}

function polls({ url, pid, keys }: Side, connections: number, seconds: number): Promise<LoadResult> {
  return load({ url, pid, connections, seconds, requests: [requestBytes(path, keys[0])] });
}

function cpuRow(theirs: LoadResult, mine: LoadResult): Row {
  return compared('  CPU of one', 'us', {
    lapi: theirs.cpuMicrosPerRequest,
    lapidary: mine.cpuMicrosPerRequest,
    better: 'less',
  });
}

/** What a bouncer waits for its answer when the machine is idle between two polls, beside an empty Worker. */
async function waits({ sizes, ours }: Bench): Promise<Row[]> {
  const worker = await startEmptyWorker();
  try {
    const floor = await steady({ ...worker, keys: ours.keys }, sizes.lapidarySeconds);
    const mine = await steady(ours, sizes.lapidarySeconds);
    return [
      alone('500 a second: p99 of the empty Worker', 'ms', floor.p99Ms),
      alone('  p99 of empty polls, from when each was due', 'ms', mine.p99Ms, 5),
    ];
  } finally {
    await worker.close();
  }
}

function steady({ url, pid, keys }: Side, seconds: number): Promise<LoadResult> {
  return load({
    url,
    pid,
    connections: 16,
    seconds,
    requests: [requestBytes(path, keys[0])],
    perSecond: 500,
  });
}

/** What a poll's CPU time is made of: without a key there is HTTP and routing alone, HEAD is that and the key. */
async function costs({ sizes, ours }: Bench): Promise<Row[]> {
  const { url, pid, keys } = ours;
  const shared = { url, pid, connections: 16, seconds: sizes.lapidarySeconds / 2 };
  const refused = await load({ ...shared, requests: [requestBytes(path, '')], status: 403 });
  const known = await load({ ...shared, requests: [requestBytes(path, keys[0], 'HEAD')] });
  return [
    alone('  CPU of one without a key: routing', 'us', refused.cpuMicrosPerRequest),
    alone('  CPU of a HEAD: that and the key', 'us', known.cpuMicrosPerRequest),
  ];
}

/** After each change every bouncer is given it twice. The isolate asks the feed's object once for all of them. */
async function movedFeed(bench: Bench): Promise<Row[]> {
  const { lapidary, ours } = bench;
  const { url, pid, keys } = ours;
  for (const key of keys) await startUp(url, key, true);
  const requests = keys.map((key) => requestBytes(path, key));
  const results: LoadResult[] = [];
  for (let change = 0; change < 10; change++) {
    await lapidary.ban(`192.0.2.${change}/32`);
    const count = keys.length * pollsUntilSettled;
    results.push(await load({ url, pid, connections: 16, count, requests }));
    await lapidary.unban(`192.0.2.${change}/32`);
  }
  const answered = results.reduce((sum, result) => sum + result.answered, 0);
  const seconds = results.reduce((sum, result) => sum + result.answered / result.perSecond, 0);
  const cpuMicros = results.reduce((sum, result) => sum + result.cpuMicrosPerRequest * result.answered, 0);
  return [
    alone('polls after a change, 16 at once', '/s', answered / seconds),
    alone('  p99', 'ms', Math.max(...results.map((result) => result.p99Ms))),
    alone('  CPU of one', 'us', cpuMicros / answered),
  ];
}

async function poll(url: string, key: string): Promise<void> {
  const response = await fetch(url + path, { headers: { 'x-api-key': key } });
  await response.text();
}
