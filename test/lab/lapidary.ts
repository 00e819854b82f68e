// Lapidary as its users run it: `npm start`'s script on a free port with a state folder of its own.
// It must have been built (`node scripts/build.mjs`); the suites' set-up does so.
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { processes } from '../../scripts/processes.mjs';
import { mintedIn } from '../../src/crypto/mint.ts';
import { type Child, atProcessEnd, startChild } from './child.ts';
import { leaksIn } from './leaks.ts';
import { freePort } from './ports.ts';
import { until } from './wait.ts';

export interface Lapidary {
  url: string;
  stateDir: string;
  /** A call of the operator API: `operator('GET', '/feed')`. */
  operator(
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<{ status: number; headers: Headers; body: any }>;
  /** Registers a bouncer and returns its key. */
  addBouncer(name: string): Promise<string>;
  ban(value: string, options?: { duration?: string; type?: string; scope?: string }): Promise<void>;
  unban(value: string): Promise<void>;
  /** One round of sync with the engine, now. */
  sync(options?: { full?: boolean; force?: boolean }): Promise<Round>;
  /** What `GET /api/v1/feed` and `GET /health` say. */
  feed(): Promise<any>;
  health(): Promise<any>;
  /** Pids of the supervisor and of its workerd. */
  pids(): Promise<{ supervisor: number; workerd: number }>;
  /** SIGKILL to the supervisor and to workerd, as a power cut does it, or to one of them. */
  kill(which?: 'supervisor' | 'workerd'): Promise<void>;
  stop(): Promise<void>;
  /** Same state, same port. */
  start(): Promise<void>;
  /** Where a key or token is that must be nowhere: `log`, or files of its state but the operator's own two. */
  leaks(): Promise<string[]>;
  /** Throws when there are leaks, after all is gone. */
  close(): Promise<void>;
  log(): string;
}

/** What one round of sync did. */
export interface Round {
  ok: boolean;
  added: number;
  removed: number;
  error: string | null;
  warning: string | null;
}

export interface LapidaryOptions {
  /** The engine to mirror: its address and the feed's key. */
  upstream?: { url: string; key: string };
  /** Any other setting by its environment variable. */
  settings?: Record<string, string>;
  /** Puts what an earlier one has left into the state folder. */
  prepare?: (stateDir: string) => void;
}

/** A killed process that its parent has not waited for yet is a zombie: it holds nothing any more. */
export function isRunning(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

/** `npm start`'s script, whether it comes up or not. It has the suites' PATH and these settings. */
export function runStart(stateDir: string, port: number, settings: Record<string, string> = {}): Child {
  const script = new URL('../../scripts/start.mjs', import.meta.url).pathname;
  const basis = { PATH: process.env['PATH'] ?? '', PORT: String(port), STATE_DIR: stateDir };
  return startChild(process.execPath, [script], { env: { ...basis, ...settings } });
}

/** The pids of the workerds on this state, supervised or not. */
export function workerdsOn(stateDir: string): number[] {
  const argument = `--directory-path=feed-data=${join(stateDir, 'feed')}`;
  return processes()
    .filter(({ args }) => args.includes(argument))
    .map(({ pid }) => pid);
}

export const operatorToken = async (stateDir: string): Promise<string> =>
  (await readFile(join(stateDir, 'operator-token'), 'utf8')).trim();

/** The operator API at `url`, opened by the token that is kept in `stateDir`. */
export function operatorAt(url: string, stateDir: string): Lapidary['operator'] {
  return async (method, path, body, headers = {}) => {
    const token = await operatorToken(stateDir);
    const response = await fetch(`${url}/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    const { status, headers: answered } = response;
    return { status, headers: answered, body: text === '' ? null : JSON.parse(text) };
  };
}

export async function startLapidary(options: LapidaryOptions = {}): Promise<Lapidary> {
  const stateDir = await mkdtemp(join(tmpdir(), 'lapidary-state-'));
  const forgetDir = atProcessEnd(() => {
    killOrphan();
    rmSync(stateDir, { recursive: true, force: true });
  });
  options.prepare?.(stateDir);
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const { upstream } = options;
  const settings: Record<string, string> = {
    SYNC_INTERVAL_SECONDS: '1',
    ...(upstream ? { UPSTREAM_URL: upstream.url, UPSTREAM_API_KEY: upstream.key } : {}),
    ...options.settings,
  };
  let child: Child | undefined;
  let earlierLog = '';

  const log = (): string => earlierLog + (child?.log() ?? '');

  async function start(): Promise<void> {
    if (child?.running()) return;
    earlierLog = log();
    const started = runStart(stateDir, port, settings);
    child = started;
    await until('lapidary is ready', (saw) => {
      saw(started.log().slice(-500));
      return started.log().includes('lapidary serves') || !started.running();
    });
    if (!started.running()) throw new Error(`lapidary ended at its start: ${started.log()}`);
  }

  const workerd = (): number => workerdsOn(stateDir)[0] ?? 0;

  /** A supervisor that was killed left its workerd behind. */
  function killOrphan(): void {
    const pid = workerd();
    if (pid !== 0) process.kill(pid, 'SIGKILL');
  }

  async function pids(): Promise<{ supervisor: number; workerd: number }> {
    return { supervisor: child?.pid ?? 0, workerd: workerd() };
  }

  const operator = operatorAt(url, stateDir);

  async function demand(status: number, method: string, path: string, body?: unknown) {
    const answer = await operator(method, path, body);
    if (answer.status === status) return answer.body;
    throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
  }

  async function leaks(): Promise<string[]> {
    const kept = await leaksIn(stateDir, ['operator-token', 'operator-header']);
    return mintedIn(log()).length > 0 ? ['log', ...kept] : kept;
  }

  await start();
  return {
    url,
    stateDir,
    operator,
    addBouncer: async (name) => (await demand(201, 'POST', '/bouncers', { name })).key,
    async ban(value, { duration = '4h', ...rest } = {}) {
      await demand(201, 'POST', '/decisions', { value, duration, ...rest });
    },
    async unban(value) {
      await demand(200, 'DELETE', `/decisions?value=${encodeURIComponent(value)}`);
    },
    async sync({ full = false, force = false } = {}) {
      return (await operator('POST', `/feed/sync?full=${full}&force=${force}`)).body;
    },
    feed: () => demand(200, 'GET', '/feed'),
    health: async () => (await fetch(`${url}/health`)).json(),
    pids,
    async kill(which) {
      const all = await pids();
      // The supervisor first: it would start another workerd.
      const victims = which ? [all[which]] : [all.supervisor, all.workerd];
      for (const pid of victims) if (existsSync(`/proc/${pid}`)) process.kill(pid, 'SIGKILL');
      await until('the killed are gone', () => victims.every((pid) => !isRunning(pid)));
      if (which !== 'workerd') await child?.exit;
    },
    stop: async () => child?.end('SIGTERM'),
    start,
    leaks,
    async close() {
      await child?.end('SIGTERM');
      killOrphan();
      const found = await leaks();
      await rm(stateDir, { recursive: true, force: true });
      forgetDir();
      if (found.length > 0) throw new Error(`lapidary left a key or token in ${found.join(', ')}`);
    },
    log,
  };
}
