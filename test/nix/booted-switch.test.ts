// What a `nixos-rebuild switch` and a first boot do to a host of the flake's: the units of nix/tests/units/switched under a
// real systemd, nftables.service with nixpkgs' kind of script, Debian's firewall bouncer with sets only, a live Lapidary.
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { type Container, containerBroker, newContainer } from '../lab/container.ts';
import { requireTools } from '../lab/debian.ts';
import { bouncerSettings } from '../lab/firewall-bouncer.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { until } from '../lab/wait.ts';
import { installUnits, makeHostKey } from './install.ts';

const banned = ['192.0.2.1', '2001:db8::1'];

function aHost() {
  let lapidary: Lapidary;
  let host: Container;
  let publicKey: string;

  beforeAll(async () => {
    lapidary = await startLapidary({ settings: { PUBLIC_URL: containerBroker } });
    host = await newContainer(Number(new URL(lapidary.url).port));
    publicKey = await install(host.root);
    await allow('web-1');
    for (const value of banned) await lapidary.operator('POST', '/decisions', { value, duration: '4h' });
    await host.boot();
  });
  afterAll(async () => {
    await host?.close();
    await lapidary?.close();
  });

  async function allow(...bouncers: string[]) {
    const answer = await lapidary.operator('PUT', '/hosts/web-1', { public_key: publicKey, bouncers });
    expect(answer.status).toBeLessThan(300);
  }
  const systemctl = (...args: string[]) => host.run('systemctl', ...args);
  const rules = () => host.run('nft', 'list', 'ruleset');
  const bans = async () => {
    const text = await rules();
    return banned.filter((address) => text.includes(`${address} `));
  };
  const untilBanned = () =>
    until('the host bans', async (saw) => {
      saw([await rules(), (await host.journal('crowdsec-firewall-bouncer')).slice(-800)]);
      return (await bans()).length === banned.length;
    });
  const start = () => host.property('crowdsec-firewall-bouncer', 'InvocationID');

  test('bans in its sets, on both hooks', async () => {
    await untilBanned();
    const text = await rules();
    for (const hook of ['input', 'forward'])
      expect(text).toMatch(new RegExp(`hook ${hook} .*[^}]*@crowdsec-blacklists drop`));
  });

  test('has every ban after a switch that reloads the firewall, without a restart of the bouncer', async () => {
    const before = await start();
    await systemctl('reload', 'nftables');
    expect(await bans()).toEqual(banned);
    expect(await start()).toBe(before);
  });

  test.each(['reload', 'restart'])('has every ban again after a %s that flushes everything', async (how) => {
    const before = await start();
    nftablesRules(host.root, 'flush ruleset');
    await systemctl(how, 'nftables');
    await until('the bouncer was started anew', async () => (await start()) !== before);
    await untilBanned();
    expect(await rules()).toContain('hook forward');
  });

  test('keeps its bans over a reload while the broker is away', async () => {
    nftablesRules(host.root, '');
    await lapidary.stop();
    await systemctl('reload', 'nftables');
    expect(await bans()).toEqual(banned);
    await lapidary.start();
  });

  test('starts a service that was given up for want of its key, once the key is there', async () => {
    await until('it was given up', async (saw) => {
      saw(await host.journal('caddy'));
      return (await host.property('caddy', 'ActiveState')) === 'failed';
    });
    expect(await host.property('lapidary-key@caddy', 'ActiveState')).toBe('failed');
    expect(await host.property('lapidary-key-retry@caddy.timer', 'ActiveState')).toBe('active');
    await allow('web-1', 'web-1-caddy');
    // What the timer does within a minute.
    await systemctl('start', 'lapidary-key@caddy');
    await until('it runs', async (saw) => {
      saw(await host.journal('caddy'));
      return (await host.property('caddy', 'ActiveState')) === 'active';
    });
  });
}
describeWith('a host that is switched', ['boot'], aHost);

async function install(system: string): Promise<string> {
  installUnits(system, 'switched');
  mkdirSync(join(system, 'nixpkgs'));
  const { firewallBouncer } = await requireTools();
  copyFileSync(firewallBouncer, join(system, 'nixpkgs/cs-firewall-bouncer'));
  const dir = '/run/crowdsec-firewall-bouncer';
  const key = '$(cat "$CREDENTIALS_DIRECTORY/API_KEY_FILE")';
  script(
    system,
    'write-config',
    `#!/bin/sh\numask 077\nsed "s|@API_KEY_FILE@|${key}|" /etc/bouncer.yaml > ${dir}/config.yaml\n`,
  );
  script(system, 'nftables-deletions', `#!/usr/sbin/nft -f\n${ofNixpkgs}`);
  nftablesRules(system, '');
  const settings = { dir, apiUrl: `${containerBroker}/`, apiKey: '@API_KEY_FILE@', setOnly: true };
  writeFileSync(join(system, 'etc/bouncer.yaml'), bouncerSettings(settings));
  return makeHostKey(system);
}

const ofNixpkgs = 'table inet nixos-fw\ndelete table inet nixos-fw\n';

/** nixpkgs makes its own tables anew; `flush` is what `networking.nftables.flushRuleset` adds. */
function nftablesRules(system: string, flush: string): void {
  const table = 'table inet nixos-fw {\n chain input {\n type filter hook input priority filter\n }\n}';
  script(system, 'nftables-rules', `#!/usr/sbin/nft -f\n${flush}\n${ofNixpkgs}${table}\n`);
}

function script(system: string, name: string, text: string): void {
  writeFileSync(join(system, 'nixpkgs', name), text, { mode: 0o755 });
}
