// The allow-list against a naive model: whatever happens in whatever order, a bouncer has what is active and touches no
// entry, and nothing else.
import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { covers, parseNetwork, type Network } from '../../src/formats/ip.ts';
import type { View } from '../../src/mirror/view.ts';
import { bouncer, everything, feed, limitsOf } from '../support/bouncer.ts';
import { letObjectDie } from '../support/death.ts';
import { letIsolatesFollow, throughIsolates } from '../support/following.ts';
import { emptyAllowList, operator } from '../support/http.ts';
import {
  expectAtRest,
  expectInStep,
  letEndWhatIsEnding,
  pullOrLose,
  type Ranked,
} from '../support/in-step.ts';
import { startModelEngine, type ModelEngine } from '../support/model-engine.ts';
import { patienceMs, runsOf } from '../support/runs.ts';
import { spellings } from '../support/spellings.ts';

const names = ['web-1', 'web-2', 'vpn-1', 'vpn-2'] as const;
const views: (View & { bouncer: (typeof names)[number] })[] = [
  { ...everything, bouncer: 'web-1' },
  { ...everything, bouncer: 'vpn-1', dedup: false },
  { ...everything, bouncer: 'web-2', limits: limitsOf({ origins: ['crowdsec', 'CAPI'] }) },
  { ...everything, bouncer: 'vpn-2', limits: limitsOf({ maxDecisions: 2 }) },
  { ...everything, bouncer: 'web-1', limits: limitsOf({ maxDecisions: 2 }) },
];
/** Some bouncers, as an entry names them, and as their names say. */
const some: [patterns: string[], bouncers: readonly string[]][] = [
  [['web-*'], ['web-1', 'web-2']],
  [
    ['vpn-1', '*-2'],
    ['vpn-1', 'vpn-2', 'web-2'],
  ],
  [['vpn-1'], ['vpn-1']],
  [['nobody'], []],
];

const banned = [
  '192.0.2.2',
  '198.51.100.8',
  ...spellings['192.0.2.1'].slice(0, 3),
  ...spellings['198.51.100.0/24'].slice(0, 2),
  ...spellings['2001:db8::a1'].slice(0, 2),
];
const exempted = ['192.0.2.1', '192.0.2.0/30', '198.51.100.7', '198.51.0.0/16', '2001:db8::/64'];

type Step =
  | { do: 'ban'; value: string; origin: string; seconds: number }
  | { do: 'allow'; value: string; seconds: number | null; bouncers: number | null }
  | { do: 'unban' | 'remove' | 'poll' | 'poll and lose' | 'lose isolate'; which: number }
  | { do: 'pass'; seconds: number }
  | { do: 'sync' | 'resync' | 'evict' };

const which = fc.nat(99);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('ban' as const),
      value: fc.constantFrom(...banned),
      origin: fc.constantFrom('crowdsec', 'cscli', 'CAPI'),
      seconds: fc.integer({ min: 5, max: 600 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('allow' as const),
      value: fc.constantFrom(...exempted),
      seconds: fc.option(fc.integer({ min: 1, max: 100 })),
      bouncers: fc.option(fc.nat(some.length - 1), { freq: 2 }),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constantFrom(
        'unban' as const,
        'remove' as const,
        'poll' as const,
        'poll' as const,
        'poll and lose' as const,
        'lose isolate' as const,
      ),
      which,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('pass' as const), seconds: fc.integer({ min: 1, max: 100 }) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constantFrom('sync' as const, 'resync' as const, 'evict' as const) }),
  },
);

const steps = fc.array(step, { minLength: 5, maxLength: 30 });

test(
  'no bouncer has an address that is allowed, and each has all others',
  { timeout: patienceMs },
  async () => {
    await fc.assert(
      fc.asyncProperty(steps, (all) => run(all, [])),
      { numRuns: runsOf(30) },
    );
  },
);

test('the same through isolates that follow the feed', { timeout: patienceMs }, async () => {
  const route = fc.array(fc.nat(2), { minLength: 3, maxLength: 20 });
  await fc.assert(fc.asyncProperty(steps, route, run), { numRuns: runsOf(30) });
});

interface Entry {
  id: number;
  value: string;
  untilMs: number;
  for: readonly string[];
  key: string;
}

let runs = 0;

