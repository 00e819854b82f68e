// Part d: what the engine does for many bouncers that poll on their interval: asked directly, then through
// Lapidary by as many and by a tenth of them.
import { once } from 'node:events';
import { Agent, get, type IncomingMessage } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import type { Bench, Side } from './bench.ts';
import { cpuSeconds } from './cpu.ts';
import { startUp } from './startup.ts';
import { alone, compared, type Row } from './table.ts';

interface Work {
  /** Of the engine, each per minute. */
  requests: number;
  cpuSeconds: number;
  /** Of Lapidary. */
  ownCpuSeconds: number;
}

const resyncsPerMinute = 1 / 5;

export async function measureBouncers(bench: Bench): Promise<Row[]> {
  const { lapi, ours } = bench;
  const many = ours.keys.length;
  const few = many / 10;
  const direct = await watch(bench, lapi, many);
  // The next full list is due in five minutes: none falls into a window by chance. Its price is added instead.
  const before = cpuSeconds(lapi.pid);
  await bench.lapidary.sync({ full: true });
  const fullSeconds = cpuSeconds(lapi.pid) - before;
  for (const key of ours.keys) await startUp(ours.url, key, true);
  const throughMany = await watch(bench, ours, many);
  const throughFew = await watch(bench, ours, few);
  const withFull = (work: Work) => work.cpuSeconds + resyncsPerMinute * fullSeconds;
  return [
    compared(`engine requests, ${many} bouncers`, '/min', {
      lapi: direct.requests,
      lapidary: throughMany.requests,
      better: 'less',
    }),
    compared(`engine CPU, ${many} bouncers`, 's/min', {
      lapi: direct.cpuSeconds,
      lapidary: throughMany.cpuSeconds,
      better: 'less',
    }),
    compared('  with a full list every 5 min', 's/min', {
      lapi: direct.cpuSeconds,
      lapidary: withFull(throughMany),
      better: 'less',
    }),
    alone(`engine requests, ${few} bouncers`, '/min', throughFew.requests),
    alone(`engine CPU, ${few} bouncers`, 's/min', throughFew.cpuSeconds),
    alone(`requests, ${many} over ${few}`, 'times', throughMany.requests / throughFew.requests, 1.2),
    alone(`CPU, ${many} over ${few}`, 'times', throughMany.cpuSeconds / throughFew.cpuSeconds, 1.5),
    alone(`Lapidary's own CPU, ${many} bouncers`, 's/min', throughMany.ownCpuSeconds),
  ];
}

/** Bouncers spread evenly over the interval; the first round of polls is not watched. */
async function watch({ sizes, engine, lapi, ours }: Bench, side: Side, count: number): Promise<Work> {
  const { intervalSeconds, windowSeconds } = sizes;
  const requestsSoFar = () => engine.log().split('GET /v1/decisions').length - 1;
  const agent = new Agent({ keepAlive: true });
  const watching = new AbortController();
  const fleet = side.keys.slice(0, count).map(async (key, at) => {
    await delay((at / count) * intervalSeconds * 1000);
    const firstMs = performance.now();
    for (let round = 1; !watching.signal.aborted; round++) {
      await poll(side.url, key, agent);
      const pauseMs = firstMs + round * intervalSeconds * 1000 - performance.now();
      await delay(Math.max(0, pauseMs), undefined, { signal: watching.signal }).catch(() => undefined);
    }
  });
  const done = Promise.all(fleet);
  await Promise.race([done, delay(intervalSeconds * 1000)]);
  const before = [requestsSoFar(), cpuSeconds(lapi.pid), cpuSeconds(ours.pid)];
  await Promise.race([done, delay(windowSeconds * 1000)]);
  const after = [requestsSoFar(), cpuSeconds(lapi.pid), cpuSeconds(ours.pid)];
  watching.abort();
  await done;
  agent.destroy();
  const [requests, engineCpu, ownCpu] = after.map((value, at) => ((value - before[at]) * 60) / windowSeconds);
  return { requests, cpuSeconds: engineCpu, ownCpuSeconds: ownCpu };
}

async function poll(url: string, key: string, agent: Agent): Promise<void> {
  const headers = { 'x-api-key': key, 'user-agent': 'bench/v1' };
  const request = get(`${url}/v1/decisions/stream`, { headers, agent });
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  if (response.statusCode !== 200) throw new Error(`a poll was answered with ${response.statusCode}`);
  response.resume();
  await once(response, 'end');
}
