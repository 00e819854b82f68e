// Sync, views and cursors against a naive model: whatever happens in whatever order, what each bouncer has
// applied equals what the engine has active under the bouncer's view.
import { runDurableObjectAlarm } from 'cloudflare:test';
import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import type { Limits, View } from '../../src/mirror/view.ts';
import {
  startModelEngine,
  type ModelDatabase,
  type ModelDecision,
  type ModelEngine,
} from '../support/model-engine.ts';
import { bouncer, everything, feed, limitsOf } from '../support/bouncer.ts';
import {
  activeAt,
  capped,
  expectedKeys,
  expectAtRest,
  expectInStep,
  letEndWhatIsEnding,
  pullOrLose,
  replaceLikeAPull,
  type Ranked,
} from '../support/in-step.ts';
import { letObjectDie } from '../support/death.ts';
import { letIsolatesFollow, throughIsolates } from '../support/following.ts';
import { patienceMs, runsOf } from '../support/runs.ts';
import { spellings } from '../support/spellings.ts';

const views: View[] = [
  everything,
  { ...everything, origins: ['crowdsec'] },
  { ...everything, scenariosNotContaining: ['ssh'], type: 'ban' },
  { ...everything, dedup: false },
  { ...everything, limits: limitsOf({ maxDecisions: 2 }) },
];

/** What an operator may let a bouncer read, in whatever order; all of them are tried on every view. */
const policies: (Limits | null)[] = [
  null,
  limitsOf({ origins: ['crowdsec', 'CAPI'] }),
  limitsOf({ scenariosContaining: ['http'], scopes: ['Ip'] }),
  limitsOf({ maxDecisions: 1 }),
  limitsOf({ maxDecisions: 3, origins: ['cscli', 'lists', 'CAPI'] }),
];

const values = [
  '192.0.2.2',
  ...spellings['192.0.2.1'].slice(0, 3),
  ...spellings['198.51.100.0/24'].slice(0, 2),
  ...spellings['2001:db8::a1'].slice(0, 2),
];
const decision = fc.record({
  value: fc.constantFrom(...values),
  origin: fc.constantFrom('crowdsec', 'cscli', 'CAPI', 'lists'),
  scenario: fc.constantFrom('ssh-bf', 'http-probing'),
  type: fc.constantFrom('ban', 'captcha'),
  seconds: fc.integer({ min: 5, max: 600 }),
});
type NewDecision = typeof decision extends fc.Arbitrary<infer T> ? T : never;

type Step =
  | { do: 'add' | 'add unseen'; decision: NewDecision }
  | { do: 'expire' | 'drop' | 'poll' | 'poll and lose' | 'restart'; which: number }
  | { do: 'lose isolate'; which: number }
  | { do: 'limit'; which: number; to: number }
  | { do: 'pass'; seconds: number }
  | {
      do:
        | 'sync'
        | 'resync'
        | 'alarm'
        | 'evict'
        | 'die and wake'
        | 'outage'
        | 'lie'
        | 'new database'
        | 'old database';
    };

const which = fc.nat(99);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constantFrom('add' as const, 'add unseen' as const), decision }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constantFrom(
        'expire' as const,
        'drop' as const,
        'poll' as const,
        'poll and lose' as const,
        'restart' as const,
      ),
      which,
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('lose isolate' as const), which }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('limit' as const), which, to: fc.nat(policies.length - 1) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('pass' as const), seconds: fc.integer({ min: 1, max: 200 }) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom(
        'sync' as const,
        'resync' as const,
        'alarm' as const,
        'evict' as const,
        'die and wake' as const,
        'outage' as const,
        'lie' as const,
        'new database' as const,
        'old database' as const,
      ),
    }),
  },
);

// Long histories: what a run costs is mostly its end, where every bouncer is asked again and again.
const steps = fc.array(step, { minLength: 5, maxLength: 40, size: 'max' });
const dialect = fc.constantFrom<ModelEngine['dialect']>('A', 'B', 'C');

test('every bouncer has what the engine has, under its view', { timeout: patienceMs }, async () => {
  await fc.assert(
    fc.asyncProperty(steps, dialect, (all, dialect) => run(all, dialect, [])),
    { numRuns: runsOf(60) },
  );
});

test('the same through isolates that follow the feed', { timeout: patienceMs }, async () => {
  const route = fc.array(fc.nat(2), { minLength: 3, maxLength: 20 });
  await fc.assert(fc.asyncProperty(steps, dialect, route, run), { numRuns: runsOf(60) });
});

let runs = 0;

