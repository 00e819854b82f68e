// One address in two spellings, an engine's and an operator's, at bouncers that compare networks and at those that
// compare texts: while one of the two bans is left, the kernel blocks the address.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { postAlert } from '../lab/alert.ts';
import { startCustomBouncer, type CustomBouncer } from '../lab/custom-bouncer.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { startFirewallBouncer, type FirewallBouncer } from '../lab/firewall-bouncer.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { until } from '../lab/wait.ts';

describeWith('an address that an engine bans in another spelling than an operator', ['lab', 'netns'], () => {
  let engine: Engine;
  let lapidary: Lapidary;
  let firewall: FirewallBouncer;
  let custom: CustomBouncer;

  beforeAll(async () => {
    engine = await startEngine();
    const upstream = { url: engine.url, key: await engine.addBouncer('lapidary') };
    lapidary = await startLapidary({ upstream });
    firewall = await startFirewallBouncer({
      url: lapidary.url,
      key: await lapidary.addBouncer('firewall'),
    });
    custom = await startCustomBouncer({ url: lapidary.url, key: await lapidary.addBouncer('custom') });
  });
  afterAll(async () => {
    await firewall?.close();
    await custom?.close();
    await lapidary?.close();
    await engine?.close();
  });

  const listed = async (): Promise<string[]> => {
    const { decisions } = (await lapidary.operator('GET', '/decisions')).body;
    return decisions.map(({ value }: { value: string }) => value);
  };
  const blocked = async (): Promise<string[]> => {
    const { v4, v6 } = await firewall.sets();
    return [...v4.keys(), ...v6.keys()];
  };
  const untilBlocked = (value: string, is: boolean) =>
    until(`the kernel ${is ? 'blocks' : 'lets in'} ${value}`, async (saw) => {
      const values = await blocked();
      saw(values);
      return values.includes(value) === is;
    });

  let bans = 0;
  /** Until the firewall has been told all that there is by now, twice. */
  const untilTold = async () => {
    for (let time = 0; time < 2; time++) {
      const value = `198.51.100.${++bans}`;
      await lapidary.ban(value);
      await untilBlocked(value, true);
    }
  };

  describe.each([
    ['2001:DB8::A1', 'Ip', '2001:db8::a1'],
    ['192.0.2.9/32', 'Range', '192.0.2.9'],
    ['::ffff:192.0.2.50', 'Ip', '192.0.2.50'],
  ])('%s (%s) beside %s', (theirs, scope, ours) => {
    it.each(['the engine', 'the operator'])(
      'is blocked until both end, when %s ends first',
      async (first) => {
        const ends = [
          async () => {
            await engine.unban(theirs, { scope });
            await until(`${theirs} is over`, async () => !(await listed()).includes(theirs));
          },
          () => lapidary.unban(ours),
        ];
        if (first === 'the operator') ends.reverse();
        const eventsBefore = custom.events().length;
        await postAlert(engine, { decisions: [{ value: theirs, scope }] });
        await until(`${theirs} is mirrored`, async () => (await listed()).includes(theirs));
        await lapidary.ban(ours);
        await untilBlocked(ours, true);
        // A start-up has both in one batch.
        await firewall.restart();
        await untilBlocked(ours, true);
        await untilTold();
        await ends[0]?.();
        await untilTold();
        expect(await blocked()).toContain(ours);
        await ends[1]?.();
        await untilBlocked(ours, false);
        // Of a batch that is wrong nothing comes in.
        expect(firewall.log()).not.toContain('unable to commit');
        // Who compares texts is told the end of each.
        await custom.waitFor((events) => {
          const gone = events.slice(eventsBefore).filter(({ action }) => action === 'del');
          return [theirs, ours].every((text) => gone.some(({ value }) => value === text));
        });
      },
    );
  });
});
