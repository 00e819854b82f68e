// Debian's custom bouncer with a script that logs each call, in order: what a bouncer was told, as it was told.
import { readFileSync, rmSync } from 'node:fs';
import { appendFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Child, atProcessEnd, startChild } from './child.ts';
import { requireTools } from './debian.ts';
import { until } from './wait.ts';

export interface CustomEvent {
  action: 'add' | 'del';
  value: string;
  seconds: number;
  scenario: string;
  /** The decision as the bouncer read it from the LAPI. */
  decision: {
    id: number;
    origin: string;
    scope: string;
    type: string;
    duration: string;
    [key: string]: unknown;
  };
}

export interface CustomBouncer {
  /** Every call of the script since the first start, oldest first. */
  events(): CustomEvent[];
  /** The values whose last call was an `add`. */
  active(): Set<string>;
  waitFor(predicate: (events: CustomEvent[]) => boolean, timeoutMs?: number): Promise<CustomEvent[]>;
  running(): boolean;
  log(): string;
  /** Stops the process; the events stay readable and restart() goes on in the same log. */
  stop(): Promise<void>;
  /** With another key, if one is given: written into its configuration, as its host does it. */
  restart(key?: string): Promise<void>;
  /** Stops it and removes its folder. */
  close(): Promise<void>;
}

export interface CustomBouncerOptions {
  url: string;
  key: string;
  dir?: string;
  /** As Go writes durations. */
  updateFrequency?: string;
}

// A byte that no argument can hold; Go's JSON has no line break.
const separator = '\x1f';
const script = `#!/bin/sh
printf '%s\\037%s\\037%s\\037%s\\037%s\\n' "$1" "$2" "$3" "$4" "$5" >> "$(dirname "$0")/calls.log"
`;

export async function startCustomBouncer(options: CustomBouncerOptions): Promise<CustomBouncer> {
  const tools = await requireTools();
  const dir = options.dir ?? (await mkdtemp(join(tmpdir(), 'lapidary-custom-')));
  const forgetDir = atProcessEnd(() => rmSync(dir, { recursive: true, force: true }));
  const calls = join(dir, 'calls.log');
  await mkdir(join(dir, 'run'), { recursive: true });
  await appendFile(calls, '');
  await writeFile(join(dir, 'log-call.sh'), script, { mode: 0o755 });
  await writeFile(join(dir, 'custom.yaml'), configuration(dir, options));

  const start = () => startChild(tools.customBouncer, ['-c', join(dir, 'custom.yaml')], { cwd: dir });
  let child: Child = start();
  let earlierLog = '';
  const log = () => earlierLog + child.log();
  const events = () => parse(readFileSync(calls, 'utf8'));
  const stop = () => child.end('SIGTERM');

  return {
    events,
    active() {
      const values = new Set<string>();
      for (const { action, value } of events()) {
        if (action === 'add') values.add(value);
        else values.delete(value);
      }
      return values;
    },
    waitFor(predicate, timeoutMs) {
      const probe = (saw: (thing: unknown) => void) => {
        const all = events();
        saw([...all.slice(-10), log().slice(-500)]);
        return predicate(all) && all;
      };
      return until(`the custom bouncer's events satisfy ${String(predicate)}`, probe, timeoutMs);
    },
    running: () => child.running(),
    log,
    stop,
    async restart(key) {
      await stop();
      if (key !== undefined) {
        await writeFile(join(dir, 'custom.yaml'), configuration(dir, { ...options, key }));
      }
      earlierLog = log();
      child = start();
    },
    async close() {
      await child.end('SIGKILL');
      await rm(dir, { recursive: true, force: true });
      forgetDir();
    },
  };
}

function parse(text: string): CustomEvent[] {
  // The last line may still be on its way.
  const lines = text.slice(0, text.lastIndexOf('\n') + 1).split('\n');
  return lines.filter(Boolean).map((line) => {
    const [action, value = '', seconds, scenario = '', json = 'null'] = line.split(separator);
    const decision = JSON.parse(json) as CustomEvent['decision'];
    return { action: action as CustomEvent['action'], value, seconds: Number(seconds), scenario, decision };
  });
}

function configuration(dir: string, { url, key, updateFrequency = '1s' }: CustomBouncerOptions): string {
  // cache_retention_duration: within it the bouncer does not repeat an `add` that it made before.
  return `bin_path: ${dir}/log-call.sh
feed_via_stdin: false
update_frequency: ${updateFrequency}
cache_retention_duration: 1s
daemonize: true
log_mode: stdout
log_level: info
api_url: ${url.replace(/\/?$/, '/')}
api_key: ${key}
piddir: ${dir}/run/
prometheus: {enabled: false, listen_addr: 127.0.0.1, listen_port: 60602}
`;
}
