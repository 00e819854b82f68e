// Up to three engines and one feed against a naive model: whatever the engines do, whatever they are called, and whether
// the settings name them or not, nobody is unbanned by a fault or by a change of the settings, ids last, and in the end
// each bouncer has what the engines have together.
import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { firstLocalId } from '../../src/formats/decision.ts';
import type { Filters, Limits, View } from '../../src/mirror/view.ts';
import { everything, keyOf, limitsOf } from '../support/bouncer.ts';
import {
  activeAt,
  expectedKeys,
  expectAtRest,
  expectInStep,
  letEndWhatIsEnding,
  pullOrLose,
  replaceLikeAPull,
  type Ranked,
} from '../support/in-step.ts';
import { startModelEngines, type ModelDatabase, type ModelEngine } from '../support/model-engine.ts';
import { letIsolatesFollow, throughIsolates } from '../support/following.ts';
import { patienceMs, runsOf } from '../support/runs.ts';
import { spellings } from '../support/spellings.ts';
import { awakeFeed, down, listed, reader, sync, wake, type Engines } from '../support/several.ts';

const hosts = ['a.example', 'b.example', 'c.example'] as const;
type Host = (typeof hosts)[number];

const usual: Engines = { default: 'a.example', paris: 'b.example' };
/** What the settings may say. Each run begins and ends with the usual ones. */
const settings: Engines[] = [
  {},
  { default: 'a.example' },
  { paris: 'b.example' },
  { berlin: 'a.example', paris: 'b.example' },
  { default: 'a.example', lyon: 'b.example' },
  { default: 'b.example', paris: 'a.example' },
  { default: 'a.example', paris: 'c.example' },
  { default: 'a.example', paris: 'b.example', rome: 'c.example' },
  usual,
];
/**
 * Who is meant by a name: whoever had it last, in an earlier run too, since all have one feed. What has lost its name to
 * another is listed by a text that is no name, which no view can choose.
 */
let hostOf: Record<string, Host> = {};

const views: View[] = [
  everything,
  { ...everything, engines: ['paris', 'lyon'] },
  { ...everything, dedup: false },
  { ...everything, limits: limitsOf({ engines: ['default'], maxDecisions: 2 }) },
];

const decision = fc.record({
  value: fc.constantFrom(
    '192.0.2.2',
    ...spellings['192.0.2.1'].slice(0, 3),
    ...spellings['2001:db8::a1'].slice(0, 2),
  ),
  origin: fc.constantFrom('crowdsec', 'cscli', 'CAPI', 'lists'),
  type: fc.constantFrom('ban', 'captcha'),
  seconds: fc.integer({ min: 5, max: 600 }),
});
const at = fc.constantFrom(...hosts);
const which = fc.nat(99);

type Step =
  | {
      do: 'add' | 'add unseen';
      at: Host;
      decision: typeof decision extends fc.Arbitrary<infer T> ? T : never;
    }
  | { do: 'expire' | 'drop'; at: Host; which: number }
  | { do: 'outage' | 'lie' | 'new database' | 'old database'; at: Host }
  | { do: 'poll' | 'poll and lose' | 'restart'; which: number }
  | { do: 'pass'; seconds: number }
  | { do: 'change'; to: number }
  | { do: 'sync' | 'resync' | 'alarm' };

const names = <T extends string>(...all: T[]) => fc.constantFrom(...all);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: names('add', 'add unseen'), at, decision }) },
  { weight: 4, arbitrary: fc.record({ do: names('expire', 'drop'), at, which }) },
  { weight: 3, arbitrary: fc.record({ do: names('outage', 'lie', 'new database', 'old database'), at }) },
  { weight: 6, arbitrary: fc.record({ do: names('poll', 'poll and lose', 'restart'), which }) },
  { weight: 2, arbitrary: fc.record({ do: names('pass'), seconds: fc.integer({ min: 1, max: 200 }) }) },
  { weight: 2, arbitrary: fc.record({ do: names('change'), to: fc.nat(settings.length - 1) }) },
  { weight: 5, arbitrary: fc.record({ do: names('sync', 'resync', 'alarm') }) },
);

test('every bouncer has what the engines have together', { timeout: patienceMs }, async () => {
  // Most runs go through isolates that follow the feed; an empty route is the feed itself.
  const route = fc.array(fc.nat(2), { maxLength: 20 });
  const steps = fc.array(step, { minLength: 5, maxLength: 40 });
  await fc.assert(fc.asyncProperty(steps, route, run), { numRuns: runsOf(200) });
});

