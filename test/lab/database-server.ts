// PostgreSQL and MariaDB for an engine: private instances of Debian's servers on loopback, each with its data in a
// folder of its own. No package is installed and no service of this machine is touched.
import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { chown, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { type Child, atProcessEnd, run, startChild } from './child.ts';
import { aptGet, libraryFolders, unpacked } from './debian.ts';
import { freePort } from './ports.ts';
import { until } from './wait.ts';

export type DatabaseKind = 'sqlite' | 'postgresql' | 'mariadb';
export type ServerKind = Exclude<DatabaseKind, 'sqlite'>;

/** A server with one empty database that its one user owns. */
export interface DatabaseServer {
  kind: ServerKind;
  port: number;
  user: string;
  password: string;
  name: string;
  running(): boolean;
  stop(): Promise<void>;
  /** Same data, same port. */
  start(): Promise<void>;
  /** Stops it and removes its folder. */
  close(): Promise<void>;
  log(): string;
}

const user = 'cs';
/** The owner of PostgreSQL's first database is whoever made it: that one is taken. */
const name = { postgresql: 'postgres', mariadb: 'cs' } satisfies Record<ServerKind, string>;

interface Program {
  command: string;
  args: string[];
}

interface Server {
  /** Run once, in order, before the first start. */
  prepare: Program[];
  serve(port: number): Program;
  ready: string;
  /** Ends it without waiting for its clients. */
  stopSignal: NodeJS.Signals;
}

/** In no time zone of this machine: an engine that takes a local time for UTC is found out. */
const zone = { postgresql: '<+0530>-05:30', mariadb: '+05:30' } satisfies Record<ServerKind, string>;

const servers: Record<ServerKind, (root: string, dir: string) => Promise<Server>> = {
  async postgresql(root, dir) {
    const [version = ''] = await readdir(join(root, 'usr/lib/postgresql'));
    const bin = join(root, 'usr/lib/postgresql', version, 'bin');
    const data = ['-D', join(dir, 'data')];
    const init = ['-U', user, `--pwfile=${join(dir, 'password')}`, '-A', 'scram-sha-256', '-E', 'UTF8'];
    return {
      prepare: [{ command: join(bin, 'initdb'), args: [...data, ...init, '--locale=C'] }],
      serve(port) {
        const settings = ['listen_addresses=127.0.0.1', 'unix_socket_directories=', 'jit=off'];
        const args = [...settings, `timezone=${zone.postgresql}`].flatMap((setting) => ['-c', setting]);
        return { command: join(bin, 'postgres'), args: [...data, '-p', String(port), ...args] };
      },
      ready: 'ready to accept connections',
      stopSignal: 'SIGINT',
    };
  },
  async mariadb(root, dir) {
    const base = ['--no-defaults', `--basedir=${join(root, 'usr')}`, `--datadir=${join(dir, 'data')}`];
    return {
      prepare: [{ command: join(root, 'usr/bin/mariadb-install-db'), args: [...base, '--skip-test-db'] }],
      serve: (port) => ({
        command: join(root, 'usr/sbin/mariadbd'),
        args: [
          ...base,
          `--port=${port}`,
          '--bind-address=127.0.0.1',
          `--socket=${join(dir, 'socket')}`,
          `--pid-file=${join(dir, 'pid')}`,
          '--character-set-server=utf8mb4',
          `--default-time-zone=${zone.mariadb}`,
          `--init-file=${join(dir, 'init.sql')}`,
        ],
      }),
      ready: 'ready for connections',
      stopSignal: 'SIGTERM',
    };
  },
};

/** Whether both servers can be had and run here. */
export async function canRunDatabases(): Promise<{ ok: true } | { ok: false; why: string }> {
  try {
    for (const kind of ['postgresql', 'mariadb'] as const) {
      const { serve } = await servers[kind](await packages(), '/nonexistent');
      const { command, args } = await asUnprivileged({ command: serve(0).command, args: ['--version'] });
      await run(command, args);
    }
    return { ok: true };
  } catch (error) {
    return { ok: false, why: (error instanceof Error ? error.message : String(error)).slice(0, 300) };
  }
}

export async function startDatabaseServer(kind: ServerKind): Promise<DatabaseServer> {
  const dir = await mkdtemp(join(tmpdir(), `lapidary-${kind}-`));
  const forgetDir = atProcessEnd(() => rmSync(dir, { recursive: true, force: true }));
  const password = randomBytes(16).toString('hex');
  await writeFile(join(dir, 'password'), password);
  await writeFile(join(dir, 'init.sql'), initSql(password));
  if (isRoot) await chown(dir, nobody, nobody);
  const server = await servers[kind](await packages(), dir);
  for (const program of server.prepare) {
    const { command, args } = await asUnprivileged(program);
    await run(command, args);
  }
  let port = 0;
  let child: Child | undefined;
  let earlierLog = '';
  const running = () => child?.running() ?? false;
  const log = () => earlierLog + (child?.log() ?? '');

  async function start() {
    if (running()) return;
    earlierLog = log();
    const { command, args } = await asUnprivileged(server.serve(port));
    const started = startChild(command, args, { cwd: dir });
    child = started;
    await until(`${kind} is ready`, (saw) => {
      saw(started.log().slice(-500));
      return !started.running() || started.log().includes(server.ready);
    });
    if (!started.running()) throw new Error(`${kind} ended at its start: ${started.log().slice(-2000)}`);
  }

  // Another process may take the port between the choice and the start.
  for (let attempt = 1; ; attempt++) {
    port = await freePort();
    try {
      await start();
      break;
    } catch (error) {
      await child?.end('SIGKILL');
      if (attempt === 3 || !log().includes('already in use')) throw error;
    }
  }
  return {
    kind,
    port,
    user,
    password,
    name: name[kind],
    running,
    stop: async () => child?.end(server.stopSignal),
    start,
    async close() {
      await child?.end(server.stopSignal);
      await rm(dir, { recursive: true, force: true });
      forgetDir();
    },
    log,
  };
}

/** What MariaDB runs at each start. */
function initSql(password: string): string {
  return `CREATE DATABASE IF NOT EXISTS ${name.mariadb};
CREATE USER IF NOT EXISTS '${user}'@'127.0.0.1' IDENTIFIED BY '${password}';
GRANT ALL ON ${name.mariadb}.* TO '${user}'@'127.0.0.1';
`;
}

const isRoot = process.getuid?.() === 0;
const nobody = 65534;

/** Both servers, and the libraries that this machine lacks. */
function packages(): Promise<string> {
  return unpacked('databases', async () => {
    // Debian's package of no version depends on the one of this release.
    const depends = await run('apt-cache', ['depends', '--important', 'postgresql']);
    const postgresql = /postgresql-\d+/.exec(depends)?.[0] ?? 'postgresql-15';
    const wanted = [postgresql, 'mariadb-server-core', 'mariadb-client-core'];
    const plan = await aptGet(['--simulate', 'install', '--no-install-recommends', ...wanted]);
    const missing = [...plan.matchAll(/^Inst (lib\S+) \(/gm)].map((match) => match[1]!);
    // Perl is for scripts, and LLVM for what is turned off above.
    return [...wanted, ...missing.filter((library) => !/perl|llvm/.test(library))];
  });
}

/**
 * Servers refuse to be run by root: then they are nobody's. They keep the one right to read what others may not, since
 * the checkout may be in such a place, and `no_setuid_fixup` so that access(2) knows of it.
 */
async function asUnprivileged({ command, args }: Program): Promise<Program> {
  const libraries = (await libraryFolders(await packages())).join(delimiter);
  const rest = ['env', `LD_LIBRARY_PATH=${libraries}`, command, ...args];
  if (!isRoot) return { command: 'env', args: rest.slice(1) };
  const ids = [`--reuid=${nobody}`, `--regid=${nobody}`, '--clear-groups', '--securebits=+no_setuid_fixup'];
  const rights = ['--inh-caps=+dac_read_search', '--ambient-caps=+dac_read_search'];
  return { command: 'setpriv', args: [...ids, ...rights, ...rest] };
}
