// What is said of who has been sent a decision, against what was sent: whatever bouncers ask, and however their limits change,
// never more is said than went out, and what is said of the next poll is what it brings.
import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import type { Limits, View } from '../../src/mirror/view.ts';
import type { SentAnswer } from '../../src/stream/sent.ts';
import { bouncer, everything, feed, limitsOf, type Pulled } from '../support/bouncer.ts';
import { letIsolatesFollow, throughIsolates } from '../support/following.ts';
import { startModelEngine } from '../support/model-engine.ts';
import { patienceMs, runsOf } from '../support/runs.ts';

const views: View[] = [
  everything,
  { ...everything, dedup: false },
  { ...everything, scenariosContaining: ['ssh'] },
  { ...everything, type: 'ban' },
  everything,
];
const policies: (Limits | null)[] = [
  null,
  null,
  limitsOf({ scenariosNotContaining: ['ssh'] }),
  limitsOf({ scopes: ['Range'] }),
  limitsOf({ maxDecisions: 2 }),
];

const which = fc.nat(99);
const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('ban' as const),
      value: fc.constantFrom('192.0.2.1', '192.0.2.1', '192.0.2.0/24', '192.0.2.1/32', '198.51.100.1'),
      type: fc.constantFrom('ban', 'captcha'),
      scenario: fc.constantFrom('ssh-bf', 'by hand'),
      seconds: fc.integer({ min: 5, max: 600 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('unban' as const), which }) },
  {
    weight: 8,
    arbitrary: fc.record({ do: fc.constantFrom('poll' as const, 'lose' as const, 'start' as const), which }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('limit' as const), which, to: fc.nat(policies.length - 1) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('pass' as const), seconds: fc.integer({ min: 1, max: 60 }) }),
  },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;
const steps = fc.array(step, { minLength: 5, maxLength: 40 });

test('is never more than went out, and right about the next poll', { timeout: patienceMs }, async () => {
  await fc.assert(
    fc.asyncProperty(steps, (all) => run(all, [])),
    { numRuns: runsOf(150) },
  );
});

test('is never more than went out, also through isolates', { timeout: patienceMs }, async () => {
  const route = fc.array(fc.nat(2), { minLength: 2, maxLength: 10 });
  await fc.assert(fc.asyncProperty(steps, route, run), { numRuns: runsOf(100) });
});

let runs = 0;