async function run(steps: Step[], route: number[]): Promise<void> {
  vi.useFakeTimers({ toFake: ['Date'] });
  const engine: ModelEngine = startModelEngine();
  // Other bouncers than the last run's, on a feed that was emptied.
  runs++;
  // Those that a run before left, which failed.
  await emptyAllowList();
  await feed().sync({ full: true, force: true });
  const isolates = route.length > 0 ? throughIsolates(route) : null;
  const clients = views.map((view, index) => {
    const client = bouncer({ view, bouncerId: runs * 10 + index, asks: isolates ? () => isolates : feed });
    return { ...client, view, lost: false, started: false };
  });
  let entries: Entry[] = [];
  const entriesOn = ({ value }: { value: string }): Entry[] => {
    const own = parseNetwork(value) as Network;
    return entries.filter((entry) => {
      const network = parseNetwork(entry.value) as Network;
      return entry.untilMs > Date.now() && (covers(network, own) || covers(own, network));
    });
  };
  const due = async ({ view }: (typeof clients)[number]): Promise<Ranked[]> => {
    const rows = (await feed().page(0, 1000)) as unknown as (Ranked & { withheldBy: object | null })[];
    for (const row of rows) expect(row.withheldBy !== null, row.value).toBe(entriesOn(row).length > 0);
    return rows.filter((row) => !entriesOn(row).some((entry) => entry.for.includes(view.bouncer)));
  };
  const remove = async (entry: Entry | undefined): Promise<void> => {
    if (!entry) return;
    entries = entries.filter((other) => other !== entry);
    const { status } = await operator('DELETE', `/allowlist/${entry.id}`);
    expect(status).toBe(entry.untilMs > Date.now() ? 204 : 404);
  };

  for (const current of steps) {
    switch (current.do) {
      case 'ban': {
        const { value, origin, seconds } = current;
        const scope = value.includes('/') ? 'Range' : 'Ip';
        engine.add({ value, scope, origin, untilMs: Date.now() + seconds * 1000 });
        break;
      }
      case 'unban': {
        const active = engine.active();
        engine.expire(active[current.which % active.length]?.id ?? 0);
        break;
      }
      case 'allow': {
        const { value, seconds } = current;
        const [patterns, bouncers] = current.bouncers === null ? [null, names] : some[current.bouncers]!;
        const key = `${value} ${patterns?.join()}`;
        const life = seconds === null ? {} : { expires_in: `${seconds}s` };
        const { status, body } = await operator('POST', '/allowlist', {
          value,
          comment: 'x',
          force: true,
          bouncers: patterns,
          ...life,
        });
        const isThere = entries.some((each) => each.key === key && each.untilMs > Date.now());
        expect(status).toBe(isThere ? 409 : 201);
        const untilMs = seconds === null ? Infinity : Date.now() + seconds * 1000;
        if (status === 201) entries.push({ id: body.entry.id, value, untilMs, for: bouncers, key });
        break;
      }
      case 'remove':
        await remove(entries[current.which % entries.length]);
        break;
      case 'lose isolate':
        isolates?.lose(current.which);
        break;
      case 'pass':
        vi.setSystemTime(Date.now() + current.seconds * 1000);
        break;
      case 'sync':
      case 'resync':
        await feed().sync({ full: current.do === 'resync', force: false });
        break;
      case 'evict':
        await letObjectDie();
        break;
      case 'poll':
      case 'poll and lose': {
        const client = clients[current.which % clients.length];
        const follow = isolates !== null && (client.lost || current.which % 2 === 0);
        const arrived = await pullOrLose(client, { lose: current.do === 'poll and lose' }, () => {
          if (follow) letIsolatesFollow();
        });
        if (arrived && (follow || !isolates)) await expectInStep(client, await due(client));
      }
    }
    vi.setSystemTime(Date.now() + 1);
  }
  letIsolatesFollow();
  letEndWhatIsEnding([engine]);
  await feed().sync({ full: true, force: true });
  for (const client of clients) {
    await client.pull(!client.started);
    await expectInStep(client, await due(client));
    await expectAtRest(client, await due(client));
  }
  // Without entries everybody has everything.
  for (const entry of entries) await remove(entry);
  letIsolatesFollow();
  letEndWhatIsEnding([engine]);
  await feed().sync({ full: true, force: true });
  for (const client of clients) {
    await client.pull(false);
    await expectAtRest(client, await due(client));
  }
  vi.restoreAllMocks();
}
