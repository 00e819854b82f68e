// Once per run of the real suites: brings the programs they need, and finds out what this machine can run.
import type { TestProject } from 'vitest/node';
import type { Ability } from './ability.ts';
import { run } from './child.ts';
import { canBoot } from './container.ts';
import { canRunDatabases } from './database-server.ts';
import { debianTools } from './debian.ts';
import { canMount } from './mount.ts';
import { canUseNetns } from './netns.ts';
import { canRunChromium } from './chromium.ts';
import { canRunPrometheus } from './prometheus.ts';
import { canRunReaders } from './readers.ts';
import { canRunSchemathesis } from './schemathesis.ts';

export default async function setup(project: TestProject): Promise<void> {
  await run(process.execPath, ['scripts/build.mjs'], { cwd: project.config.root });
  const tools = await debianTools();
  const lab: Ability = tools.ok ? { ok: true } : tools;
  const netns = await canUseNetns();
  const nix = await hasTools(
    ['nix-instantiate', 'shellcheck', 'systemd-analyze'],
    'nix-bin, shellcheck, systemd',
  );
  project.provide('abilities', {
    lab,
    netns,
    databases: lab.ok ? await canRunDatabases() : lab,
    hostTools: await hasTools(['curl', 'jq', 'ssh-keygen'], 'curl, jq, openssh-client'),
    nix,
    nixpkgs: optional(nix.ok ? hasNixpkgs() : nix),
    boot: optional(netns.ok ? await canBoot() : netns),
    sqlite: hasSqlite(),
    mounts: optional(await canMount()),
    schemathesis: await canRunSchemathesis(),
    prometheus: await canRunPrometheus(),
    readers: await canRunReaders(),
    chromium: await canRunChromium(),
  });
}

function optional(ability: Ability): Ability {
  return ability.ok ? ability : { ...ability, optional: true };
}

/** `packages`: Debian's that have them. */
async function hasTools(names: readonly string[], packages: string): Promise<Ability> {
  for (const name of names) {
    try {
      await run('sh', ['-c', `command -v ${name}`]);
    } catch {
      return { ok: false, why: `${name} is not here (Debian: ${packages})` };
    }
  }
  return { ok: true };
}

function hasSqlite(): Ability {
  const [major, minor] = process.versions.node.split('.').map(Number) as [number, number];
  if (major > 22 || (major === 22 && minor >= 13)) return { ok: true };
  return { ok: false, why: 'Node has no SQLite before 22.13' };
}

function hasNixpkgs(): Ability {
  if (process.env['NIXPKGS_LIB'] !== undefined) return { ok: true };
  return { ok: false, why: 'NIXPKGS_LIB does not name nixpkgs’ lib' };
}