async function run(all: readonly Step[], route: readonly number[]): Promise<void> {
  vi.useFakeTimers({ toFake: ['Date'] });
  const engine = startModelEngine();
  const sync = () => feed().sync({ full: false, force: false });
  // What the last run has left is not there.
  await feed().sync({ full: true, force: true });
  runs++;
  const isolates = route.length > 0 ? throughIsolates(route) : null;
  const clients = views.map((view, at) => {
    const bouncerId = runs * 10 + at;
    const client = bouncer({ view, bouncerId, asks: isolates ? () => isolates : feed });
    return { ...client, bouncerId, view, started: false, sent: [] as { startup: boolean; ids: number[] }[] };
  });
  type Client = (typeof clients)[number];

  const claims = async (value: string): Promise<SentAnswer> => {
    const asks = clients.map(({ bouncerId, limits }) => ({
      bouncerId,
      limits: limits(),
      name: 'web-1',
      refused: null,
    }));
    return (await feed().sentTo(asks, { value })) as SentAnswer;
  };
  const note = (client: Client, startup: boolean, { added }: Pulled): number[] => {
    const ids = added.map(({ id }) => id);
    client.sent.push({ startup, ids });
    client.started = true;
    return ids;
  };
  const times = ({ sent }: Client, id: number): number => {
    const answers = sent.filter(({ ids }) => ids.includes(id));
    return answers.some(({ startup }) => startup) ? 2 : answers.length;
  };

  /** Its last second is in no answer. */
  const isEnding = ({ decisions }: Pick<SentAnswer, 'decisions'>, id: number): boolean =>
    (decisions.find((each) => each.id === id)?.untilMs ?? 0) < Date.now() + 2_000;

  /** Of every decision and client. */
  const expectNoMore = async (): Promise<void> => {
    for (const value of ['192.0.2.1', '198.51.100.1']) {
      const { bouncers, ...claimed } = await claims(value);
      for (const [at, { decisions }] of bouncers.entries()) {
        const client = clients[at] as Client;
        for (const { id, insteadId, state } of decisions) {
          if (isEnding(claimed, insteadId ?? id)) continue;
          const had = times(client, insteadId ?? id);
          if (state === 'twice') expect(had, `twice ${id}`).toBe(Math.max(had, 2));
          if (state === 'once') expect(had, `once ${id}`).toBeGreaterThan(0);
          if (!client.started) expect(['unknown', 'never']).toContain(state);
        }
      }
    }
  };
  /** What was said of a client before it polled, beside what the poll brought. */
  const expectForetold = (
    { bouncerId, limits }: Client,
    before: SentAnswer,
    ids: readonly number[],
  ): void => {
    const at = clients.findIndex((each) => each.bouncerId === bouncerId);
    const isCapped = limits()?.maxDecisions != null;
    for (const { id, insteadId, state, why } of before.bouncers[at]?.decisions ?? []) {
      const target = insteadId ?? id;
      const isGone = isCapped || isEnding(before, target);
      if (state === 'never' && !isCapped) expect(ids, `never ${id} ${why.join()}`).not.toContain(id);
      const isDue = state === 'not-yet' || (state === 'once' && why.length === 0);
      if (isDue && !isGone) expect(ids, `${state} ${id}`).toContain(target);
    }
  };

  for (const each of all) {
    switch (each.do) {
      case 'ban': {
        const { value, type, scenario, seconds } = each;
        engine.add({ value, type, scenario, untilMs: Date.now() + seconds * 1000 });
        await sync();
        break;
      }
      case 'unban': {
        const { decisions } = await claims('192.0.2.1');
        const one = decisions[each.which % decisions.length];
        if (one) engine.expire(one.id);
        await sync();
        break;
      }
      case 'limit':
        clients[each.which % clients.length]?.limit(policies[each.to] ?? null);
        break;
      case 'pass':
        vi.setSystemTime(Date.now() + each.seconds * 1000);
        break;
      default: {
        const client = clients[each.which % clients.length] as Client;
        if (isolates) letIsolatesFollow();
        const before = await claims('192.0.2.1');
        const startup = each.do === 'start' || !client.started;
        const ids = note(client, startup, await client.pull(startup));
        if (!isolates && !startup) expectForetold(client, before, ids);
      }
    }
    vi.setSystemTime(Date.now() + 1);
    await expectNoMore();
  }
}

test('of a bouncer with many clients is found out in pieces, so that others are answered meanwhile', async () => {
  startModelEngine();
  await feed().sync({ full: true, force: true });
  const [bouncerId, clients, decisions] = [9_999, 250, 40];
  for (let at = 0; at < decisions; at++) {
    const ban = { value: '203.0.113.1', scope: 'Ip', type: 'ban', scenario: `by hand ${at}` };
    await feed().addLocal({ ...ban, untilMs: Date.now() + 3_600_000 });
  }
  for (let at = 0; at < clients; at++) await bouncer({ bouncerId, address: `2001:db8::${at}` }).pull(true);
  const wait = vi.spyOn(scheduler, 'wait');
  const ask = { bouncerId, limits: null, name: 'web-1', refused: null };
  const { bouncers } = (await feed().sentTo([ask], { value: '203.0.113.1' })) as SentAnswer;
  expect(bouncers[0]?.decisions.map((sent) => sent.clients.twice)).toEqual(Array(decisions).fill(clients));
  // 2,000 at once.
  expect(wait.mock.calls.filter(([ms]) => ms === 0)).toHaveLength((clients * decisions) / 2_000);
});
