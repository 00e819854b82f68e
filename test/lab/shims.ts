// Programs in the place of the system's, for a client that runs them: they note what any user of the host can see, and
// kill the client after the step that they are told.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FetchOptions } from './broker-host.ts';

type Watched = Required<Pick<FetchOptions, 'shims' | 'env'>>;

export interface Shims {
  /** A run that is noted under this name. */
  watching(name: string): Watched;
  /** A run that ends with its `step`th program, noted likewise. */
  killingAt(step: number, name: string): Watched;
  /** Arguments and environment of every program of a run. */
  seen(name: string): string;
  close(): Promise<void>;
}

/** What nix/lapidary-key.sh runs. */
export const clientPrograms = [
  'base64',
  'cat',
  'curl',
  'cut',
  'head',
  'jq',
  'mkdir',
  'mv',
  'sha512sum',
  'ssh-keygen',
  'sync',
  'tr',
];

export async function makeShims(): Promise<Shims> {
  const dir = await mkdtemp(join(tmpdir(), 'lapidary-shims-'));
  await mkdir(join(dir, 'bin'));
  for (const program of clientPrograms) {
    const real = spawnSync('which', [program], { encoding: 'utf8' }).stdout.trim();
    const shim = `#!/bin/bash
echo "$0 $*" >>"$SHIM_LOG"
/usr/bin/env >>"$SHIM_LOG"
${real} "$@"
status=$?
# Two programs of a pipe may end at once: each has a line of its own, and the line's number is its step.
echo "$$" >>"$SHIM_LOG.count"
[[ $(/usr/bin/grep -nx "$$" "$SHIM_LOG.count") != "$SHIM_KILL_AT:$$" ]] || kill -KILL 0
exit $status
`;
    await writeFile(join(dir, 'bin', program), shim, { mode: 0o755 });
  }
  const killingAt = (step: number, name: string): Watched => ({
    shims: join(dir, 'bin'),
    env: { SHIM_LOG: join(dir, name), SHIM_KILL_AT: String(step) },
  });
  return {
    killingAt,
    watching: (name) => killingAt(0, name),
    seen: (name) => readFileSync(join(dir, name), 'utf8'),
    close: () => rm(dir, { recursive: true, force: true }),
  };
}
