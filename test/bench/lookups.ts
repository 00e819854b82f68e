// Part c: live lookups, one address each, of which every second is banned.
import type { Bench } from './bench.ts';
import { makeLookups } from './decisions.ts';
import { load, requestBytes } from './load.ts';
import { compared, type Row } from './table.ts';

export async function measureLookups({ sizes, rows, lapi, ours }: Bench): Promise<Row[]> {
  const addresses = makeLookups(rows, 2_000);
  const requests = (key: string) => addresses.map((ip) => requestBytes(`/v1/decisions?ip=${ip}`, key));
  const mine = { url: ours.url, pid: ours.pid, requests: requests(ours.keys[0]) };
  const theirs = { url: lapi.url, pid: lapi.pid, requests: requests(lapi.keys[0]) };
  // The first one builds the index.
  await load({ ...mine, connections: 16, seconds: 1 });
  const result: Row[] = [];
  for (const connections of [1, 16]) {
    const slow = await load({ ...theirs, connections, seconds: sizes.lapiSeconds });
    const fast = await load({ ...mine, connections, seconds: sizes.lapidarySeconds });
    const atLeastRatio = connections === 16 ? 500 : undefined;
    const better = 'less';
    result.push(
      compared(`live lookups, ${connections} at once`, '/s', {
        lapi: slow.perSecond,
        lapidary: fast.perSecond,
        better: 'more',
        atLeastRatio,
      }),
      compared('  p50', 'ms', { lapi: slow.p50Ms, lapidary: fast.p50Ms, better }),
      compared('  p99', 'ms', { lapi: slow.p99Ms, lapidary: fast.p99Ms, better }),
      compared('  CPU of one', 'us', {
        lapi: slow.cpuMicrosPerRequest,
        lapidary: fast.cpuMicrosPerRequest,
        better,
      }),
    );
  }
  return result;
}
