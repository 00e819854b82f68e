// Part m: a crowd of clients before one Worker, which poll in turn: whether it is slower before more of them, and how long
// the longest pause is, beside an empty Worker's.
import { type EmptyWorker, startEmptyWorker } from '../lab/empty-worker.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import type { Sizes } from './bench.ts';
import { load, type LoadOptions, type LoadResult, requestBytes } from './load.ts';
import { alone, type Row } from './table.ts';

const path = '/v1/decisions/stream';
const addressHeader = 'x-client-address';
/** A bouncer has room for some 50,000. */
const keyCount = 8;
/** Less than either side can do on a small machine. */
const perSecond = 1_500;
const pauseRounds = 2;
/** Of a round, in the seconds that a rate is measured for: long enough for a full collection of garbage. */
const pauseLengths = 3;
const longestMs = 20;

export async function measureCrowd({ crowds, lapidarySeconds }: Sizes): Promise<Row[]> {
  const settings = { CLIENT_ADDRESS_HEADER: addressHeader, SYNC_INTERVAL_SECONDS: '10' };
  const lapidary = await startLapidary({ settings });
  const empty = await startEmptyWorker();
  try {
    const crowd = await openCrowd(lapidary, empty);
    const rows: Row[] = [];
    for (const size of crowds) {
      await crowd.growTo(size);
      const ours = await crowd.load({ seconds: lapidarySeconds });
      const floor = await crowd.loadEmpty({ seconds: lapidarySeconds / 2 });
      rows.push(
        alone(`empty polls, ${size.toLocaleString('en')} clients in turn`, '/s', ours.perSecond),
        alone('  of an empty Worker', '%', (100 * ours.perSecond) / floor.perSecond),
        alone('  CPU of one', 'us', ours.cpuMicrosPerRequest),
      );
    }
    return [...rows, ...(await pauses(lapidary, crowd, pauseLengths * lapidarySeconds))];
  } finally {
    await empty.close();
    await lapidary.close();
  }
}

/** Polls that are due at a fixed rate, with a change of the feed in each round, and as many at an empty Worker. */
async function pauses(lapidary: Lapidary, crowd: Crowd, seconds: number): Promise<Row[]> {
  let worst = 0;
  let worstEmpty = 0;
  for (let round = 0; round < pauseRounds; round++) {
    const paced = { perSecond, seconds };
    const [ours] = await Promise.all([crowd.load(paced), lapidary.ban(`192.0.2.${10 + round}`)]);
    worst = Math.max(worst, ours.worstMs);
    worstEmpty = Math.max(worstEmpty, (await crowd.loadEmpty(paced)).worstMs);
  }
  return [
    alone(`longest wait, ${perSecond.toLocaleString('en')} polls/s of them all`, 'ms', worst),
    alone('  at an empty Worker', 'ms', worstEmpty),
    alone('  more than there', 'ms', worst - worstEmpty, longestMs),
  ];
}

type Amount = Pick<LoadOptions, 'seconds' | 'perSecond'>;

interface Crowd {
  /** The new ones start up. Of an empty feed they have everything then. */
  growTo(size: number): Promise<void>;
  /** The next ones poll. */
  load(amount: Amount): Promise<LoadResult>;
  loadEmpty(amount: Amount): Promise<LoadResult>;
}

async function openCrowd(lapidary: Lapidary, empty: EmptyWorker): Promise<Crowd> {
  const keys: string[] = [];
  for (let at = 0; at < keyCount; at++) keys.push(await lapidary.addBouncer(`crowd-${at}`));
  const pollOf = (at: number, query = ''): Buffer => {
    const headers = { [addressHeader]: addressOf(at) };
    return requestBytes(path + query, keys[at % keyCount] as string, 'GET', headers);
  };
  const target = { url: lapidary.url, pid: (await lapidary.pids()).workerd, connections: 16 };
  let polls: Buffer[] = [];
  return {
    async growTo(size) {
      const come = Array.from({ length: size - polls.length }, (_, at) => polls.length + at);
      const requests = come.map((at) => pollOf(at, '?startup=true'));
      await load({ ...target, count: requests.length, requests });
      polls = [...polls, ...come.map((at) => pollOf(at))];
    },
    async load(amount) {
      const result = await load({ ...target, ...amount, requests: polls });
      const next = result.answered % polls.length;
      polls = [...polls.slice(next), ...polls.slice(0, next)];
      return result;
    },
    loadEmpty: (amount) => load({ ...target, url: empty.url, pid: empty.pid, ...amount, requests: polls }),
  };
}

function addressOf(at: number): string {
  return `2001:db8::${(1 + (at >> 16)).toString(16)}:${(at & 0xffff).toString(16)}`;
}
