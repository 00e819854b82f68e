// Real programs of other people (engine, bouncers, nft) from Debian's packages, unpacked into .cache/debian of
// the checkout. Never installs a package and never runs a maintainer script: those want the central API.
import { existsSync, statSync } from 'node:fs';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { delimiter, dirname, join, resolve } from 'node:path';
import { run } from './child.ts';

export interface DebianTools {
  ok: true;
  crowdsec: string;
  cscli: string;
  firewallBouncer: string;
  customBouncer: string;
  /** Absent where neither PATH nor Debian has one that runs; `env` holds what it must be run with. */
  nft?: { path: string; env: Record<string, string> };
  /** The engine package's offline hub and its grok patterns, for an agent that reads a log file. */
  hub: string;
  patterns: string;
}

export type Debian = DebianTools | { ok: false; why: string };

const cache = resolve(import.meta.dirname, '../../.cache/debian');

const programs = ['crowdsec', 'crowdsec-firewall-bouncer', 'crowdsec-custom-bouncer'];
// nft and every shared library it needs that a minimal Debian does not have.
const nftables = [
  'nftables',
  'libnftables1',
  'libnftnl11',
  'libmnl0',
  'libxtables12',
  'libjansson4',
  'libedit2',
  'libbsd0',
  'libmd0',
  'libgmp10',
  'libtinfo6',
];

let found: Promise<Debian> | undefined;

/** Finds the programs; fetches them the first time. CROWDSEC_BIN names another engine, and CSCLI_BIN its cscli. */
export function debianTools(): Promise<Debian> {
  found ??= find().catch((error: unknown) => ({ ok: false, why: firstLine(error) }));
  return found;
}

/** The same for callers that cannot go on without. */
export async function requireTools(): Promise<DebianTools> {
  const tools = await debianTools();
  if (!tools.ok) throw new Error(tools.why);
  return tools;
}

async function find(): Promise<Debian> {
  const root = await unpacked('crowdsec', async () => programs);
  const engine = engineAt(process.env.CROWDSEC_BIN ?? join(root, 'usr/bin'));
  const { crowdsec, cscli } = { ...engine, ...(process.env.CSCLI_BIN && { cscli: process.env.CSCLI_BIN }) };
  await run(crowdsec, ['-version']);
  await run(cscli, ['version']);
  const nft = await findNft();
  return {
    ok: true,
    crowdsec,
    cscli,
    firewallBouncer: join(root, 'usr/bin/crowdsec-firewall-bouncer'),
    customBouncer: join(root, 'usr/bin/crowdsec-custom-bouncer'),
    ...(nft && { nft }),
    hub: join(root, 'usr/share/crowdsec/hub'),
    patterns: join(root, 'etc/crowdsec/patterns'),
  };
}

/** An engine by its place: a folder that has crowdsec and cscli, or the one program with the other beside it. */
export function engineAt(place: string): { crowdsec: string; cscli: string } {
  const folder = statSync(place).isDirectory() ? place : dirname(place);
  return { crowdsec: folder === place ? join(folder, 'crowdsec') : place, cscli: join(folder, 'cscli') };
}

async function findNft(): Promise<DebianTools['nft']> {
  const installed = onPath('nft');
  if (installed) return { path: installed, env: {} };
  try {
    const root = await unpacked('nftables', async () => nftables);
    const env = { LD_LIBRARY_PATH: (await libraryFolders(root)).join(delimiter) };
    const path = join(root, 'usr/sbin/nft');
    await run('env', [`LD_LIBRARY_PATH=${env.LD_LIBRARY_PATH}`, path, '--version']);
    return { path, env };
  } catch {
    // Only the firewall bouncer's suite needs nft, and canUseNetns() tells that suite that there is none.
    return undefined;
  }
}

/** Where the shared libraries of unpacked packages are. */
export async function libraryFolders(root: string): Promise<string[]> {
  const folders: string[] = [];
  for (const parent of ['usr/lib', 'lib'].map((name) => join(root, name)).filter(existsSync)) {
    const names = await readdir(parent);
    folders.push(...names.filter((name) => name.includes('-linux-')).map((name) => join(parent, name)));
  }
  return folders;
}

/**
 * The folder where `packages` are unpacked. It appears by a rename once it is complete, so an interrupted run
 * leaves only a temporary folder (removed by the next), and of two runs at once the second keeps the first's.
 */
export async function unpacked(name: string, packages: () => Promise<string[]>): Promise<string> {
  const target = join(cache, `${name}-${process.arch}`);
  if (existsSync(target)) return target;
  for (const tool of ['apt-get', 'dpkg']) {
    if (!onPath(tool)) throw new Error(`${tool} is not here, so Debian's packages cannot be unpacked`);
  }
  await mkdir(cache, { recursive: true });
  await removeLeftovers();
  const temporary = join(cache, `tmp-${process.pid}-${name}`);
  const downloads = join(temporary, 'deb');
  const root = join(temporary, 'root');
  try {
    await mkdir(downloads, { recursive: true });
    // Downloads land in a folder that apt's own user may not enter.
    const args = ['-o', 'APT::Sandbox::User=root', 'download', ...(await packages())];
    await aptGet(args, downloads);
    for (const file of await readdir(downloads)) {
      await run('dpkg', ['-x', join(downloads, file), root]);
    }
    await rename(root, target).catch((error: unknown) => {
      if (!existsSync(target)) throw error;
    });
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  return target;
}

async function removeLeftovers(): Promise<void> {
  for (const name of await readdir(cache)) {
    const pid = Number(/^tmp-(\d+)-/.exec(name)?.[1]);
    if (pid && pid !== process.pid && !existsSync(`/proc/${pid}`)) {
      await rm(join(cache, name), { recursive: true, force: true });
    }
  }
}

/** apt-get, and again with new package lists where those were missing or name versions that the mirror no longer has. */
export async function aptGet(args: string[], cwd?: string): Promise<string> {
  const options = { ...(cwd && { cwd }), timeoutMs: 300_000 };
  try {
    return await run('apt-get', args, options);
  } catch (error) {
    if (!/Unable to locate|Can't find|no installation candidate|404/.test(reason(error))) throw error;
    await run('apt-get', ['update'], options);
    return run('apt-get', args, options);
  }
}

function onPath(name: string): string | undefined {
  // sbin is where Debian keeps nft, and is not on everyone's PATH.
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders
    .filter((folder) => folder !== '')
    .map((folder) => join(folder, name))
    .find((path) => existsSync(path));
}

function firstLine(error: unknown): string {
  // Without the options of the command that failed.
  return (
    reason(error)
      .replace(/^couldn't run (\S+) .*?: (?=E: )/, '$1: ')
      .split('\n', 1)[0] ?? ''
  );
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
