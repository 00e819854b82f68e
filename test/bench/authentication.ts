// Part f: what it costs to know who polls. CPU by difference: workerd's clock stands still while code runs, and a
// request without a key is refused at the very place where the key would be looked at. HEAD, so that nothing else is done.
import { createHash, randomBytes } from 'node:crypto';
import type { Bench } from './bench.ts';
import { load, type LoadResult, requestBytes } from './load.ts';
import { alone, type Row } from './table.ts';

const path = '/v1/decisions/stream';
const rounds = 5;
/** What one import takes. */
const mostImported = 1_000;

export async function measureAuthentication(bench: Bench): Promise<Row[]> {
  const { sizes, ours } = bench;
  const { url, pid } = ours;
  const seconds = sizes.lapidarySeconds / 4;
  const run = async (connections: number, keys: readonly string[], once = false): Promise<LoadResult> => {
    const requests = keys.map((key) => requestBytes(path, key, 'HEAD'));
    const status = keys[0] === '' ? 403 : 200;
    const end = once ? { count: keys.length } : { seconds };
    return load({ url, pid, connections, requests, status, ...end });
  };

  // In turns, so that whatever else the machine does falls on all three.
  const none: LoadResult[] = [];
  const known: LoadResult[] = [];
  const lookedUp: LoadResult[] = [];
  for (let round = 0; round < rounds; round++) {
    none.push(await run(16, ['']));
    known.push(await run(16, ours.keys));
    lookedUp.push(await run(16, await newKeys(bench, `cpu-${round}`), true));
  }
  const [first, second, third] = [none, known, lookedUp].map(cpuMicros);

  const oneNone = await run(1, ['']);
  const oneKnown = await run(1, ours.keys);
  const oneLookedUp = await run(1, await newKeys(bench, 'alone'), true);
  const longer = (result: LoadResult) => (result.p50Ms - oneNone.p50Ms) * 1000;
  return [
    alone('knowing who polls, key remembered: CPU', 'us', second - first),
    alone('  longer than without a key, p50', 'us', longer(oneKnown)),
    alone("key looked up in D1: CPU, D1's own included", 'us', third - first),
    alone('  longer than without a key, p50', 'us', longer(oneLookedUp)),
  ];
}

function cpuMicros(results: readonly LoadResult[]): number {
  const answered = results.reduce((sum, result) => sum + result.answered, 0);
  return results.reduce((sum, result) => sum + result.cpuMicrosPerRequest * result.answered, 0) / answered;
}

/** Keys of as many bouncers that no isolate has seen: each is looked up at its first use. */
async function newKeys({ sizes, lapidary }: Bench, name: string): Promise<string[]> {
  const keys = Array.from({ length: sizes.newKeys }, () => randomBytes(32).toString('hex'));
  for (let from = 0; from < keys.length; from += mostImported) {
    const bouncers = keys.slice(from, from + mostImported).map((key, at) => ({
      name: `${name}-${from + at}`,
      api_key: createHash('sha512').update(key).digest('hex'),
    }));
    const { status, body } = await lapidary.operator('POST', '/bouncers/import', { bouncers });
    if (status !== 200) throw new Error(`the import was answered ${status}: ${JSON.stringify(body)}`);
  }
  return keys;
}
