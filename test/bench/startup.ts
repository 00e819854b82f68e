// Part b: a full start-up pull. The first one of a kind is told apart from those that follow it.
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import type { Bench, Side } from './bench.ts';
import { compared, median, type Row } from './table.ts';

/** As long as a gzipped answer is kept, and a moment. */
const gzipForgottenMs = 5_500;

export interface Pull {
  firstByteMs: number;
  lastByteMs: number;
  /** As they came: compressed, if they were. */
  bytes: number;
}

/** `hold`: called at the first bytes; no more are read until it resolves. */
export async function startUp(
  url: string,
  key: string,
  gzip: boolean,
  hold?: () => Promise<void>,
): Promise<Pull> {
  const startedMs = performance.now();
  const headers = { 'x-api-key': key, 'user-agent': 'bench/v1', ...(gzip && { 'accept-encoding': 'gzip' }) };
  const request = get(`${url}/v1/decisions/stream?startup=true`, { headers, agent: false });
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  if (response.statusCode !== 200) throw new Error(`a start-up was answered with ${response.statusCode}`);
  let firstByteMs = 0;
  let bytes = 0;
  for await (const chunk of response) {
    if (bytes === 0) {
      firstByteMs = performance.now() - startedMs;
      await hold?.();
    }
    bytes += (chunk as Buffer).length;
  }
  return { firstByteMs, lastByteMs: performance.now() - startedMs, bytes };
}

/** To be measured before anything else has pulled. */
export async function measureStartUps({ sizes, lapi, ours }: Bench): Promise<Row[]> {
  const theirs = await several(lapi, false, sizes.pulls);
  const plain = await several(ours, false, sizes.pulls);
  const theirsGzip = await several(lapi, true, sizes.pulls);
  // Nobody has asked for gzip in the last seconds: what a bouncer that starts alone meets.
  const cold: Pull[] = [];
  for (let pull = 0; pull < sizes.coldPulls; pull++) {
    if (pull > 0) await delay(gzipForgottenMs);
    cold.push(await startUp(ours.url, ours.keys[0], true));
  }
  const warm = await several(ours, true, sizes.pulls);
  return [
    ...rowsOf('start-up', theirs, plain, { atLeastRatio: 8 }),
    ...rowsOf('start-up with gzip, just made', theirsGzip, cold, { atLeastRatio: 8, bytesRatio: 8 }),
    ...rowsOf('start-up with gzip, kept', theirsGzip, warm, { atLeastRatio: 8, bytesRatio: 8 }),
  ];
}

async function several({ url, keys }: Side, gzip: boolean, count: number): Promise<Pull[]> {
  const pulls: Pull[] = [];
  for (let pull = 0; pull < count; pull++) pulls.push(await startUp(url, keys[0], gzip));
  return pulls;
}

function rowsOf(
  name: string,
  theirs: readonly Pull[],
  mine: readonly Pull[],
  targets: { atLeastRatio?: number; bytesRatio?: number },
): Row[] {
  const pair = (read: (pull: Pull) => number) => {
    return { lapi: median(theirs.map(read)), lapidary: median(mine.map(read)), better: 'less' as const };
  };
  const last = pair((pull) => pull.lastByteMs);
  const bytes = pair((pull) => pull.bytes / 1e6);
  return [
    compared(
      `${name}: first byte`,
      'ms',
      pair((pull) => pull.firstByteMs),
    ),
    compared('  last byte', 'ms', { ...last, atLeastRatio: targets.atLeastRatio }),
    compared('  last byte of the very first', 'ms', {
      lapi: theirs[0].lastByteMs,
      lapidary: mine[0].lastByteMs,
      better: 'less',
    }),
    compared('  bytes', 'MB', { ...bytes, atLeastRatio: targets.bytesRatio }),
  ];
}
