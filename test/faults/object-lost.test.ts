// Restarts under load: the object that is taken away fails no poll, and a process that is started once more costs running
// bouncers a poll or two and nothing of what they enforce.
import { afterEach, expect, test } from 'vitest';
import { startAbortable } from '../lab/abortable.ts';
import { describeWith } from '../lab/ability.ts';
import type { Lapi } from '../lab/enforcers.ts';
import { type FirewallBouncer, startFirewallBouncer } from '../lab/firewall-bouncer.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { type Poller, startPoller } from '../lab/poller.ts';
import { until } from '../lab/wait.ts';

const clients = 200;
/** ABORT_ROUNDS asks for more. */
const rounds = Number(process.env['ABORT_ROUNDS'] ?? 10);
const always = '192.0.2.1';

let closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.reverse()) await close();
  closing = [];
});

type Served = Pick<Lapidary, 'url' | 'addBouncer' | 'ban' | 'unban'>;

interface Fleet {
  readonly pollers: readonly Poller[];
  readonly firewalls: readonly FirewallBouncer[];
}

/** 200 that poll each second, every second of them for the full list, and two firewall bouncers; all have `always`. */
async function startFleet(lapidary: Served): Promise<Fleet> {
  await lapidary.ban(always);
  const keys: string[] = [];
  for (let n = 0; n < clients + 2; n++) keys.push(await lapidary.addBouncer(`b-${n}`));
  const lapi = (n: number): Lapi => ({ url: lapidary.url, key: keys[n]! });
  const firewalls: FirewallBouncer[] = [];
  for (const n of [clients, clients + 1]) firewalls.push(await startFirewallBouncer(lapi(n)));
  const pollers = Array.from({ length: clients }, (_, n) =>
    startPoller(lapi(n), { startup: n % 2 === 0, pauseMs: 1000 }),
  );
  closing.push(async () => {
    await Promise.all([...pollers.map((each) => each.stop()), ...firewalls.map((each) => each.close())]);
  });
  const fleet = { pollers, firewalls };
  await untilEnforced(fleet, always, true);
  return fleet;
}

async function untilEnforced({ pollers, firewalls }: Fleet, value: string, banned: boolean): Promise<void> {
  await until(`all ${banned ? 'have' : 'have no'} ${value}`, (saw) => {
    const others = pollers.filter((each) => each.values().has(value) !== banned);
    saw([others.length, others.flatMap((each) => each.failures()).slice(-3)]);
    return others.length === 0;
  });
  for (const each of firewalls) await each.waitFor(({ v4 }) => v4.has(value) === banned);
}

/** After each answer that anybody got, everybody had what was banned all the time. */
function expectNothingLost({ pollers, firewalls }: Fleet): void {
  expect(pollers.flatMap((each) => each.lacked([always]))).toEqual([]);
  expect(firewalls.map((each) => each.running())).toEqual([true, true]);
}

describeWith('200 that poll, two of them firewalls,', ['lab', 'netns'], () => {
  test('notice nothing of an object that is lost', async () => {
    const lapidary = await startAbortable();
    closing.push(lapidary.close);
    const fleet = await startFleet(lapidary);
    for (let round = 1; round <= rounds; round++) {
      const value = `198.51.100.${round}`;
      await lapidary.abort();
      await lapidary.ban(value);
      await lapidary.abort();
      await untilEnforced(fleet, value, true);
      await Promise.all([lapidary.unban(value), lapidary.abort()]);
      await untilEnforced(fleet, value, false);
    }
    expect(fleet.pollers.flatMap((each) => each.failures())).toEqual([]);
    for (const each of fleet.firewalls) expect(each.log()).not.toMatch(/level=(error|fatal)/);
    expectNothingLost(fleet);
  }, 300_000);

  test('go on at their next poll after the process was started once more', async () => {
    const lapidary = await startLapidary();
    closing.push(() => lapidary.close());
    const fleet = await startFleet(lapidary);
    const restarts = [
      () => lapidary.kill('workerd'),
      async () => {
        await lapidary.stop();
        await lapidary.start();
      },
    ];
    for (const [round, restart] of restarts.entries()) {
      const value = `198.51.100.${round + 1}`;
      await lapidary.ban(value);
      await restart();
      await untilEnforced(fleet, value, true);
      await lapidary.unban(value);
      await untilEnforced(fleet, value, false);
    }
    // A connection may be refused or lost; none is told of a fault of ours.
    const refused = fleet.pollers.flatMap((each) => each.failures()).filter((why) => /status|JSON/.test(why));
    expect(refused).toEqual([]);
    expectNothingLost(fleet);
  }, 300_000);
});
