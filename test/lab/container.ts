// A host with a systemd of its own: a minimal Debian, booted by systemd-nspawn in a network namespace whose port 8080
// leads to one server outside. It shares this machine's kernel and nothing else: its folder is thrown away at the end.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type Child, atProcessEnd, run, startChild } from './child.ts';
import { openNamespace } from './netns.ts';
import { until } from './wait.ts';

export interface Container {
  /** Its file system. */
  root: string;
  boot(): Promise<void>;
  /** Runs a command inside it to its end; its standard output. Rejects when it fails. */
  run(command: string, ...args: string[]): Promise<string>;
  /** A property of a unit, as systemctl shows it. */
  property(unit: string, name: string): Promise<string>;
  /** What a unit has said since the boot. */
  journal(unit: string): Promise<string>;
  shutDown(): Promise<void>;
  close(): Promise<void>;
  log(): string;
}

const cache = resolve(import.meta.dirname, '../../.cache/debian');
const packages = [
  'ca-certificates',
  'curl',
  'dbus',
  'jq',
  'libnss-systemd',
  'libsqlite3-0',
  'nftables',
  'openssh-client',
  'procps',
  'systemd',
];

/** Whether this machine has what booting a host takes; makes the file system that all of them start from. */
export async function canBoot(): Promise<{ ok: true } | { ok: false; why: string }> {
  if (process.getuid?.() !== 0) return { ok: false, why: 'only root may boot a container' };
  for (const tool of ['debootstrap', 'systemd-nspawn', 'nsenter']) {
    const found = ['/usr/sbin', '/usr/bin'].some((folder) => existsSync(join(folder, tool)));
    if (!found) return { ok: false, why: `${tool} is not here` };
  }
  try {
    await fileSystem();
    return { ok: true };
  } catch (error) {
    return { ok: false, why: error instanceof Error ? error.message.slice(0, 300) : String(error) };
  }
}

async function fileSystem(): Promise<string> {
  const ingredients = createHash('sha256').update(packages.join()).digest('hex').slice(0, 8);
  const target = join(cache, `host-${process.arch}-${ingredients}`);
  if (existsSync(target)) return target;
  const release = /^VERSION_CODENAME=(.+)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1];
  if (release === undefined) throw new Error('this is no release of Debian');
  await mkdir(cache, { recursive: true });
  const temporary = join(cache, `tmp-${process.pid}-host`);
  try {
    const args = ['--variant=minbase', `--include=${packages.join(',')}`, release, temporary];
    await run('debootstrap', args, { timeoutMs: 300_000 });
    await rename(temporary, target);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  return target;
}

/** By which a host that is booted here knows the broker at its target port. */
export const containerBroker = 'http://127.0.0.1:8080';

/** A host that is not booted yet, whose port 8080 leads to `targetPort` of this machine's loopback. */
export async function newContainer(targetPort: number): Promise<Container> {
  const dir = await mkdtemp(join(tmpdir(), 'lapidary-boot-'));
  const forget = atProcessEnd(() => rmSync(dir, { recursive: true, force: true }));
  const root = join(dir, 'root');
  await run('cp', ['--archive', '--reflink=auto', await fileSystem(), root]);
  const namespace = await openNamespace(targetPort);
  let nspawn: Child | undefined;
  let earlierLog = '';

  /** The pid, as it is seen from here, of the systemd inside. */
  function init(): string {
    return readFileSync(`/proc/${nspawn?.pid}/task/${nspawn?.pid}/children`, 'utf8').trim();
  }
  const inside = (command: string, ...args: string[]) =>
    run('nsenter', ['--target', init(), '--all', '--', command, ...args]);

  async function shutDown() {
    earlierLog += nspawn?.log() ?? '';
    // The first SIGTERM asks the systemd inside to halt.
    await nspawn?.end('SIGTERM', 20_000);
    nspawn = undefined;
  }

  return {
    root,
    async boot() {
      const network = [`--network-namespace-path=${namespace.path}`, '--capability=CAP_NET_ADMIN'];
      const alone = ['--register=no', '--keep-unit', '--console=pipe', '--quiet'];
      const started = startChild('systemd-nspawn', ['--boot', '-D', root, ...network, ...alone]);
      nspawn = started;
      await until('the host has booted', async (saw) => {
        if (!started.running()) return true;
        const state = await inside('systemctl', 'show', '--property=SystemState', '--value');
        saw([state, started.log().slice(-500)]);
        return /running|degraded|starting/.test(state);
      });
      if (!started.running()) throw new Error(`the host did not boot: ${started.log().slice(-1000)}`);
    },
    run: inside,
    property: async (unit, name) =>
      (await inside('systemctl', 'show', `--property=${name}`, '--value', unit)).trim(),
    journal: (unit) => inside('journalctl', '--boot', '--output=cat', `--unit=${unit}`),
    shutDown,
    async close() {
      await shutDown();
      await namespace.close();
      await rm(dir, { recursive: true, force: true });
      forget();
    },
    log: () => earlierLog + (nspawn?.log() ?? ''),
  };
}
