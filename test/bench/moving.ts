// Part l: a feed that moves under bouncers that are spread over the world: eight isolates before one object, every poll
// answered by one of those of its bouncer's place, and a change in every second poll interval.
import { setTimeout as delay } from 'node:timers/promises';
import { insertDecisions, openDatabase } from '../lab/database.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Banned, countWrong, enrolFleet, type Member, pollAt } from '../lab/spread.ts';
import { type Isolates, startIsolates } from '../lab/isolates.ts';
import { randomFrom } from '../lab/random.ts';
import { until } from '../lab/wait.ts';
import type { Sizes } from './bench.ts';
import { percentile } from './load.ts';
import { alone, type Row } from './table.ts';

const places = 4;
const isolatesPerPlace = 2;
const intervalSeconds = 2;
const changeSeconds = 4;
/** 10 polls a second for each of the isolates. */
const members = 160;
const heldAtFirst = 400;
/** After the last change: one interval for each of its two answers, what the engine and the isolate need, and some more. */
const settlingSeconds = 4 * intervalSeconds;

const limits = [
  { origins: ['crowdsec'] },
  { scopes: ['Range', 'Country'] },
  { origins: ['CAPI', 'cscli'], scopes: ['Ip'] },
];
const targetPercent = 15;

export async function measureMovingFeed({ movingSeconds }: Sizes): Promise<Row[]> {
  const engine = await startEngine();
  let isolates: Isolates | undefined;
  try {
    const banned = Array.from({ length: heldAtFirst }, (_, at) => bannedAt(at));
    insertDecisions(engine, banned);
    // The first one has the object, and answers no poll.
    isolates = await startIsolates(1 + places * isolatesPerPlace, {
      upstream: { url: engine.url, key: await engine.addBouncer('moving') },
      settings: { SYNC_INTERVAL_SECONDS: '1' },
    });
    const { feed } = isolates;
    await until('the feed has them', async () => (await feed()).decisions === heldAtFirst);
    const fleet = await enrolFleet(isolates, { count: members, places, limits });
    await meetAll(isolates, fleet);
    const { polls, calls, latenciesMs } = await watch(isolates, fleet, movingSeconds, () => {
      change(engine, banned);
    });
    const wrong = countWrong(fleet, banned);
    if (wrong > 0) throw new Error(`${wrong} of ${members} bouncers do not have what they are to`);
    const asked = Object.values(calls).reduce((sum, times) => sum + times, 0);
    const spread = `${places * isolatesPerPlace} isolates, ${members / intervalSeconds / places / isolatesPerPlace} polls/s each`;
    return [
      alone(
        `${spread}, a change every ${changeSeconds} s: ask the object`,
        '%',
        (100 * asked) / polls,
        targetPercent,
      ),
      ...Object.entries(calls).map(([method, times]) =>
        alone(`  of them ${method}`, '%', (100 * times) / polls),
      ),
      alone('  p50', 'ms', percentile(latenciesMs, 0.5)),
      alone('  p99', 'ms', percentile(latenciesMs, 0.99)),
      alone('  bouncers with the right decisions at the end', 'of 160', members - wrong),
    ];
  } finally {
    await isolates?.close();
    await engine.close();
  }
}

/** Every bouncer is known in each isolate of its place, and is up to date there, as after some minutes. */
async function meetAll({ all }: Isolates, fleet: readonly Member[]): Promise<void> {
  for (let round = 0; round < 4 * isolatesPerPlace; round++) {
    await Promise.all(
      fleet.map((member) => pollAt(member, isolateOf(all, member, round % isolatesPerPlace))),
    );
  }
}

interface Watched {
  polls: number;
  calls: Record<string, number>;
  /** From when each was due, least first. */
  latenciesMs: number[];
}

/** Everything counts that is asked before the last change; then all polls go on until nothing is on its way any more. */
async function watch(
  isolates: Isolates,
  fleet: readonly Member[],
  seconds: number,
  change: () => void,
): Promise<Watched> {
  const chance = randomFrom(16);
  const latenciesMs: number[] = [];
  const startMs = performance.now();
  const endMs = startMs + (seconds + settlingSeconds) * 1000;
  await isolates.takeCalls();
  const polling = fleet.map(async (member, at) => {
    let dueMs = startMs + (at / fleet.length) * intervalSeconds * 1000;
    for (; dueMs < endMs; dueMs += intervalSeconds * 1000) {
      await delay(Math.max(0, dueMs - performance.now()));
      await pollAt(member, isolateOf(isolates.all, member, Math.floor(chance() * isolatesPerPlace)));
      if (dueMs < startMs + seconds * 1000) latenciesMs.push(performance.now() - dueMs);
    }
  });
  const changing = (async () => {
    for (let elapsed = 0; elapsed < seconds; elapsed += changeSeconds) {
      change();
      await delay(changeSeconds * 1000);
    }
    return isolates.takeCalls();
  })();
  const [calls] = await Promise.all([changing, ...polling]);
  return { polls: latenciesMs.length, calls, latenciesMs: latenciesMs.sort((a, b) => a - b) };
}

function isolateOf(all: Isolates['all'], { place }: Member, which: number): Isolates['all'][number] {
  return all[1 + place * isolatesPerPlace + which] as Isolates['all'][number];
}

/** Bans one value and ends the ban of another. */
function change(engine: Engine, banned: Banned[]): void {
  const come = bannedAt(serial++);
  const [gone] = banned.splice(0, 1) as [Banned];
  banned.push(come);
  insertDecisions(engine, [come]);
  const database = openDatabase(engine);
  const now = new Date().toISOString().replace('T', ' ').replace('Z', '000000+00:00');
  database.prepare('UPDATE decisions SET until = ? WHERE value = ?').run(now, gone.value);
  database.close();
}

let serial = heldAtFirst;

/** All origins and scopes, no value twice, and each in its one spelling. */
function bannedAt(at: number): Banned {
  const origin = ['CAPI', 'crowdsec', 'cscli', 'lists'][at % 4] as string;
  const hex = (at + 1).toString(16);
  switch (at % 5) {
    case 0:
      return { value: `2001:db8:${hex}::/64`, scope: 'Range', origin };
    case 1:
      return { value: `A${at}`, scope: 'Country', origin };
    default:
      return { value: `2001:db8::${hex}`, scope: 'Ip', origin };
  }
}