/** `route`: the isolates that the polls go through in turn; empty: they go to the feed. */
async function run(steps: Step[], dialect: ModelEngine['dialect'], route: number[]): Promise<void> {
  vi.useFakeTimers({ toFake: ['Date'] });
  const engine = startModelEngine();
  engine.dialect = dialect;
  // Other bouncers than the last run's, on a feed that was emptied.
  runs++;
  await emptyFeed(engine);
  const isolates = route.length > 0 ? throughIsolates(route) : null;
  const clients = views.map((view, index) => {
    const client = bouncer({ view, bouncerId: runs * 10 + index, asks: isolates ? () => isolates : feed });
    return { ...client, view, lost: false, started: false };
  });
  const mirrored = async () => (await feed().page(0, 1000)) as unknown as Ranked[];
  const pick = (nth: number): ModelDecision | undefined => engine.active()[nth % engine.active().length];

  const others: ModelDatabase[] = [];
  for (const current of steps) {
    switch (current.do) {
      case 'add':
      case 'add unseen': {
        const { seconds, ...rest } = current.decision;
        const row = { ...rest, untilMs: Date.now() + seconds * 1000 };
        replaceLikeAPull(engine, row);
        if (current.do === 'add') engine.add(row);
        else engine.addUnseen(row);
        break;
      }
      case 'expire':
        engine.expire(pick(current.which)?.id ?? 0);
        break;
      case 'drop':
        engine.drop(pick(current.which)?.id ?? 0);
        break;
      case 'lose isolate':
        isolates?.lose(current.which);
        break;
      case 'limit':
        clients[current.which % clients.length].limit(policies[current.to]);
        break;
      case 'pass':
        vi.setSystemTime(Date.now() + current.seconds * 1000);
        break;
      case 'sync':
      case 'resync':
        await feed().sync({ full: current.do === 'resync', force: false });
        break;
      case 'alarm':
        await runDurableObjectAlarm(feed());
        break;
      case 'evict':
      case 'die and wake':
        await letObjectDie();
        // The first round comes before most of the polls.
        if (current.do === 'die and wake') await runDurableObjectAlarm(feed());
        break;
      case 'outage':
        engine.fault = () => Promise.reject(new Error('down'));
        await feed().sync({ full: true, force: false });
        engine.fault = undefined;
        break;
      case 'lie':
        engine.fault = (path) => Response.json(path.endsWith('stream') ? { new: null, deleted: null } : []);
        await feed().sync({ full: true, force: false });
        engine.fault = undefined;
        break;
      case 'new database':
        others.push(engine.swap());
        break;
      case 'old database': {
        const back = others.shift();
        if (back) others.push(engine.swap(back));
        break;
      }
      case 'poll':
      case 'restart':
      case 'poll and lose': {
        const client = clients[current.which % clients.length];
        // Within a second an isolate may not have seen a change. Two answers that are lost are not so near.
        const follow = isolates !== null && (client.lost || current.which % 2 === 0);
        const how = { lose: current.do === 'poll and lose', startup: current.do === 'restart' };
        const arrived = await pullOrLose(client, how, () => {
          if (follow) letIsolatesFollow();
        });
        if (arrived && (follow || !isolates)) await expectInStep(client, await mirrored());
      }
    }
    vi.setSystemTime(Date.now() + 1);
  }

  // Quiescence: the engine is honest, the feed compares twice, every bouncer polls once.
  engine.add({ value: '203.0.113.99', untilMs: Date.now() + 3_600_000 });
  letIsolatesFollow();
  letEndWhatIsEnding([engine]);
  for (let round = 0; round < 3; round++) await feed().sync({ full: true, force: false });
  const decisions = (await feed().page(0, 1000)) ?? [];
  // A full list that has nothing in common with the mirror may be another database's: what it misses is kept
  // to its own end. Until an operator forces it bouncers may hold more than the engine, never less.
  const kept = decisions.length - engine.active().length;
  for (const client of clients) {
    await client.pull(!client.started);
    client.started = true;
    const view = { ...client.view, limits: client.limits() };
    if (capped(view)) await expectInStep(client, await mirrored());
    else if (kept === 0) await expectInStep(client, activeAt(engine));
    else expect(client.keys()).toEqual(expect.arrayContaining(expectedKeys(activeAt(engine), view)));
  }
  letIsolatesFollow();
  letEndWhatIsEnding([engine]);
  await feed().sync({ full: true, force: true });
  for (const client of clients) {
    const view = { ...client.view, limits: client.limits() };
    await expectAtRest(client, capped(view) ? await mirrored() : activeAt(engine));
  }

  // What is left is removed one by one, each after everybody was given the removal before it.
  for (let nth = 0; engine.active().length > 0; nth++) {
    const { id, untilMs } = engine.active().sort((a, b) => a.untilMs - b.untilMs)[0] as ModelDecision;
    if (nth % 2 === 0) vi.setSystemTime(untilMs + 1000);
    else engine.expire(id);
    letIsolatesFollow();
    await feed().sync({ full: false, force: false });
    const rows = await mirrored();
    for (const [index, client] of clients.entries()) {
      await client.pull(false);
      await expectInStep(client, rows);
      // One in turn is told everything; to the others the next answer has to tell this removal once more.
      if (index === nth % clients.length) await expectAtRest(client, rows);
    }
  }
  for (const client of clients) {
    await expectAtRest(client, []);
    expect([client.keys(), client.elements()]).toEqual([[], []]);
  }
  vi.restoreAllMocks();
}

async function emptyFeed(engine: ModelEngine): Promise<void> {
  engine.rows.clear();
  await feed().sync({ full: true, force: true });
}
