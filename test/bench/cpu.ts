// What a process has used, from /proc: on a shared machine the figure that other work moves least.
import { readdirSync, readFileSync } from 'node:fs';

/** USER_HZ, which is 100 on every Linux that Node runs on. */
const ticksPerSecond = 100;

export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The name before it may hold spaces. utime and stime are the fields 14 and 15, the state is the third.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

export function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

/** A process's command and its environment, to start another like it. */
export function commandOf(pid: number): { command: string[]; env: Record<string, string> } {
  const entries = strings(`/proc/${pid}/environ`).map((entry) => {
    const equals = entry.indexOf('=');
    return [entry.slice(0, equals), entry.slice(equals + 1)];
  });
  // Who starts it once more does not listen to what it says of itself.
  const command = strings(`/proc/${pid}/cmdline`).filter((argument) => !argument.startsWith('--control-fd='));
  return { command, env: Object.fromEntries(entries) };
}

/** The process that was started with this argument, which no other has. */
export function pidOf(argument: string): number {
  for (const name of readdirSync('/proc')) {
    try {
      if (/^\d+$/.test(name) && strings(`/proc/${name}/cmdline`).includes(argument)) return Number(name);
    } catch {
      // It ended while we looked.
    }
  }
  throw new Error(`no process runs with ${argument}`);
}

function strings(path: string): string[] {
  return readFileSync(path, 'utf8').split('\0').slice(0, -1);
}
