// A log processor of the flake's, booted: crowdsec's units of nix/examples/log-processor.nix under a real systemd, with
// Debian's crowdsec in nixpkgs' place, a live Lapidary and a real engine behind it.
import { appendFileSync, copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { agentLogFile, guessesFrom, layOutAgent } from '../lab/agent.ts';
import { run } from '../lab/child.ts';
import { type Container, containerBroker, newContainer } from '../lab/container.ts';
import { requireTools } from '../lab/debian.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { pullStream, valuesOf } from '../lab/poller.ts';
import { until } from '../lab/wait.ts';
import { installUnits, makeHostKey } from './install.ts';

const fetcher = 'lapidary-machine.service';
const home = '/var/lib/crowdsec';

function aLogProcessor() {
  let engine: Engine;
  let lapidary: Lapidary;
  let host: Container;
  let key: string;

  beforeAll(async () => {
    engine = await startEngine();
    lapidary = await startLapidary({
      upstream: { url: engine.url, key: await engine.addBouncer('lapidary') },
      settings: { PUBLIC_URL: containerBroker },
    });
    host = await newContainer(Number(new URL(lapidary.url).port));
    const fields = { public_key: await install(host.root), bouncers: [], machine: 'default' };
    expect((await lapidary.operator('PUT', '/hosts/web-1', fields)).status).toBe(201);
    key = await lapidary.addBouncer('reader');
    await host.boot();
  });
  afterAll(async () => {
    await host?.close();
    await lapidary?.close();
    await engine?.close();
  });

  const systemctl = (...args: string[]) => host.run('systemctl', ...args);
  const starts = async () => (await host.journal('crowdsec')).split('Started').length - 1;

  async function untilStarted(times = 1) {
    await until('crowdsec was started', async (saw) => {
      saw((await host.journal('crowdsec')).slice(-1500));
      return (await starts()) === times && (await host.property('crowdsec', 'SubState')) === 'running';
    });
  }
  async function untilItBans(address: string) {
    await until(`${address} is banned`, async (saw) => {
      saw((await host.journal('crowdsec')).slice(-1500));
      // Again and again: what is written before it reads its log's end is never read.
      appendFileSync(join(host.root, home, agentLogFile), guessesFrom(address));
      return valuesOf((await pullStream({ url: lapidary.url, key }, 'startup=true')).new).includes(address);
    });
  }
  /** The account that the broker says the host has. */
  const account = async (): Promise<string> =>
    (await lapidary.operator('GET', '/hosts/web-1')).body.host.machine.name;

  test('shows what its account waits for, and bans once the engine takes it', async () => {
    await until('it says so', async (saw) => {
      const status = await host.run('sh', '-c', `systemctl status ${fetcher} || true`);
      saw(status);
      return status.includes('Active: failed') && status.includes('cscli machines validate web-1-');
    });
    expect(await host.property('crowdsec', 'ActiveState')).toBe('activating');
    expect(await host.journal('crowdsec')).toContain('there is no account yet');
    await engine.cscli('machines', 'validate', await account());
    await untilStarted();
    await untilItBans('203.0.113.66');
  });

  test('has an account that cscli finds, too, as the engine’s user', async () => {
    const cscli = ['cscli', '-c', `${home}/config.yaml`, 'decisions', 'list'];
    expect(await host.run('runuser', '-u', 'crowdsec', '--', ...cscli)).toContain('203.0.113.66');
    await expect(host.run('runuser', '-u', 'nobody', '--', ...cscli)).rejects.toThrow('permission denied');
  });

  test('is left alone when there is nothing new, and restarted once for another account', async () => {
    const [before, first] = [await starts(), await account()];
    await systemctl('start', fetcher);
    expect([await host.property(fetcher, 'ExecMainStatus'), await starts()]).toEqual(['10', before]);
    rmSync(join(host.root, 'var/lib/private/lapidary-machine/password'));
    await expect(systemctl('start', fetcher)).rejects.toThrow(fetcher);
    expect(await account()).not.toBe(first);
    await engine.cscli('machines', 'validate', await account());
    await systemctl('start', fetcher);
    await untilStarted(before + 1);
    await untilItBans('203.0.113.67');
    const machines = JSON.parse(await engine.cscli('alerts', 'list', '-i', '203.0.113.67', '-o', 'json'));
    expect(machines[0].machine_id).toBe(await account());
  });

  test('boots with its account while the broker is down, and bans when it is back', async () => {
    await lapidary.stop();
    await host.shutDown();
    await host.boot();
    await until('it goes on with what it has', async (saw) => {
      const log = await host.journal(fetcher);
      saw(log);
      return log.includes('goes on with the account that it has');
    });
    await lapidary.start();
    await until('crowdsec runs', async (saw) => {
      saw((await host.journal('crowdsec')).slice(-1500));
      return (await host.property('crowdsec', 'SubState')) === 'running';
    });
    await untilItBans('203.0.113.68');
  });
}
describeWith('a log processor, booted', ['boot'], aLogProcessor);

/** crowdsec's units with what they name, its user, its folder and its programs. Answers the host's public key. */
async function install(system: string): Promise<string> {
  // Not a minute: nobody watches a test that waits.
  const change = (text: string) =>
    text.replaceAll('https://lapidary.example.net', containerBroker).replace('RestartSec=60', 'RestartSec=1');
  installUnits(system, 'log-processor', change);
  // The bouncer of the same example has a host of its own: booted.test.ts.
  const wants = join(system, 'etc/systemd/system/multi-user.target.wants');
  rmSync(join(wants, 'crowdsec-firewall-bouncer.service'));

  appendFileSync(join(system, 'etc/passwd'), `crowdsec:x:990:990::${home}:/usr/sbin/nologin\n`);
  appendFileSync(join(system, 'etc/group'), 'crowdsec:x:990:\n');
  const layout = {
    seenAs: home,
    credentialsFile: '/run/credentials/crowdsec.service/lapidary-machine',
    daemonize: true,
  };
  await layOutAgent(join(system, home), layout);
  await run('chown', ['-R', '990:990', join(system, home)]);

  const { crowdsec, cscli } = await requireTools();
  copyFileSync(crowdsec, join(system, 'usr/bin/crowdsec'));
  copyFileSync(cscli, join(system, 'usr/bin/cscli'));
  mkdirSync(join(system, 'nixpkgs'));
  const scripts = {
    'crowdsec-setup': 'exit 0',
    crowdsec: `exec /usr/bin/crowdsec -c ${home}/config.yaml "$@"`,
  };
  for (const [name, command] of Object.entries(scripts)) {
    writeFileSync(join(system, 'nixpkgs', name), `#!/bin/sh\n${command}\n`, { mode: 0o755 });
  }
  return makeHostKey(system);
}
