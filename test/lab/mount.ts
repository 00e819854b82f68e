// A small disk of its own, to be filled up or made read-only.
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { atProcessEnd, run } from './child.ts';

export interface Disk {
  path: string;
  makeReadOnly(): Promise<void>;
  makeWritable(): Promise<void>;
  /** Whoever has a file of it open must have ended before. */
  close(): Promise<void>;
}

export async function mountDisk(sizeBytes: number): Promise<Disk> {
  const path = await mkdtemp(join(tmpdir(), 'lapidary-disk-'));
  await run('mount', ['-t', 'tmpfs', '-o', `size=${sizeBytes}`, 'tmpfs', path]);
  const forget = atProcessEnd(() => spawnSync('umount', ['--lazy', path]));
  const remount = async (mode: string) => void (await run('mount', ['-o', `remount,${mode}`, path]));
  return {
    path,
    makeReadOnly: () => remount('ro'),
    makeWritable: () => remount('rw'),
    async close() {
      await run('umount', [path]);
      forget();
      await rm(path, { recursive: true });
    },
  };
}

/** Whether this process may mount one. */
export async function canMount(): Promise<{ ok: true } | { ok: false; why: string }> {
  if (process.getuid?.() !== 0) return { ok: false, why: 'only root may mount a disk' };
  try {
    await (await mountDisk(1 << 20)).close();
    return { ok: true };
  } catch (error) {
    return { ok: false, why: error instanceof Error ? error.message.slice(0, 300) : String(error) };
  }
}