let runs = 0;

async function run(steps: Step[], route: number[]): Promise<void> {
  vi.useFakeTimers({ toFake: ['Date'] });
  const engines = startModelEngines(...hosts);
  await wakeAs(usual, async () => void (await sync(undefined, { force: true })));
  runs++;
  const isolates = route.length > 0 ? throughIsolates(route, awakeFeed) : null;
  const follow = isolates ? letIsolatesFollow : () => undefined;
  const clients = views.map((view, index) => {
    const client = reader({ view, bouncerId: runs * 10 + index, ...(isolates && { asks: () => isolates }) });
    return { ...client, view, lost: false, started: false, reads: '' };
  });
  const others: Record<Host, ModelDatabase[]> = { 'a.example': [], 'b.example': [], 'c.example': [] };

  // Steps between two changes of the settings are one wake.
  let current = usual;
  const rest = [...steps];
  let before = new Map<string, Ranked>();
  while (rest.length > 0) {
    await wakeAs(current, async () => {
      restartWhereNamesMoved(clients);
      before = expectNothingLost(before, 'a change of the settings');
      for (let next = rest.shift(); next; next = rest.shift()) {
        if (next.do === 'change') {
          current = settings[next.to] as Engines;
          // What is written behind would be lost, and cost a repeat.
          await awakeFeed().alarm();
          before = noted();
          return;
        }
        before = noted();
        await take(next, engines, others, clients, follow);
        const harmless = next.do === 'outage' || next.do === 'lie';
        const after = harmless ? expectNothingLost(before, next.do) : noted();
        expectSoundIds(before, after);
        before = after;
        vi.setSystemTime(Date.now() + 1);
      }
    });
  }

  await wakeAs(usual, async () => {
    restartWhereNamesMoved(clients);
    // Quiescence: the engines are honest, an operator forces their lists, every bouncer polls once.
    follow();
    letEndWhatIsEnding(Object.values(engines));
    for (let round = 0; round < 2; round++) await sync();
    const active = () =>
      (['a.example', 'b.example'] as const).flatMap((host) => activeAt(engines[host], host));
    for (const client of clients) {
      await client.pull(!client.started);
      await expectInStep(byHost(client), listedByHost());
      const view = { ...byHost(client).view, limits: null };
      const bans = expectedKeys(active(), view);
      const held = expectedKeys(listedByHost(), view);
      expect(held, 'never less than the engines have').toEqual(expect.arrayContaining(bans));
    }
    follow();
    letEndWhatIsEnding(Object.values(engines));
    await sync(undefined, { force: true });
    for (const client of clients) {
      await client.pull(false);
      await expectInStep(byHost(client), listedByHost());
      await expectAtRest(byHost(client), listedByHost());
      const { view } = byHost(client);
      expect(expectedKeys(listedByHost(), view)).toHaveLength(expectedKeys(active(), view).length);
    }
    expect(expectedKeys(listedByHost(), everything)).toEqual(expectedKeys(active(), everything));
  });
  vi.restoreAllMocks();
}

function wakeAs(engines: Engines, use: () => Promise<void>): Promise<void> {
  hostOf = { ...hostOf, ...(engines as Record<string, Host>) };
  return wake(engines, use);
}

/** A bouncer whose address leads to other engines than before has to begin anew (docs/engines.md). */
function restartWhereNamesMoved(clients: { view: View; started: boolean; reads: string }[]): void {
  for (const client of clients) {
    const hosts = new Set(client.view.engines?.flatMap((name) => hostOf[name] ?? []));
    const reads = [...hosts].sort().join(' ');
    if (reads !== client.reads) client.started = false;
    client.reads = reads;
  }
}

