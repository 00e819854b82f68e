// The processes of this machine. From /proc where there is one: a new Debian has no `ps`.

import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';

/**
 * @typedef {object} Process
 * @property {number} pid
 * @property {number} parent
 * @property {string[]} args the program first; `ps` does not tell a blank in one from the blank after it
 */

/** @returns {Process[]} those that this user may see */
export function processes() {
  return existsSync('/proc/self/stat') ? kernels() : listed();
}

function kernels() {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.flatMap((pid) => {
    try {
      const args = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
      // `pid (name) state parent …`: the name may hold anything.
      const [, parent] = /\) \S (\d+) [^)]*$/.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'));
      return [{ pid: Number(pid), parent: Number(parent), args }];
    } catch {
      // It ended meanwhile.
      return [];
    }
  });
}

function listed() {
  const { stdout } = spawnSync('ps', ['-eww', '-o', 'pid=,ppid=,args='], { encoding: 'utf8' });
  return [...(stdout ?? '').matchAll(/^\s*(\d+)\s+(\d+)\s+(.*)$/gm)].map(([, pid, parent, command]) => {
    return { pid: Number(pid), parent: Number(parent), args: command.split(' ') };
  });
}
