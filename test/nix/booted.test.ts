// A host of the flake's, booted: the units of nix/tests/units/booted under a real systemd, with Debian's firewall
// bouncer, nftables and a live Lapidary. What it enforces is read from the kernel's sets.
import { copyFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { type Container, containerBroker, newContainer } from '../lab/container.ts';
import { requireTools } from '../lab/debian.ts';
import { bouncerSettings } from '../lab/firewall-bouncer.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { until } from '../lab/wait.ts';
import { root, store } from './evaluate.ts';
import { installUnits, makeHostKey } from './install.ts';

const units = join(root, 'nix/tests/units/booted');
const fetcher = 'lapidary-key@firewall.service';

test('every program and script in the store that the units name is one that is installed', () => {
  const known = ['coreutils', 'systemd', 'lapidary-key', ...readdirSync(units)];
  for (const name of readdirSync(units)) {
    const text = readFileSync(join(units, name), 'utf8');
    for (const [, named = ''] of text.matchAll(new RegExp(`${store}-([\\w-]+)`, 'g'))) {
      expect(known).toContain(named);
    }
  }
});

function aHost() {
  let lapidary: Lapidary;
  let host: Container;
  let publicKey: string;

  beforeAll(async () => {
    lapidary = await startLapidary({ settings: { PUBLIC_URL: containerBroker } });
    host = await newContainer(Number(new URL(lapidary.url).port));
    publicKey = await install(host.root);
    await host.boot();
  });
  afterAll(async () => {
    await host?.close();
    await lapidary?.close();
  });

  const systemctl = (...args: string[]) => host.run('systemctl', ...args);
  /** Starts of the bouncer since the boot. */
  const starts = async () => (await host.journal('bouncer')).split('Started').length - 1;
  const key = () => readFileSync(join(host.root, 'var/lib/private/lapidary-key/firewall/key'), 'utf8');
  const fetchKey = () => systemctl('start', fetcher);

  async function untilBanned(...addresses: string[]) {
    await until(`the host bans ${addresses.join()}`, async (saw) => {
      const rules = await host.run('nft', 'list', 'ruleset');
      saw([rules, (await host.journal('bouncer')).slice(-800)]);
      return addresses.every((address) => rules.includes(`${address} `));
    });
  }
  async function ban(address: string) {
    await lapidary.operator('POST', '/decisions', { value: address, duration: '4h' });
  }
  async function allow() {
    const body = { public_key: publicKey, bouncers: ['web-1'] };
    expect((await lapidary.operator('PUT', '/hosts/web-1', body)).status).toBe(201);
  }

  test('that the broker does not know shows its refusal, and gets going once it is known', async () => {
    await until('the refusal is shown', async (saw) => {
      const status = await host.run('sh', '-c', `systemctl status ${fetcher} || true`);
      saw(status);
      return status.includes('Active: failed') && status.includes('REFUSED');
    });
    expect(await host.property('bouncer', 'ActiveState')).toBe('activating');
    await ban('192.0.2.1');
    await allow();
    await untilBanned('192.0.2.1');
    expect(await host.property(fetcher, 'Result')).toBe('success');
  });

  test('is left alone when there is nothing new', async () => {
    const before = await starts();
    await fetchKey();
    expect(await host.property(fetcher, 'ExecMainStatus')).toBe('10');
    expect(await starts()).toBe(before);
  });

  test('takes a rotation with one restart, and loses no ban', async () => {
    const before = { starts: await starts(), key: key() };
    const asked = await lapidary.operator('POST', '/bouncers/web-1/rotate', { grace: '1s' });
    expect(asked.status).toBe(202);
    await fetchKey();
    await until('it has restarted', async () => (await starts()) > before.starts);
    expect(key()).not.toBe(before.key);
    await untilBanned('192.0.2.1');
    const headers = { 'x-api-key': before.key };
    await until('the old key is refused', async () => {
      return (await fetch(`${lapidary.url}/v1/decisions`, { method: 'HEAD', headers })).status === 403;
    });
    await ban('192.0.2.2');
    await untilBanned('192.0.2.1', '192.0.2.2');
    expect(await starts()).toBe(before.starts + 1);
  });

  test('boots with its cached key while the broker is down, and catches up when it is back', async () => {
    const cached = key();
    await lapidary.stop();
    await host.shutDown();
    await host.boot();
    await until('the bouncer itself was started', async (saw) => {
      const log = await host.journal('bouncer');
      saw(log);
      return /connection refused|EOF|no such host|reset by peer/.test(log);
    });
    expect(await host.journal(fetcher)).toContain('goes on with the key that it has');
    expect(await host.property(fetcher, 'Result')).toBe('success');
    await lapidary.start();
    await untilBanned('192.0.2.1', '192.0.2.2');
    expect(key()).toBe(cached);
  });

  test('without a key and without the broker waits, and gets going when it is back', async () => {
    await lapidary.stop();
    await host.run('sh', '-c', 'rm -r /var/lib/private/lapidary-key/firewall/*');
    await host.shutDown();
    await host.boot();
    await until('it has tried', async () => (await host.journal('bouncer')).includes('there is no key yet'));
    expect(await host.property(fetcher, 'ExecMainStatus')).toBe('75');
    expect(await starts()).toBe(0);
    await lapidary.start();
    await untilBanned('192.0.2.1', '192.0.2.2');
  });

  test('that was revoked keeps its key, and shows that it was refused', async () => {
    const last = key();
    await lapidary.operator('DELETE', '/hosts/web-1');
    await expect(fetchKey()).rejects.toThrow(fetcher);
    const status = await host.run('sh', '-c', `systemctl status ${fetcher} || true`);
    expect(status).toMatch(/REFUSED: .* answered 410 host-revoked/);
    expect(await systemctl('--failed')).toContain(fetcher);
    expect(key()).toBe(last);
    expect(lapidary.log()).not.toContain(last);
    expect(await host.run('journalctl', '--boot')).not.toContain(last);
  });
}
describeWith('a host, booted', ['boot'], aHost);

/** The units with everything that they name, the bouncer and its settings. Answers the host's public key. */
async function install(system: string): Promise<string> {
  installUnits(system, 'booted');
  const { firewallBouncer } = await requireTools();
  copyFileSync(firewallBouncer, join(system, 'usr/bin', basename(firewallBouncer)));
  // The unit writes the key into a file of its own, which has the last word.
  const settings = { dir: '/run/bouncer', apiUrl: `${containerBroker}/`, apiKey: 'unset' };
  writeFileSync(join(system, 'etc/bouncer.yaml'), bouncerSettings(settings));
  return makeHostKey(system);
}