async function take(
  step: Exclude<Step, { do: 'change' }>,
  engines: Record<Host, ModelEngine>,
  others: Record<Host, ModelDatabase[]>,
  clients: (ReturnType<typeof reader> & { view: View; lost: boolean; started: boolean })[],
  follow: () => void,
): Promise<void> {
  switch (step.do) {
    case 'add':
    case 'add unseen': {
      const { seconds, ...decided } = step.decision;
      const engine = engines[step.at];
      const pulled = decided.origin === 'CAPI' || decided.origin === 'lists';
      const same = ({ origin, value }: { origin: string; value: string }) =>
        pulled && origin === decided.origin && value === decided.value;
      // A pull has the same decision again; all others differ by this.
      const scenario = engine.active().find(same)?.scenario ?? `s${++scenarios}`;
      const row = { ...decided, scenario, untilMs: Date.now() + seconds * 1000 };
      replaceLikeAPull(engine, row);
      if (step.do === 'add') engine.add(row);
      else engine.addUnseen(row);
      return;
    }
    case 'expire':
    case 'drop': {
      const engine = engines[step.at];
      const id = engine.active()[step.which % engine.active().length]?.id ?? 0;
      engine[step.do](id);
      return;
    }
    case 'outage':
    case 'lie': {
      const engine = engines[step.at];
      engine.fault = (path) => {
        if (step.do === 'outage') return down();
        return Response.json(path.endsWith('stream') ? { new: null, deleted: null } : []);
      };
      // One round: a second lie would be a second list that agrees.
      await sync(nameOf(step.at));
      engine.fault = undefined;
      return;
    }
    case 'new database':
      others[step.at].push(engines[step.at].swap());
      return;
    case 'old database': {
      const back = others[step.at].shift();
      if (back) others[step.at].push(engines[step.at].swap(back));
      return;
    }
    case 'pass':
      vi.setSystemTime(Date.now() + step.seconds * 1000);
      return;
    case 'sync':
    case 'resync':
      await sync(undefined, { full: step.do === 'resync' });
      return;
    case 'alarm':
      await awakeFeed().alarm();
      return;
    default: {
      const client = clients[step.which % clients.length];
      if (!client) return;
      const how = { lose: step.do === 'poll and lose', startup: step.do === 'restart' };
      if (await pullOrLose(client, how, follow)) await expectInStep(byHost(client), listedByHost());
    }
  }
}

let scenarios = 0;

/** What the settings call it now; one that they do not name has a name that nothing else has. */
function nameOf(host: Host): string {
  const known = awakeFeed().status().engines;
  return known.find(({ name }) => hostOf[name] === host)?.name ?? 'nobody';
}

/** What the feed has, with where it came from in the place of what that is called. */
function listedByHost(): Ranked[] {
  return listed().map((row) => ({
    ...row,
    engine: row.engine === null ? null : (hostOf[row.engine] ?? row.engine),
  }));
}

/** A client whose view, likewise, names hosts. */
function byHost<C extends { readonly view: View; limits(): Limits | null }>(client: C): C {
  const named = <F extends Filters>(filters: F): F =>
    filters.engines ? { ...filters, engines: filters.engines.map((name) => hostOf[name] ?? name) } : filters;
  const limits = (of: Limits | null) => of && named(of);
  const { view } = client;
  return {
    ...client,
    view: { ...named(view), limits: limits(view.limits) },
    limits: () => limits(client.limits()),
  };
}

/** What the feed has, by what can't change: where it came from and what it says. */
function noted(): Map<string, Ranked> {
  const name = ({ engine, origin, scenario, type, value }: Ranked): string =>
    [engine === null ? 'here' : (hostOf[engine] ?? engine), origin, scenario, type, value].join(' ');
  return new Map(listed().map((row) => [name(row), row]));
}

function expectNothingLost(before: Map<string, Ranked>, what: string): Map<string, Ranked> {
  const after = noted();
  const banned = new Set([...after.values()].map(keyOf));
  const lost = [...before.values()].filter((row) => row.untilMs > Date.now() && !banned.has(keyOf(row)));
  expect(lost, `unbanned by ${what}`).toEqual([]);
  return after;
}

function expectSoundIds(before: Map<string, Ranked>, after: Map<string, Ranked>): void {
  const ids = listed().map(({ id }) => id);
  expect(new Set(ids).size, 'ids are unique').toBe(ids.length);
  expect(ids.every((id) => id > 0 && id < 2 ** 31)).toBe(true);
  for (const [name, { id, engine }] of after) {
    const known = before.get(name);
    // The first engine's are its own, and change with its database. Of two that go by other names at once nobody can
    // tell which was which.
    if (known?.engine === engine && id >= firstLocalId && known.id >= firstLocalId) {
      expect(id, name).toBe(known.id);
    }
  }
}
