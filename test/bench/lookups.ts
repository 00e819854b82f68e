// Part c: live lookups, one address each: first every second is banned, then none is, as in nearly all that bouncers ask.
import type { Bench } from './bench.ts';
import { besideEmpty } from './beside.ts';
import { makeLookups, makeUnbanned } from './decisions.ts';
import { load, requestBytes } from './load.ts';
import { compared, type Row } from './table.ts';

export async function measureLookups({ sizes, rows, lapi, ours }: Bench): Promise<Row[]> {
  const addresses = makeLookups(rows, 2_000);
  const requests = (key: string, of = addresses) =>
    of.map((ip) => requestBytes(`/v1/decisions?ip=${ip}`, key));
  const mine = { url: ours.url, pid: ours.pid, requests: requests(ours.keys[0]) };
  const theirs = { url: lapi.url, pid: lapi.pid, requests: requests(lapi.keys[0]) };
  // After the first one this isolate has the filter.
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
  const unbanned = { ...mine, requests: requests(ours.keys[0], makeUnbanned(20_000)) };
  const seconds = sizes.lapidarySeconds / 2;
  const least = { rate: 0.65, cpu: 0.6 };
  return [
    ...result,
    ...(await besideEmpty('look-ups of what nothing bans', { ...unbanned, seconds }, least)),
  ];
}
