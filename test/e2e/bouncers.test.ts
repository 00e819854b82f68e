// Four real bouncers at Lapidary, with a real engine upstream: what the engine decides reaches each of them, and
// while the engine is away they notice nothing, not even those that start anew.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { startCustomBouncer, type CustomEvent } from '../lab/custom-bouncer.ts';
import {
  checkBansAndUnbans,
  type EnforcerName,
  enforcerNames,
  enforcers,
  type Enforcer,
  type Lapi,
  needsOf,
  readsShortIpv6,
  untilEnforced,
} from '../lab/enforcers.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { startFirewallBouncer } from '../lab/firewall-bouncer.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';

describeWith('Lapidary between an engine and a bouncer', ['lab'], () => {
  let engine: Engine;
  let lapidary: Lapidary;

  beforeAll(async () => {
    engine = await startEngine();
    const upstream = { url: engine.url, key: await engine.addBouncer('lapidary') };
    lapidary = await startLapidary({ upstream });
  });
  afterAll(async () => {
    await lapidary?.close();
    await engine?.close();
  });

  const newKey = async (name: string): Promise<Lapi> => {
    return { url: lapidary.url, key: await lapidary.addBouncer(name.replaceAll(' ', '-')) };
  };

  for (const name of enforcerNames) describeWith(`the ${name}`, needsOf(name), () => behindLapidary(name));

  function behindLapidary(name: EnforcerName) {
    // Each has its own: the engine goes on from one test to the next.
    const address = (host: number) => `192.0.2.${10 * (enforcerNames.indexOf(name) + 1) + host}`;

    it('bans and unbans', async () => {
      const during = readsShortIpv6(name) ? '2001:db8::1' : address(2);
      await checkBansAndUnbans(name, await newKey(`${name} 1`), engine, { before: address(1), during });
    });

    it('does not notice that the engine crashes, and is served local bans as well', async () => {
      const lapi = await newKey(`${name} 2`);
      const [before, meanwhile, after] = [address(1), address(2), address(3)];
      await engine.ban(before);
      const enforcer: Enforcer = await enforcers[name](lapi);
      let restarted: Enforcer | undefined;
      try {
        await untilEnforced(enforcer, { banned: [before] });
        await engine.kill();
        // That this one arrives shows that polls go on, and well.
        await lapidary.ban(meanwhile);
        await untilEnforced(enforcer, { banned: [before, meanwhile] });
        restarted = await enforcers[name](lapi);
        await untilEnforced(restarted, { banned: [before, meanwhile] });
        await lapidary.unban(meanwhile);
        for (const each of [enforcer, restarted]) {
          await untilEnforced(each, { banned: [before], free: [meanwhile] });
        }
        await engine.start();
        await engine.ban(after);
        await engine.unban(before);
        for (const each of [enforcer, restarted]) {
          await untilEnforced(each, { banned: [after], free: [before, meanwhile] });
          expect(each.failedPulls(), String(each.trace())).toBe(0);
        }
      } finally {
        await enforcer.close();
        await restarted?.close();
        await engine.start();
        await engine.unban(after);
      }
    });
  }

  it('the custom bouncer: is told every change, in order', async () => {
    const bouncer = await startCustomBouncer(await newKey('custom order'));
    const said = (events: CustomEvent[]) => {
      const all = events.map(({ action, value }) => `${action} ${value}`);
      // Lapidary says everything twice, and bouncers may act on it twice.
      return all.filter((line, index) => all.indexOf(line) === index);
    };
    try {
      const steps: [() => Promise<void>, string][] = [
        [() => engine.ban('198.51.100.1', { duration: '90m' }), 'add 198.51.100.1'],
        [() => engine.ban('198.51.100.2'), 'add 198.51.100.2'],
        [() => engine.unban('198.51.100.1'), 'del 198.51.100.1'],
        [() => engine.ban('203.0.113.0/24'), 'add 203.0.113.0/24'],
        [() => lapidary.ban('198.51.100.3', { duration: '2h' }), 'add 198.51.100.3'],
        [() => engine.unban('203.0.113.0/24'), 'del 203.0.113.0/24'],
        [() => lapidary.unban('198.51.100.3'), 'del 198.51.100.3'],
        [() => engine.unban('198.51.100.2'), 'del 198.51.100.2'],
      ];
      for (const [step, line] of steps) {
        await step();
        await bouncer.waitFor((events) => said(events).includes(line));
      }
      const ours = bouncer.events().filter(({ value }) => /^(198\.51\.100|203\.0\.113)\./.test(value));
      expect(said(ours)).toEqual(steps.map(([, line]) => line));

      const added = bouncer.events().filter(({ action }) => action === 'add');
      const ofEngine = added.find(({ value }) => value === '198.51.100.1')!;
      expectSeconds(ofEngine.seconds, 90 * 60);
      expect(ofEngine.decision).toMatchObject({ origin: 'cscli', scope: 'Ip', type: 'ban' });
      const ofLapidary = added.find(({ value }) => value === '198.51.100.3')!;
      expectSeconds(ofLapidary.seconds, 2 * 3600);
      expect(ofLapidary.decision).toMatchObject({ origin: 'lapidary', scope: 'Ip', type: 'ban' });
    } finally {
      await bouncer.close();
    }
  });

  describeWith('the firewall bouncer', ['netns'], () => {
    it("gives the kernel the bans' own timeouts", kernelTimeouts);
  });

  async function kernelTimeouts() {
    await engine.ban('198.51.100.10', { duration: '4h' });
    await engine.ban('2001:db8::10', { duration: '50m' });
    const bouncer = await startFirewallBouncer(await newKey('firewall timeouts'));
    try {
      const atStart = await bouncer.waitFor(
        ({ v4, v6 }) => v4.has('198.51.100.10') && v6.has('2001:db8::10'),
      );
      expectSeconds(atStart.v4.get('198.51.100.10')!, 4 * 3600);
      expectSeconds(atStart.v6.get('2001:db8::10')!, 50 * 60);
      expect([...atStart.v6.keys()]).toEqual(['2001:db8::10']);
      expect(atStart.v4.has('2001:db8::10')).toBe(false);

      await engine.ban('198.51.100.11', { duration: '30m' });
      await lapidary.ban('2001:db8::11', { duration: '3h' });
      const later = await bouncer.waitFor(({ v4, v6 }) => v4.has('198.51.100.11') && v6.has('2001:db8::11'));
      expectSeconds(later.v4.get('198.51.100.11')!, 30 * 60);
      expectSeconds(later.v6.get('2001:db8::11')!, 3 * 3600);

      await engine.unban('198.51.100.10');
      await engine.unban('2001:db8::10');
      await bouncer.waitFor(({ v4, v6 }) => !v4.has('198.51.100.10') && !v6.has('2001:db8::10'));
    } finally {
      await bouncer.close();
    }
  }
});

/** Never longer than the ban; shorter by what passed until it arrived, on a slow machine. */
function expectSeconds(actual: number, ban: number): void {
  expect(actual).toBeLessThanOrEqual(ban);
  expect(actual).toBeGreaterThan(ban - 60);
}
