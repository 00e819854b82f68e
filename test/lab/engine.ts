// A real engine (crowdsec, LAPI only) on loopback in a folder of its own, and its command line.
// Whatever it needs is written here; no file outside its folder is read.
import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Child, atProcessEnd, run, startChild } from './child.ts';
import { type DatabaseKind, type DatabaseServer, startDatabaseServer } from './database-server.ts';
import { engineAt, requireTools } from './debian.ts';
import { untilUnlocked } from './locked.ts';
import { freePort } from './ports.ts';
import { until } from './wait.ts';

export interface BanOptions {
  /** As Go writes durations: 4h, 90s. */
  duration?: string;
  type?: string;
  /** A scope other than Ip and Range, such as Country. */
  scope?: string;
  /** A range even though the value has no slash, or none although it has. */
  range?: boolean;
  reason?: string;
}

export interface ImportRow {
  duration: string;
  scope: string;
  type: string;
  value: string;
  reason: string;
}

export interface Engine {
  url: string;
  dir: string;
  /** Its SQLite file; there is none where a server keeps its data. */
  databasePath: string;
  /** Absent with SQLite. It stops with the engine's `close` and may be stopped before. */
  databaseServer?: DatabaseServer;
  /** As the engine says it, without the leading v: 1.4.6-6~deb12u1+b1-debian. */
  version: string;
  /** The machine (agent) that exists from the start; postAlert logs in as it. */
  machine: { login: string; password: string };
  cscli(...args: string[]): Promise<string>;
  addBouncer(name: string): Promise<string>;
  deleteBouncer(name: string): Promise<void>;
  ban(value: string, options?: BanOptions): Promise<void>;
  unban(value: string, options?: Pick<BanOptions, 'type' | 'scope' | 'range'>): Promise<void>;
  importDecisions(rows: ImportRow[]): Promise<void>;
  running(): boolean;
  /** SIGKILL: what a crash of its host leaves behind. */
  kill(): Promise<void>;
  stop(): Promise<void>;
  /** Same folder, same port, same keys. */
  start(): Promise<void>;
  /** While stopped: a fresh database (ids begin at 1 again) in which machine and bouncer keys are known again. */
  emptyDatabase(): Promise<void>;
  /** While stopped: copies the database aside; `restore`, while stopped again, puts it back. */
  copyDatabase(): Promise<{ restore(): Promise<void> }>;
  /** Stops it and removes its folder. */
  close(): Promise<void>;
  log(): string;
}

export interface EngineOptions {
  dir?: string;
  /** SQLite unless given; a server, where `canRunDatabases()`, is the engine's own. */
  database?: DatabaseKind;
  /** Another engine than the suites' (CROWDSEC_BIN, or else Debian's), as `engineAt` reads it. */
  binary?: string;
  /** More lines of `api.server`: `trusted_proxies: [127.0.0.1]`. */
  server?: string[];
  env?: Record<string, string>;
}

export async function startEngine(options: EngineOptions = {}): Promise<Engine> {
  const tools = options.binary === undefined ? await requireTools() : engineAt(options.binary);
  const { database = 'sqlite' } = options;
  const databaseServer = database === 'sqlite' ? undefined : await startDatabaseServer(database);
  const dir = options.dir ?? (await mkdtemp(join(tmpdir(), 'lapidary-engine-')));
  const forgetDir = atProcessEnd(() => rmSync(dir, { recursive: true, force: true }));
  const databasePath = join(dir, 'data/crowdsec.db');
  const machine = { login: 'lab', password: randomBytes(16).toString('hex') };
  const keys = new Map<string, string>();
  let port = 0;
  let child: Child | undefined;
  let earlierLog = '';
  let imports = 0;

  const url = () => `http://127.0.0.1:${port}`;
  const running = () => child?.running() ?? false;
  const log = () => earlierLog + (child?.log() ?? '');
  const cscli = (...args: string[]) =>
    untilUnlocked(() => run(tools.cscli, ['-c', join(dir, 'config.yaml'), ...args]));

  async function register() {
    const credentials = ['-p', machine.password, '-f', join(dir, 'creds.yaml'), '--url', url()];
    await cscli('machines', 'add', machine.login, ...credentials, '--force');
    for (const [name, key] of keys) await cscli('bouncers', 'add', name, '-k', key);
  }

  async function removeDatabase() {
    if (databaseServer) throw new Error('only an SQLite file can be removed');
    if (running()) throw new Error('stop the engine before its database is removed');
    for (const name of await readdir(join(dir, 'data'))) {
      if (name.startsWith('crowdsec.db')) await rm(join(dir, 'data', name));
    }
  }

  async function start() {
    if (running()) return;
    earlierLog = log();
    const started = startChild(tools.crowdsec, ['-no-cs', '-c', join(dir, 'config.yaml')], {
      cwd: dir,
      ...(options.env ? { env: options.env } : {}),
    });
    child = started;
    await until('the engine answers /health', async (saw) => {
      if (!started.running()) return true;
      saw(started.log().slice(-500));
      return (await fetch(`${url()}/health`, { signal: AbortSignal.timeout(2000) })).ok;
    });
    if (!started.running()) throw new Error(`the engine ended at its start: ${started.log().slice(-2000)}`);
  }

  // Another process may take the port between the choice and the start.
  for (let attempt = 1; ; attempt++) {
    port = await freePort();
    await writeConfiguration(dir, port, databaseSection(dir, databaseServer), options.server ?? []);
    await register();
    try {
      await start();
      break;
    } catch (error) {
      await child?.end('SIGKILL');
      if (attempt === 3 || !log().includes('address already in use')) throw error;
    }
  }

  return {
    url: url(),
    dir,
    databasePath,
    ...(databaseServer && { databaseServer }),
    version: await readVersion(tools.crowdsec),
    machine,
    cscli,
    async addBouncer(name) {
      const key = randomBytes(16).toString('hex');
      await cscli('bouncers', 'add', name, '-k', key);
      keys.set(name, key);
      return key;
    },
    async deleteBouncer(name) {
      await cscli('bouncers', 'delete', name);
      keys.delete(name);
    },
    async ban(value, { duration = '4h', type = 'ban', reason = 'lab', ...target } = {}) {
      await cscli('decisions', 'add', ...targetArgs(value, target), '-d', duration, '-t', type, '-R', reason);
    },
    async unban(value, { type, ...target } = {}) {
      // Deletion knows no scope: a value of another scope than Ip and Range is found by its text.
      const which = target.scope === undefined ? targetArgs(value, target) : ['--value', value];
      await cscli('decisions', 'delete', ...which, ...(type ? ['--type', type] : []));
    },
    async importDecisions(rows) {
      const file = join(dir, `import-${++imports}.json`);
      await writeFile(file, JSON.stringify(rows));
      await cscli('decisions', 'import', '-i', file);
    },
    running,
    kill: async () => child?.end('SIGKILL'),
    stop: async () => child?.end('SIGTERM'),
    start,
    async emptyDatabase() {
      await removeDatabase();
      await register();
    },
    async copyDatabase() {
      if (databaseServer) throw new Error('only an SQLite file can be copied');
      if (running()) throw new Error('stop the engine before its database is copied');
      const copy = await mkdtemp(join(dir, 'copy-'));
      await cp(join(dir, 'data'), copy, { recursive: true });
      return {
        async restore() {
          await removeDatabase();
          await cp(copy, join(dir, 'data'), { recursive: true });
        },
      };
    },
    async close() {
      await child?.end('SIGKILL');
      await databaseServer?.close();
      await rm(dir, { recursive: true, force: true });
      forgetDir();
    },
    log,
  };
}

