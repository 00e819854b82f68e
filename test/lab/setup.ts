// Once per run of the real suites: brings the programs they need, and says what cannot run here and why.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { run } from './child.ts';
import { canBoot } from './container.ts';
import { type Debian, debianTools } from './debian.ts';
import { canUseNetns } from './netns.ts';

export type Ability = { ok: true } | { ok: false; why: string };

declare module 'vitest' {
  interface ProvidedContext {
    /** Whether engine and bouncers are here, and where. */
    lab: Debian;
    /** Whether the firewall bouncer can run: it needs a network namespace of its own. */
    netns: Ability;
    /** Whether what reads the flake, and what its scripts run, is here. */
    nix: Ability;
    /** Whether a host with a systemd of its own can be booted. */
    boot: Ability;
  }
}

export default async function setup(project: TestProject): Promise<void> {
  await run(process.execPath, ['scripts/build.mjs'], { cwd: project.config.root });
  const lab = await debianTools();
  const netns = await canUseNetns();
  project.provide('lab', lab);
  project.provide('netns', netns);
  const nix = await canReadNix();
  project.provide('nix', nix);
  if (!nix.ok) console.log(`skipped: nix, host client: ${nix.why}`);
  const boot = lab.ok && netns.ok ? await canBoot() : ({ ok: false, why: 'see above' } as const);
  project.provide('boot', boot);
  if (!boot.ok) console.log(`left out: booted hosts: ${boot.why}`);
  if (!lab.ok) {
    for (const suite of await suites(project)) console.log(`skipped: ${suite}: ${lab.why}`);
  } else if (!netns.ok) {
    console.log(`skipped: firewall bouncer: ${netns.why}`);
  }
}

async function canReadNix(): Promise<Ability> {
  for (const tool of ['nix-instantiate', 'shellcheck', 'systemd-analyze', 'curl', 'jq', 'ssh-keygen']) {
    try {
      await run('sh', ['-c', `command -v ${tool}`]);
    } catch {
      const packages = 'nix-bin, shellcheck, systemd, curl, jq, openssh-client';
      return { ok: false, why: `${tool} is not here (Debian: ${packages})` };
    }
  }
  return { ok: true };
}

async function suites(project: TestProject): Promise<string[]> {
  const entries = await readdir(join(project.config.root, 'test'), { withFileTypes: true });
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  return names.filter((name) => ['conformance', 'e2e', 'faults'].includes(name));
}
