// Ours beside an empty Worker: what workerd itself takes for a request and an answer of the same kind. In turns, so that
// whatever else the machine does falls on both. The medians of the ratios; a shared machine disturbs a round or two.
import { startEmptyWorker } from '../lab/empty-worker.ts';
import { load, type LoadOptions, type LoadResult } from './load.ts';
import { alone, median, type Row } from './table.ts';

const rounds = 5;

/** `least`: the ratios to be reached, of the rate and of the CPU of one. */
export async function besideEmpty(
  what: string,
  ours: Pick<LoadOptions, 'url' | 'pid' | 'requests' | 'seconds'>,
  least: { rate: number; cpu: number },
): Promise<Row[]> {
  const worker = await startEmptyWorker();
  try {
    const mine = { ...ours, connections: 16 };
    const theirs = { ...mine, url: worker.url, pid: worker.pid };
    await load(theirs);
    await load(mine);
    const turns: { floor: LoadResult; mine: LoadResult }[] = [];
    for (let round = 0; round < rounds; round++) {
      turns.push({ floor: await load(theirs), mine: await load(mine) });
    }
    const medianOf = (figure: (turn: (typeof turns)[0]) => number) => median(turns.map(figure));
    const beside = (name: string, unit: string, lapidary: number, ratio: number, atLeastRatio: number) => {
      return { what: name, unit, lapidary, ratio, target: { atLeastRatio }, met: ratio >= atLeastRatio };
    };
    return [
      alone(
        'an empty Worker beside it, 16 at once',
        '/s',
        medianOf(({ floor }) => floor.perSecond),
      ),
      alone(
        '  CPU of one',
        'us',
        medianOf(({ floor }) => floor.cpuMicrosPerRequest),
      ),
      beside(
        `${what} in turn with it`,
        '/s',
        medianOf(({ mine }) => mine.perSecond),
        medianOf(({ floor, mine }) => mine.perSecond / floor.perSecond),
        least.rate,
      ),
      beside(
        '  CPU of one',
        'us',
        medianOf(({ mine }) => mine.cpuMicrosPerRequest),
        medianOf(({ floor, mine }) => floor.cpuMicrosPerRequest / mine.cpuMicrosPerRequest),
        least.cpu,
      ),
    ];
  } finally {
    await worker.close();
  }
}