function targetArgs(value: string, { scope, range }: Pick<BanOptions, 'scope' | 'range'>): string[] {
  if (scope !== undefined) return ['--scope', scope, '--value', value];
  return [(range ?? value.includes('/')) ? '--range' : '--ip', value];
}

async function readVersion(crowdsec: string): Promise<string> {
  // 1.4 writes it to standard error through its logger, hence the shell.
  const text = await run('sh', ['-c', '"$0" -version 2>&1', crowdsec]);
  return /version: v?(\S+)/.exec(text)?.[1] ?? 'unknown';
}

async function writeConfiguration(
  dir: string,
  port: number,
  database: string,
  server: readonly string[],
): Promise<void> {
  for (const name of ['data', 'hub', 'notifications', 'plugins']) {
    await mkdir(join(dir, name), { recursive: true });
  }
  const files: Record<string, string> = {
    'config.yaml': configuration(dir, port, database, server),
    'profiles.yaml': profiles,
    'simulation.yaml': 'simulation: off\n',
    'hub/.index.json': '{}',
    'acquis.yaml': '',
    'creds.yaml': '',
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text);
}

const profiles = `name: default_ip_remediation
filters: [' Alert.Remediation == true && Alert.GetScope() == "Ip"']
decisions: [{type: ban, duration: 4h}]
on_success: break
`;

/** What every configuration of crowdsec begins with: all its files are below one folder. */
export function folders(dir: string, daemonize = false): string {
  return `common: {daemonize: ${daemonize}, log_media: stdout, log_level: info, working_dir: ${dir}}
config_paths:
  config_dir: ${dir}/
  data_dir: ${dir}/data/
  simulation_path: ${dir}/simulation.yaml
  hub_dir: ${dir}/hub/
  index_path: ${dir}/hub/.index.json
  notification_dir: ${dir}/notifications/
  plugin_dir: ${dir}/plugins/
`;
}

/** `db_config` of the configuration. */
function databaseSection(dir: string, server: DatabaseServer | undefined): string {
  if (!server) return `{log_level: info, type: sqlite, db_path: ${dir}/data/crowdsec.db, use_wal: true}`;
  const { kind, port, user, password, name } = server;
  const type = kind === 'mariadb' ? 'type: mysql' : 'type: postgresql, sslmode: disable';
  return `{log_level: info, ${type}, host: 127.0.0.1, port: ${port}, user: ${user}, password: ${password}, db_name: ${name}}`;
}

function configuration(dir: string, port: number, database: string, server: readonly string[]): string {
  return `${folders(dir)}crowdsec_service: {enable: false, acquisition_path: ${dir}/acquis.yaml}
cscli: {output: raw}
db_config: ${database}
api:
  client: {credentials_path: ${dir}/creds.yaml}
  server:
    log_level: info
    listen_uri: 127.0.0.1:${port}
    profiles_path: ${dir}/profiles.yaml
    console_path: ${dir}/console.yaml
${server.map((line) => `    ${line}\n`).join('')}prometheus: {enabled: false}
`;
}
