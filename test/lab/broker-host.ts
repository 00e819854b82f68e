// A host as its broker sees it: an SSH host key, a state folder, and nix/lapidary-key.sh, run with an empty
// environment. In front of the broker stands a gate that can lose answers or hold them back.
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from './child.ts';
import { freePort } from './ports.ts';

export interface Gate {
  url: string;
  /** `lost`: the broker gets a POST and acts on it, the host gets no answer. `slow`: nobody gets anything. */
  mode: 'pass' | 'lost' | 'lost-once' | 'slow';
  close(): void;
}

/**
 * The header that tells the broker where a host is: a test's hosts are many, and each has an address of its own. Of this
 * machine: the gate's own name is good for nobody else.
 */
export const addressHeader = 'x-real-ip';

/** `target` is asked for with each request: the broker may start later, told that hosts know it as the gate. */
export async function openGate(target: () => string): Promise<Gate> {
  let connections = 0;
  const port = await freePort();
  const gate: Gate = { url: `http://127.0.0.1:${port}`, mode: 'pass', close };
  const server = createServer((inward, answer) => {
    if (gate.mode === 'slow') return;
    const { method, url } = inward;
    const number = ++connections;
    const headers = { ...inward.headers, [addressHeader]: `127.1.${number >> 8}.${number & 255}` };
    const outward = request(new URL(url ?? '/', target()), { method, headers }, (response) => {
      if (method === 'POST' && gate.mode !== 'pass') {
        if (gate.mode === 'lost-once') gate.mode = 'pass';
        response.resume().on('end', () => inward.socket.destroy());
        return;
      }
      answer.writeHead(response.statusCode ?? 500, response.headers);
      response.pipe(answer);
    });
    outward.on('error', () => inward.socket.destroy());
    inward.pipe(outward);
  });
  function close() {
    server.closeAllConnections();
    server.close();
  }
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  return gate;
}

export interface Host {
  name: string;
  publicKey: string;
  dir: string;
  /** Runs the client to its end; the status is a signal's name when it was killed. */
  fetchKey(options?: FetchOptions): Promise<{ status: number | string; log: string }>;
  /** The published key, or nothing. */
  key(): string | undefined;
  /** The published file of a machine's account, there or not. */
  credentialsFile: string;
  close(): Promise<void>;
}

export interface FetchOptions {
  /** Sends the key in this file instead: that of the host's engine. */
  engineKey?: string;
  /** Asks for a machine's account instead. */
  machine?: boolean;
  args?: string[];
  /** No file takes a byte, as on a full disk. */
  diskFull?: boolean;
  /** A folder whose programs are found before the system's. */
  shims?: string;
  env?: Record<string, string>;
}

/** The client's exit codes. */
export const exit = {
  fetched: 0,
  unchanged: 10,
  offline: 11,
  usage: 64,
  offlineWithoutAny: 75,
  waiting: 76,
  refusedWithoutAny: 77,
  refused: 78,
};

const script = new URL('../../nix/lapidary-key.sh', import.meta.url).pathname;

/** A host that was just made. The broker does not know it yet. */
export async function newHost(name: string, broker: () => string): Promise<Host> {
  const dir = await mkdtemp(join(tmpdir(), 'lapidary-host-'));
  const hostKey = join(dir, 'host-key');
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', '', '-f', hostKey]);
  return {
    name,
    dir,
    credentialsFile: join(dir, 'machine-state/credentials.yaml'),
    publicKey: readFileSync(`${hostKey}.pub`, 'utf8').trim(),
    fetchKey({ args = [], engineKey, machine = false, diskFull = false, shims, env = {} } = {}) {
      const [what, state] = machine
        ? [['--machine'], 'machine-state']
        : engineKey === undefined
          ? [['--bouncer', name], 'state']
          : [['--engine-key', engineKey], 'engine-state'];
      const own = ['--host', name, ...what, '--host-key', hostKey, '--state', join(dir, state)];
      const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
      // A write past the limit of a file's size fails (EFBIG) where its signal is ignored: that takes no mount, and no root.
      const limited = diskFull ? ['-c', 'trap "" XFSZ; ulimit -f 0; exec "$BASH" "$@"', 'bash'] : [];
      const child = spawn('/bin/bash', [...limited, script, '--broker', broker(), ...own, ...args], {
        env: { PATH: shims === undefined ? path : `${shims}:${path}`, ...env },
        stdio: ['ignore', 'pipe', 'pipe'],
        // A process group of its own, so that a test can kill all of it.
        detached: true,
      });
      let log = '';
      for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (log += String(chunk)));
      return new Promise((resolve) => {
        child.on('close', (code, signal) => resolve({ status: code ?? signal ?? '', log }));
      });
    },
    key() {
      const { status, stdout } = spawnSync('cat', [join(dir, 'state/key')], { encoding: 'utf8' });
      return status === 0 ? stdout : undefined;
    },
    close: () => rm(dir, { recursive: true, force: true }),
  };
}
