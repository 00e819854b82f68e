// Machines through the edge: the real cscli and a real log processor, whose LAPI is Lapidary and whose engine stands
// behind it. Whatever they change is in a bouncer's next poll.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { remoteCscli, startAgent, type Agent } from '../lab/agent.ts';
import { login, postAlert } from '../lab/alert.ts';
import { enforcers } from '../lab/enforcers.ts';
import { startEngine, type Engine } from '../lab/engine.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { pullStream, valuesOf } from '../lab/poller.ts';
import { until } from '../lab/wait.ts';

describeWith('machines through the edge', ['lab'], () => {
  let engine: Engine;
  let lapidary: Lapidary;
  let key: string;
  let cscli: (...args: string[]) => Promise<string>;
  /** The lab's machine, at the edge. */
  let machine: Pick<Engine, 'url' | 'machine'>;

  beforeAll(async () => {
    engine = await startEngine();
    // No round by itself: what a bouncer sees of a change, it sees by the change's own doing.
    lapidary = await startLapidary({
      upstream: { url: engine.url, key: await engine.addBouncer('lapidary') },
      settings: { SYNC_INTERVAL_SECONDS: '3600', MACHINE_ALLOW: '127.0.0.0/8' },
    });
    await lapidary.sync({ full: true });
    key = await lapidary.addBouncer('reader');
    machine = { url: lapidary.url, machine: engine.machine };
    cscli = await remoteCscli(engine, { url: lapidary.url, ...engine.machine });
  });
  afterAll(async () => {
    await lapidary?.close();
    await engine?.close();
  });

  const banned = async () =>
    valuesOf((await pullStream({ url: lapidary.url, key }, 'startup=true&scopes=ip,range,country,as')).new);
  const poll = () => pullStream({ url: lapidary.url, key });

  it('lets cscli ban, list and unban, each seen by the next poll', async () => {
    await poll();
    await cscli('decisions', 'add', '-i', '192.0.2.10', '-d', '4h');
    expect(valuesOf((await poll()).new)).toContain('192.0.2.10');
    expect(await cscli('decisions', 'list')).toContain('192.0.2.10');
    await cscli('decisions', 'delete', '-i', '192.0.2.10');
    expect(valuesOf((await poll()).deleted)).toContain('192.0.2.10');
  });

  it('lets cscli list, inspect and delete alerts, and takes their decisions back at once', async () => {
    await cscli('decisions', 'add', '-i', '192.0.2.11', '-d', '4h');
    expect(await banned()).toContain('192.0.2.11');
    const alerts = JSON.parse(await cscli('alerts', 'list', '-i', '192.0.2.11', '-o', 'json')) as any[];
    const id = String(alerts[0].id);
    expect(await cscli('alerts', 'inspect', id, '-o', 'json')).toContain('192.0.2.11');
    await cscli('alerts', 'delete', '-i', '192.0.2.11');
    expect(await banned()).not.toContain('192.0.2.11');
  });

  it('lets cscli register a machine, which passes once the engine knows it', async () => {
    const file = join(engine.dir, 'registered.yaml');
    await cscli('lapi', 'register', '--machine', 'newcomer', '-u', `${lapidary.url}/`, '-f', file);
    const written = await readFile(file, 'utf8');
    const password = /password: (\S+)/.exec(written)?.[1] as string;
    const newcomer = { url: lapidary.url, machine: { login: 'newcomer', password } };
    await expect(login(newcomer)).rejects.toThrow('machine newcomer not validated');
    await engine.cscli('machines', 'validate', 'newcomer');
    const token = await login(newcomer);
    await postAlert(newcomer, { decisions: [{ value: '192.0.2.13' }] }, token);
    expect(await banned()).toContain('192.0.2.13');
  });

  it('takes back nothing on the word of an engine that had nothing to delete', async () => {
    await cscli('decisions', 'add', '-i', '192.0.2.12', '-d', '4h');
    await engine.stop();
    await engine.emptyDatabase();
    await engine.start();
    await cscli('alerts', 'delete', '-i', '192.0.2.12').catch(() => undefined);
    await lapidary.sync({ full: true });
    expect(await banned()).toContain('192.0.2.12');
    // What an operator says who knows.
    await lapidary.sync({ full: true, force: true });
    expect(await banned()).not.toContain('192.0.2.12');
  });

  it('shows the ban of a real agent to the next poll, before and after the engine was restarted', async () => {
    const agent: Agent = await startAgent({ url: lapidary.url, ...engine.machine });
    const lapi = { url: lapidary.url, key: await lapidary.addBouncer('firewall') };
    const firewall =
      await enforcers[inject('abilities').netns.ok ? 'firewall bouncer' : 'custom bouncer'](lapi);
    try {
      await agent.attackFrom('203.0.113.66');
      await until('the agent bans', async (saw) => {
        saw(agent.log().slice(-1500));
        return valuesOf((await poll()).new).includes('203.0.113.66');
      });
      await until('a real bouncer blocks it', (saw) => {
        saw(firewall.trace());
        return firewall.enforces('203.0.113.66');
      });
      // Its token dies with the process that signed it.
      await engine.stop();
      await agent.attackFrom('203.0.113.67');
      await until('the agent saw its engine gone', (saw) => {
        saw(agent.log().slice(-1500));
        return / 503 |50[03]|out of reach|attempt \d+ out of/.test(agent.log());
      });
      await engine.start();
      await agent.attackFrom('203.0.113.68');
      await until(
        'the agent bans again',
        async (saw) => {
          saw(agent.log().slice(-3000));
          const now = await banned();
          return ['203.0.113.67', '203.0.113.68'].every((value) => now.includes(value));
        },
        90_000,
      );
      expect(agent.running()).toBe(true);
    } finally {
      await agent.close();
      await firewall.close();
    }
  });

  it('loses nothing of 200 alerts posted at once', async () => {
    const token = await login(machine);
    const values = Array.from({ length: 200 }, (_, index) => `198.51.100.${index}`);
    // SQLite refuses some of them, also without Lapidary: those are posted again.
    await Promise.all(values.map((value) => postAlert(machine, { decisions: [{ value }] }, token)));
    const next = valuesOf((await poll()).new);
    expect(values.filter((value) => !next.includes(value))).toEqual([]);
    const direct = await engine.cscli('decisions', 'list', '-a', '-l', '0', '-o', 'json');
    expect(values.filter((value) => !direct.includes(`"${value}"`))).toEqual([]);
  });
});
