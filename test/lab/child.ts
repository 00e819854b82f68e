// Child processes of the lab: started here and ended here by their own pid, also when the test process
// is ended or crashes. Nothing but SIGKILL of the test process leaves one behind.
import { execFile, spawn } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { constants } from 'node:os';
import { basename, join } from 'node:path';

export interface Child {
  pid: number;
  /** Standard output and standard error so far, mixed as they came. */
  log(): string;
  running(): boolean;
  /** The exit status, or the name of the signal that ended it. Never rejects. */
  exit: Promise<number | string>;
  /** Sends the signal and resolves when the process is gone; SIGKILL follows after `graceMs`. */
  end(signal?: NodeJS.Signals, graceMs?: number): Promise<void>;
}

const lateOutputMs = 500;

/** Where a full run keeps what children print, for test/run.mjs to look for secrets in; without it nothing is kept. */
const logFolder = process.env['LAPIDARY_TEST_LOGS'];

const cleanups = new Set<() => void>();
let listening = false;

/** Runs `cleanup` when the test process ends, unless the returned function was called before. */
export function atProcessEnd(cleanup: () => void): () => void {
  cleanups.add(cleanup);
  if (!listening) {
    listening = true;
    process.once('exit', () => cleanups.forEach((each) => each()));
    // A signal without a listener ends Node without its 'exit' event; vitest ends its workers with SIGTERM.
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
      process.once(signal, () => process.exit(128 + constants.signals[signal]));
    }
    // A vitest that was killed leaves its workers running; they notice by the end of their channel to it.
    process.once('disconnect', () => process.exit(1));
  }
  return () => cleanups.delete(cleanup);
}

export function startChild(
  command: string,
  args: string[],
  options: { cwd?: string; env?: Record<string, string> } = {},
): Child {
  const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  const chunks: string[] = [];
  let running = true;
  const forget = atProcessEnd(() => child.kill('SIGKILL'));
  for (const name of ['stdout', 'stderr'] as const) {
    const stream = child[name];
    const kept = logFolder && join(logFolder, `${basename(command)}-${child.pid}-${name}.log`);
    stream.setEncoding('utf8');
    stream.on('data', (chunk: string) => {
      chunks.push(chunk);
      if (kept) appendFileSync(kept, chunk);
    });
  }
  const exit = new Promise<number | string>((resolve) => {
    const gone = (status: number | string) => {
      running = false;
      forget();
      resolve(status);
    };
    child.once('error', (error) => {
      chunks.push(`couldn't run ${command}: ${error.message}\n`);
      if (child.pid === undefined) gone('not started');
    });
    child.once('close', (code, signal) => gone(code ?? signal ?? 'unknown'));
    // A child of its own that lives on holds its output open: then the rest of the log is not waited for.
    child.once('exit', (code, signal) => setTimeout(gone, lateOutputMs, code ?? signal ?? 'unknown'));
  });
  return {
    pid: child.pid ?? 0,
    log: () => chunks.join(''),
    running: () => running,
    exit,
    async end(signal = 'SIGTERM', graceMs = 10_000) {
      if (!running) return;
      child.kill(signal);
      const impatience = setTimeout(() => child.kill('SIGKILL'), graceMs);
      await exit;
      clearTimeout(impatience);
    },
  };
}

/** Runs a command to its end: its standard output, or an error that carries its standard error. */
export function run(
  command: string,
  args: string[],
  options: { cwd?: string; timeoutMs?: number } = {},
): Promise<string> {
  const { cwd, timeoutMs = 60_000 } = options;
  return new Promise((resolve, reject) => {
    const settings = { cwd, timeout: timeoutMs, maxBuffer: 256 * 1024 * 1024 };
    const child = execFile(command, args, settings, (error, stdout, stderr) => {
      forget();
      if (!error) return resolve(stdout);
      const why = (stderr || stdout || error.message).trim();
      reject(new Error(`couldn't run ${command} ${args.join(' ')}: ${why}`, { cause: error }));
    });
    const forget = atProcessEnd(() => child.kill('SIGKILL'));
  });
}
