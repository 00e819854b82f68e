// How long a disk takes to keep what was written. LAPI commits with each poll, so its rate is the disk's.
import { closeSync, fsyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { median } from './table.ts';

const times = 50;
/** A page of SQLite's. */
const bytes = 4096;

/** The median time of an fsync after a small write, of a file in this folder. */
export function fsyncMs(dir: string): number {
  const path = join(dir, 'fsync');
  const page = Buffer.alloc(bytes, 1);
  const file = openSync(path, 'w');
  try {
    return median(
      Array.from({ length: times }, () => {
        writeSync(file, page);
        const startedMs = performance.now();
        fsyncSync(file);
        return performance.now() - startedMs;
      }),
    );
  } finally {
    closeSync(file);
    rmSync(path);
  }
}
