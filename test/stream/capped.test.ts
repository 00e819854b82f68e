// Bouncers under a cap, while the object dies and wakes: what each has is what it is to have, whichever of its answers the
// object still knows of.
import { runDurableObjectAlarm } from 'cloudflare:test';
import fc from 'fast-check';
import { test, vi } from 'vitest';
import { covers, parseNetwork, type Network } from '../../src/formats/ip.ts';
import { matchesGlob } from '../../src/formats/glob.ts';
import { bouncer, everything, feed, limitsOf } from '../support/bouncer.ts';
import { letObjectDie } from '../support/death.ts';
import { emptyAllowList, operator } from '../support/http.ts';
import { expectAtRest, expectInStep, pullOrLose, type Ranked } from '../support/in-step.ts';
import { startModelEngine } from '../support/model-engine.ts';
import { patienceMs, runsOf } from '../support/runs.ts';

const values = ['192.0.2.1', '192.0.2.2', '192.0.2.3', '192.0.2.4', '192.0.2.1/32'];
const names = ['web-1', 'web-2', 'vpn-1'];
const patterns = ['web-*', 'web-1', '*-1'];

const which = fc.nat(99);
const steps = fc.array(
  fc.record({
    do: fc.constantFrom(
      'ban',
      'ban',
      'unban',
      'allow',
      'poll',
      'poll',
      'poll and lose',
      'limit',
      'round',
      'die',
      'die and wake',
    ),
    which,
    hours: fc.integer({ min: 1, max: 20 }),
  }),
  { minLength: 5, maxLength: 30, size: 'max' },
);

let runs = 0;

test('each has what it is to have, at each answer', { timeout: patienceMs }, async () => {
  const property = fc.asyncProperty(steps, fc.integer({ min: 1, max: 2 }), async (all, maxDecisions) => {
    vi.useFakeTimers({ toFake: ['Date'] });
    const engine = startModelEngine();
    runs++;
    // Those that a run before left, which failed.
    await emptyAllowList();
    const sync = () => feed().sync({ full: true, force: true });
    await sync();
    const clients = names.map((name, at) => {
      const view = { ...everything, bouncer: name, limits: limitsOf({ maxDecisions }) };
      return { ...bouncer({ view, bouncerId: runs * 10 + at }), view, started: false, lost: false };
    });
    /** Value and pattern → the entry's id. */
    const entries = new Map<string, { value: string; pattern: string; id: number }>();
    const due = async (name: string): Promise<Ranked[]> => {
      const rows = (await feed().page(0, 1000)) as unknown as Ranked[];
      const own = [...entries.values()].filter(({ pattern }) => matchesGlob(pattern, name));
      return rows.filter((row) => {
        const network = parseNetwork(row.value) as Network;
        return !own.some(({ value }) => covers(parseNetwork(value) as Network, network));
      });
    };
    const poll = async (client: (typeof clients)[number], lose = false): Promise<void> => {
      const arrived = await pullOrLose(client, { lose }, () => undefined);
      if (arrived) await expectInStep(client, await due(client.view.bouncer));
    };

    for (const { do: what, which, hours } of all) {
      if (what === 'ban') {
        const value = values[which % values.length]!;
        const scope = value.includes('/') ? 'Range' : 'Ip';
        engine.add({ value, scope, untilMs: Date.now() + hours * 3_600_000 });
        await sync();
      } else if (what === 'unban') {
        const active = engine.active();
        engine.expire(active[which % active.length]?.id ?? 0);
        await sync();
      } else if (what === 'allow') {
        const value = values[which % 4]!;
        const pattern = patterns[which % patterns.length]!;
        const known = entries.get(value + pattern);
        entries.delete(value + pattern);
        if (known) {
          await operator('DELETE', `/allowlist/${known.id}`);
        } else {
          const entry = { value, comment: 'x', force: true, bouncers: [pattern] };
          const { body } = await operator('POST', '/allowlist', entry);
          entries.set(value + pattern, { value, pattern, id: body.entry.id });
        }
      } else if (what === 'poll' || what === 'poll and lose') {
        await poll(clients[which % clients.length]!, what === 'poll and lose');
      } else if (what === 'limit') {
        clients[which % clients.length]!.limit(limitsOf({ maxDecisions: 1 + (hours % 2) }));
      } else {
        if (what !== 'round') await letObjectDie();
        if (what !== 'die') await runDurableObjectAlarm(feed());
      }
      vi.setSystemTime(Date.now() + 1);
    }
    for (const client of clients) {
      await poll(client);
      // For a moment after its limits changed an isolate may answer by the old ones, and answers are repeated.
      vi.setSystemTime(Date.now() + 60_000);
      await expectAtRest(client, await due(client.view.bouncer));
    }
  });
  await fc.assert(property, { numRuns: runsOf(60) });
});
