// docs/figures.md's model of what reaches the feed's object, held against eight isolates before one object. Time is set, not
// waited for: the counts do not depend on how fast a machine is.
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { asksPerSecond, type Spread, spreadTable } from '../bench/spread.ts';
import { type Banned, countWrong, enrolFleet, type Limits, type Member, pollAt } from '../lab/spread.ts';
import { clockHeader, type Isolate, type Isolates, startIsolates } from '../lab/isolates.ts';
import { randomFrom } from '../lab/random.ts';

const isolateCount = 8;
const limited: Limits[] = [{ scopes: ['Range', 'Country'] }, { scopes: ['Ip'], origins: ['lapidary'] }];
const capped: Limits[] = [{ max_decisions: 1_000 }];

let isolates: Isolates;
/** Of all isolates. It only goes on. */
let nowMs = 0;
beforeAll(async () => {
  // The first has the object and takes the operator's changes. The rounds' alarm must not come early: it has its own time.
  isolates = await startIsolates(1 + isolateCount, { settings: { SYNC_INTERVAL_SECONDS: '3600' } });
  nowMs = Date.now();
  for (let at = 0; at < mostHeld; at++) await change();
});
afterAll(() => isolates?.close());

describe('what reaches the object is what the model says', () => {
  const quiet = { isolateSeconds: 40, changesPerMinute: 0, capped: 0 };
  const moving = { isolateSeconds: 24, changesPerMinute: 15, capped: 0 };
  test.each<[string, Spread]>([
    ['few polls', { bouncers: 16, pollSeconds: 2, places: 4, isolatesPerPlace: 2, ...quiet }],
    ['many polls', { bouncers: 60, pollSeconds: 2, places: 2, isolatesPerPlace: 4, ...quiet }],
    ['a feed that moves', { bouncers: 96, pollSeconds: 2, places: 4, isolatesPerPlace: 2, ...moving }],
    [
      'long intervals',
      { bouncers: 64, pollSeconds: 20, places: 8, isolatesPerPlace: 1, ...quiet, isolateSeconds: 200 },
    ],
    [
      'half of them capped',
      {
        bouncers: 20,
        pollSeconds: 2,
        places: 4,
        isolatesPerPlace: 2,
        isolateSeconds: 100,
        changesPerMinute: 6,
        capped: 0.5,
      },
    ],
  ])('%s', async (name, spread) => {
    const limits = spread.capped > 0 ? capped : limited;
    const { bouncers: count, places, isolateSeconds } = spread;
    const fleet = await enrolFleet(isolates, { count, places, limits, name: name.replaceAll(' ', '-') });
    const calls = await live(fleet, spread);
    const modelled = asksPerSecond(spread);
    expectNear(calls['follow'], modelled.follow * isolateSeconds);
    expectNear(calls['stream'], (modelled.firstSight + modelled.unsettled) * isolateSeconds);
  });
});

const chance = randomFrom(3);

/** What is banned now. */
const held: Banned[] = [];
const mostHeld = 6;
let bans = 0;

/** One life of the isolates. Returns what they asked; each bouncer enforces what it is to at the end. */
async function live(fleet: readonly Member[], spread: Spread): Promise<Record<string, number>> {
  const { pollSeconds, changesPerMinute, isolateSeconds } = spread;
  const startMs = nowMs;
  const polls = fleet.flatMap((member) => {
    const phaseMs = chance() * pollSeconds * 1000;
    return timesUntil(isolateSeconds * 1000 - phaseMs, pollSeconds * 1000).map((ms) => ({
      ms: ms + phaseMs,
      member,
    }));
  });
  const changeMs = changesPerMinute === 0 ? Infinity : 60_000 / changesPerMinute;
  const changes = timesUntil(isolateSeconds * 1000, changeMs).map((ms) => ({
    ms: ms + changeMs / 2,
    member: null,
  }));
  await isolates.takeCalls();
  for (const { ms, member } of [...polls, ...changes].sort((a, b) => a.ms - b.ms)) {
    nowMs = startMs + ms;
    if (member) await pollAt(member, oneOf(member, spread), nowMs);
    else await change();
  }
  const calls = await isolates.takeCalls();
  // The last change is in its two answers.
  for (let round = 0; round < 2; round++) {
    nowMs += 2_000;
    for (const member of fleet) await pollAt(member, oneOf(member, spread), nowMs);
  }
  expect(countWrong(fleet, held)).toBe(0);
  return calls;
}

/** Bans one value and unbans the oldest, through the isolate that answers no poll. */
async function change(): Promise<void> {
  const [isolate] = isolates.all as [Isolate];
  const clock = { [clockHeader]: String(nowMs) };
  const hex = (++bans).toString(16);
  const isRange = bans % 2 === 0;
  const value = isRange ? `2001:db8:${hex}::/64` : `2001:db8::${hex}`;
  const { status, body } = await isolate.operator('POST', '/decisions', { value, duration: '4h' }, clock);
  expect(status).toBe(201);
  held.push({ value, scope: body.decision.scope, origin: body.decision.origin });
  if (held.length <= mostHeld) return;
  const oldest = encodeURIComponent((held.shift() as Banned).value);
  expect((await isolate.operator('DELETE', `/decisions?value=${oldest}`, undefined, clock)).status).toBe(200);
}

function oneOf({ place }: Member, { isolatesPerPlace }: Spread): Isolate {
  return isolates.all[1 + place * isolatesPerPlace + Math.floor(chance() * isolatesPerPlace)] as Isolate;
}

function timesUntil(endMs: number, stepMs: number): number[] {
  return Array.from({ length: stepMs === Infinity ? 0 : Math.floor(endMs / stepMs) }, (_, at) => at * stepMs);
}

/** By 15 %, and a few of them: in so short a life most first sights come at once, and spare others' questions. */
function expectNear(counted = 0, modelled: number): void {
  expect(counted).toBeGreaterThan(0.85 * modelled - 5);
  expect(counted).toBeLessThan(1.15 * modelled + 5);
}

test('docs/figures.md has its table', () => {
  const figures = readFileSync(new URL('../../docs/figures.md', import.meta.url), 'utf8');
  const cells = figures.split('\n').map((line) => line.split('|').map((cell) => cell.trim()));
  for (const row of spreadTable()) expect(cells).toContainEqual(['', ...row, '']);
});
