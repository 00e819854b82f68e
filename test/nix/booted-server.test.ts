// The self-hosted server of nix/examples/self-hosted.nix under a real systemd: workerd in the unit's sandbox, laid out
// as nix/package.nix lays it out.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { run } from '../lab/child.ts';
import { type Container, newContainer } from '../lab/container.ts';
import { until } from '../lab/wait.ts';
import { root, store } from './evaluate.ts';

const units = join(root, 'nix/tests/units/self-hosted');
const upstreamKey = 'key-of-an-engine-that-is-not-there';

test('the package has what its start imports', () => {
  const text = readFileSync(join(root, 'nix/package.nix'), 'utf8');
  const folders = /cp -r (.+) "\$app"/.exec(text)?.[1]?.split(' ');
  const beside = /cp scripts\/\{(.+)\}\.mjs /.exec(text)?.[1]?.split(',');
  const imports = readFileSync(join(root, 'scripts/start.mjs'), 'utf8').matchAll(/from '(\.[^']+)'/g);
  for (const [, path = ''] of imports) {
    const [up, name = ''] = path.split('/');
    if (up === '.') expect(beside).toContain(name.replace('.mjs', ''));
    else expect(folders).toContain(name);
  }
});

function aServer() {
  let host: Container;
  beforeAll(async () => {
    host = await newContainer(9);
    await install(host.root);
    await host.boot();
    await host.run('systemctl', 'start', 'lapidary');
  });
  afterAll(() => host?.close());

  const health = () => host.run('curl', '-sS', '--fail', 'http://127.0.0.1:8787/health');

  test('serves from its sandbox, and keeps its state to itself', async () => {
    await until('it serves', async (saw) => {
      saw(await host.journal('lapidary'));
      return (await health()).includes('"status":"up"');
    });
    expect((await host.run('stat', '-c', '%a', '/var/lib/private/lapidary/operator-token')).trim()).toBe(
      '600',
    );
    expect((await host.run('stat', '-c', '%a', '/var/lib/private/lapidary')).trim()).toBe('700');
    // A person's user may see the process, and must not become the operator.
    const other = ['-u', 'nobody', '--', 'sh', '-c', 'cat /var/lib/lapidary/operator-token || true'];
    expect(await host.run('runuser', ...other)).toBe('');
  });

  test('is given its secrets, and nobody else is', async () => {
    const environment = await host.run('sh', '-c', 'tr "\\0" "\\n" </proc/$(pgrep workerd)/environ');
    expect(environment).toContain(`UPSTREAM_API_KEY=${upstreamKey}`);
    expect(await host.run('systemctl', 'show', 'lapidary')).not.toContain(upstreamKey);
    expect(await host.run('journalctl', '--boot')).not.toContain(upstreamKey);
  });

  test('survives its workerd', async () => {
    const before = await host.run('pgrep', 'workerd');
    await host.run('pkill', '-KILL', 'workerd');
    await until('another serves', async () => {
      return (await host.run('pgrep', 'workerd')) !== before && (await health()).includes('"status":"up"');
    });
  });
}
describeWith('a server, booted', ['boot'], aServer);

async function install(system: string) {
  const app = join(system, `${store}-lapidary/lib/lapidary`);
  const modules = join(app, 'node_modules/@cloudflare');
  mkdirSync(modules, { recursive: true });
  mkdirSync(join(app, 'scripts'));
  mkdirSync(join(system, `${store}-lapidary/bin`));
  const platform = `workerd-linux-${process.arch === 'x64' ? '64' : process.arch}`;
  const copy = (from: string, to: string) => run('cp', ['-rL', join(root, from), to]);
  for (const part of ['dist', 'package.json']) await copy(part, app);
  for (const script of ['disk', 'lock', 'processes', 'start'])
    await copy(`scripts/${script}.mjs`, join(app, 'scripts'));
  await copy('node_modules/workerd', join(app, 'node_modules'));
  await copy(`node_modules/@cloudflare/${platform}`, modules);
  await run('cp', ['-L', process.execPath, join(system, 'usr/bin/node')]);
  writeFileSync(
    join(system, `${store}-lapidary/bin/lapidary`),
    `#!/bin/sh\nexec node ${store}-lapidary/lib/lapidary/scripts/start.mjs\n`,
    { mode: 0o755 },
  );
  await run('cp', [join(units, 'lapidary-start'), join(system, `${store}-lapidary-start`)]);
  await run('chmod', ['755', join(system, `${store}-lapidary-start`)]);
  // /run is new at each boot: the secret is kept elsewhere here.
  mkdirSync(join(system, 'etc/secrets'), { mode: 0o700 });
  writeFileSync(join(system, 'etc/secrets/upstream'), upstreamKey, { mode: 0o600 });
  const unit = readFileSync(join(units, 'lapidary.service'), 'utf8');
  writeFileSync(
    join(system, 'etc/systemd/system/lapidary.service'),
    unit.replace('/run/secrets/lapidary-upstream-key', '/etc/secrets/upstream'),
  );
}
