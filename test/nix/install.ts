// Puts the units of nix/tests/units/ into the file system of a host that is not booted yet, with what they name.
import { copyFileSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../lab/child.ts';
import { root, store } from './evaluate.ts';

/** `change` has the last word on a unit's text. */
export function installUnits(system: string, units: string, change = (text: string) => text): void {
  const folder = join(root, 'nix/tests/units', units);
  const installed = join(system, 'etc/systemd/system');
  for (const [tool, programs] of Object.entries({ coreutils: 'bin', nftables: 'sbin', systemd: 'bin' })) {
    mkdirSync(join(system, `${store}-${tool}`), { recursive: true });
    symlinkSync(`/usr/${programs}`, join(system, `${store}-${tool}/bin`));
  }
  for (const name of readdirSync(folder)) {
    const text = readFileSync(join(folder, name), 'utf8');
    if (!/\.(service|timer)$/.test(name)) {
      writeFileSync(join(system, `${store}-${name}`), text, { mode: 0o755 });
      continue;
    }
    writeFileSync(join(installed, name), change(text));
    for (const [, target = ''] of text.matchAll(/^WantedBy=(.+)$/gm)) {
      mkdirSync(join(installed, `${target}.wants`), { recursive: true });
      symlinkSync(`../${name}`, join(installed, `${target}.wants`, name));
    }
  }
  const client = join(system, `${store}-lapidary-key/bin/lapidary-key`);
  mkdirSync(join(client, '..'), { recursive: true });
  copyFileSync(join(root, 'nix/lapidary-key.sh'), client);
}

/** The SSH host key; answers its public half. */
export async function makeHostKey(system: string): Promise<string> {
  const hostKey = join(system, 'etc/ssh/ssh_host_ed25519_key');
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', '', '-f', hostKey]);
  return readFileSync(`${hostKey}.pub`, 'utf8').trim();
}
