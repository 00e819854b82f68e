// The units in nix/tests/units/ as systemd reads them: no line that it does not understand, and sandboxes that are
// as tight as they are said to be.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { root, store } from './evaluate.ts';

const units = join(root, 'nix/tests/units');

describeWith('systemd', ['nix'], () => {
  const dir = mkdtempSync(join(tmpdir(), 'lapidary-units-'));
  beforeAll(() => {
    for (const host of readdirSync(units)) {
      mkdirSync(join(dir, host));
      for (const file of readdirSync(join(units, host))) {
        const path = join(dir, host, file);
        writeFileSync(path, runnable(readFileSync(join(units, host, file), 'utf8')));
        chmodSync(path, file.endsWith('.service') || file.endsWith('.timer') ? 0o644 : 0o755);
      }
    }

    /** With programs that are here in the place of those in a Nix store. */
    function runnable(text: string): string {
      return text
        .replaceAll(new RegExp(`${store}-(coreutils|systemd)/bin/`, 'g'), '/usr/bin/')
        .replaceAll(new RegExp(`${store}-[a-z]+(-[a-z]+)?/bin/\\S+`, 'g'), '/bin/true')
        .replaceAll(new RegExp(`${store}-(\\S+)`, 'g'), `${dir}/script`)
        .replaceAll(/(?<==-?)\/(?:my|nixpkgs|run|usr\/bin\/crowdsec)[^\s"]+/g, '/bin/true');
    }
    writeFileSync(join(dir, 'script'), '#!/bin/sh\n', { mode: 0o755 });
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  test.each(readdirSync(units))('understands every line of %s', (host) => {
    const all = readdirSync(join(units, host)).filter((name) => /\.(service|timer)$/.test(name));
    const { stdout, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', ...all], {
      cwd: join(dir, host),
      encoding: 'utf8',
    });
    const about = (stdout + stderr).split('\n').filter((line) => all.some((name) => line.includes(name)));
    // Known from version 254 on; NixOS has it, and where it is unknown the bouncer restarts at a steady pace.
    expect(about.filter((line) => !/Restart(Steps|MaxDelaySec)'/.test(line))).toEqual([]);
  });

  const sandboxed = readdirSync(units).flatMap((host) =>
    readdirSync(join(units, host))
      .filter((name) => /^lapidary.*\.service$/.test(name))
      .map((name) => `${host}/${name}`),
  );
  test.each(sandboxed)('finds %s exposed by no more than 2.0', (unit) => {
    const { stdout, stderr } = spawnSync('systemd-analyze', ['security', '--offline=true', join(dir, unit)], {
      encoding: 'utf8',
    });
    const exposure = /Overall exposure level for \S+: ([\d.]+)/.exec(stdout)?.[1];
    expect(Number(exposure), stdout + stderr).toBeLessThanOrEqual(2);
  });

  test.each(['lapidary-key.sh', 'engine.sh', 'cscli-offline.sh'])('%s passes shellcheck', (name) => {
    const { stdout, status } = spawnSync('shellcheck', [join(root, 'nix', name)], { encoding: 'utf8' });
    expect([status, stdout]).toEqual([0, '']);
  });
});
