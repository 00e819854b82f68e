// A network namespace of our own, so that a firewall bouncer changes no rule of this host. Inside, one loopback
// port leads to a server on this host's loopback, through a unix socket; nothing else is reachable.
import { spawnSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Child, atProcessEnd, run, startChild } from './child.ts';
import { debianTools, requireTools } from './debian.ts';
import { until } from './wait.ts';

export interface Namespace {
  /** For programs that enter it themselves. */
  path: string;
  /** Runs a command inside it to its end; its standard output. */
  run(command: string, args: string[]): Promise<string>;
  start(command: string, args: string[], options?: { cwd?: string }): Child;
  /** Ends the relay and removes the namespace. Processes started inside must have ended before. */
  close(): Promise<void>;
}

/** The port inside every namespace that leads to the server outside. */
export const relayPort = 8080;

const prefix = 'lapidary-';
let count = 0;
let usable: Promise<{ ok: true } | { ok: false; why: string }> | undefined;

/** Whether this process may make namespaces and look into their nftables. */
export function canUseNetns(): Promise<{ ok: true } | { ok: false; why: string }> {
  usable ??= tryNetns();
  return usable;
}

async function tryNetns(): Promise<{ ok: true } | { ok: false; why: string }> {
  if (process.getuid?.() !== 0) return { ok: false, why: 'only root may make network namespaces' };
  const tools = await debianTools();
  if (!tools.ok) return tools;
  if (!tools.nft) return { ok: false, why: 'nft is not here and cannot be unpacked' };
  try {
    await removeLeftovers();
    const name = await addNamespace();
    try {
      await run('ip', ['netns', 'exec', name, ...(await nftCommand()), 'list', 'ruleset']);
    } finally {
      await run('ip', ['netns', 'del', name]);
    }
    return { ok: true };
  } catch (error) {
    return { ok: false, why: error instanceof Error ? error.message : String(error) };
  }
}

/** nft with what it needs to run, to be used inside a namespace. */
export async function nftCommand(): Promise<string[]> {
  const { nft } = await requireTools();
  if (!nft) throw new Error('nft is not here');
  const settings = Object.entries(nft.env).map(([name, value]) => `${name}=${value}`);
  return ['env', ...settings, nft.path];
}

/** A namespace whose port `relayPort` leads to `targetPort` of this host's loopback. */
export async function openNamespace(targetPort: number): Promise<Namespace> {
  const dir = await mkdtemp(join(tmpdir(), 'lapidary-netns-'));
  const socket = join(dir, 'relay.sock');
  const outside = createServer((inward) => {
    const outward = connect(targetPort, '127.0.0.1');
    inward.pipe(outward).pipe(inward);
    inward.on('error', () => outward.destroy());
    outward.on('error', () => inward.destroy());
    outward.on('close', () => inward.destroy());
  });
  await new Promise<void>((resolve, reject) => {
    outside.once('error', reject);
    outside.listen(socket, resolve);
  });
  const name = await addNamespace();
  const forget = atProcessEnd(() => {
    spawnSync('ip', ['netns', 'del', name]);
    rmSync(dir, { recursive: true, force: true });
  });
  const inside = (command: string, args: string[]) => ['netns', 'exec', name, command, ...args];
  // `ip netns exec` becomes the command, so the child's pid is the command's own.
  const start: Namespace['start'] = (command, args, options) =>
    startChild('ip', inside(command, args), options);
  const relay = start(process.execPath, [join(import.meta.dirname, 'relay.ts'), String(relayPort), socket]);

  async function close() {
    await relay.end('SIGKILL');
    outside.close();
    await run('ip', ['netns', 'del', name]);
    await rm(dir, { recursive: true, force: true });
    forget();
  }
  try {
    await until('the relay inside the namespace listens', (saw) => {
      saw(relay.log());
      return relay.log().includes('listening');
    });
  } catch (error) {
    await close();
    throw error;
  }
  return {
    path: join('/run/netns', name),
    run: (command, args) => run('ip', inside(command, args)),
    start,
    close,
  };
}

async function addNamespace(): Promise<string> {
  const name = `${prefix}${process.pid}-${++count}`;
  await run('ip', ['netns', 'add', name]);
  await run('ip', ['netns', 'exec', name, 'ip', 'link', 'set', 'lo', 'up']);
  return name;
}

/** Those of test processes that were killed without a chance to tidy up. */
async function removeLeftovers(): Promise<void> {
  const list = await run('ip', ['netns', 'list']);
  for (const [name = '', pid = ''] of list.matchAll(new RegExp(`^${prefix}(\\d+)-\\d+`, 'gm'))) {
    if (!existsSync(`/proc/${pid}`)) await run('ip', ['netns', 'del', name]);
  }
}
