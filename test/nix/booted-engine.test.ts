// An engine's host of the flake's, booted without a way out: units of nix/examples/engine.nix under a real systemd, with
// Debian's cscli behind nix/cscli-offline.sh. What fails for want of a connection is no success, and no reason not to start.
import { appendFileSync, copyFileSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { layOutAgent } from '../lab/agent.ts';
import { run } from '../lab/child.ts';
import { type Container, newContainer } from '../lab/container.ts';
import { requireTools } from '../lab/debian.ts';
import { until } from '../lab/wait.ts';
import { root, store } from './evaluate.ts';
import { installUnits, makeHostKey } from './install.ts';

const home = '/var/lib/crowdsec';
const enrolment = 'lapidary-engine-console';

function aHost() {
  let host: Container;
  beforeAll(async () => {
    host = await newContainer(9);
    await install(host.root);
    await host.boot();
  });
  afterAll(() => host?.close());

  test('starts its engine with what it has, and says what failed', async () => {
    await until('the engine runs', async (saw) => {
      saw(await host.journal('crowdsec'));
      return (await host.property('crowdsec', 'SubState')) === 'running';
    });
    const said = await host.journal('crowdsec');
    expect(said).toContain('cscli hub update failed, and is forgiven');
    expect(said).toContain('cscli collections install failed, and is forgiven');
  });

  test('tries its enrolment again, which has failed', async () => {
    await until('it has been tried', async (saw) => {
      saw(await host.journal(enrolment));
      return (await host.property(enrolment, 'SubState')) === 'auto-restart';
    });
    expect(await host.property(enrolment, 'Result')).toBe('exit-code');
    expect(await host.journal(enrolment)).not.toContain('forgiven');
    expect(existsSync(join(host.root, 'var/lib/lapidary-engine/enrolled'))).toBe(false);
  });
}
describeWith('an engine’s host without a connection', ['boot'], aHost);

async function install(system: string): Promise<void> {
  // Its stand-in for the engine tells systemd nothing.
  const change = (text: string) =>
    text
      .replaceAll('/run/current-system/sw/bin/cscli', '/nixpkgs/cscli')
      .replaceAll('/run/secrets/crowdsec-console', '/etc/enrolment')
      .replace('ExecStart=/nixpkgs/crowdsec', 'ExecStart=/usr/bin/sleep infinity')
      .replace('Type=notify', 'Type=exec');
  installUnits(system, 'engine', change);
  const wants = join(system, 'etc/systemd/system/multi-user.target.wants');
  rmSync(join(wants, 'crowdsec-firewall-bouncer.service'));

  appendFileSync(join(system, 'etc/passwd'), `crowdsec:x:990:990::${home}:/usr/sbin/nologin\n`);
  appendFileSync(join(system, 'etc/group'), 'crowdsec:x:990:\n');
  const layout = { seenAs: home, credentialsFile: `${home}/credentials.yaml`, daemonize: true };
  await layOutAgent(join(system, home), layout);
  writeFileSync(join(system, layout.credentialsFile), 'url: http://127.0.0.1:9/\nlogin: a\npassword: b\n');
  writeFileSync(join(system, 'etc/enrolment'), 'an-enrolment-key\n');
  await run('chown', ['-R', '990:990', join(system, home)]);

  mkdirSync(join(system, 'nixpkgs'));
  copyFileSync((await requireTools()).cscli, join(system, 'nixpkgs/real-cscli'));
  copyFileSync(join(root, 'nix/cscli-offline.sh'), join(system, 'nixpkgs/cscli-offline.sh'));
  const engine = join(system, `${store}-lapidary-engine/bin/lapidary-engine`);
  mkdirSync(join(engine, '..'), { recursive: true });
  copyFileSync(join(root, 'nix/engine.sh'), engine);
  const scripts = {
    cscli: `REAL_CSCLI=/nixpkgs/real-cscli exec bash /nixpkgs/cscli-offline.sh -c ${home}/config.yaml "$@"`,
    'crowdsec-setup':
      'set -e\n/nixpkgs/cscli hub update\n/nixpkgs/cscli collections install crowdsecurity/linux-lpe',
    crowdsec: 'exit 0',
  };
  for (const [name, command] of Object.entries(scripts)) {
    writeFileSync(join(system, 'nixpkgs', name), `#!/bin/sh\n${command}\n`, { mode: 0o755 });
  }
  await makeHostKey(system);
}
