// Where a key or token of ours is written down. SQLite keeps text as it is, in its file and in its write-ahead log,
// so the bytes tell.
import { readdir, readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { mintedIn } from '../../src/crypto/mint.ts';

/** The files below `folder` that hold one, but for those called as `meant` says; none when there is no folder. */
export async function leaksIn(folder: string, meant: readonly string[]): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  const files = entries.filter((entry) => entry.isFile() && !meant.includes(entry.name));
  const leaks: string[] = [];
  for (const { parentPath, name } of files) {
    const path = join(parentPath, name);
    // A file of SQLite's may be gone by now; what was in it is in the other one.
    const text = await readFile(path, 'latin1').catch(() => '');
    if (mintedIn(text).length > 0) leaks.push(relative(folder, path));
  }
  return leaks.sort();
}
