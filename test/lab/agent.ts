// A real log processor (crowdsec without LAPI) that reads one log file and bans whoever guesses ssh passwords, with
// the items of the package's own offline hub; and the engine's command line, pointed at another LAPI.
import { rmSync } from 'node:fs';
import { appendFile, cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Child, atProcessEnd, run, startChild } from './child.ts';
import { requireTools } from './debian.ts';
import { type Engine, folders } from './engine.ts';
import { untilUnlocked } from './locked.ts';
import { until } from './wait.ts';

/** A LAPI, and an account of a machine there. */
export interface MachineAccount {
  url: string;
  login: string;
  password: string;
}

export interface Agent {
  /** What sshd writes when somebody at this address guesses: enough for a ban. */
  attackFrom(address: string): Promise<void>;
  running(): boolean;
  log(): string;
  close(): Promise<void>;
}

/** `account`: or the file that holds one. */
export async function startAgent(account: MachineAccount | string): Promise<Agent> {
  const tools = await requireTools();
  const dir = await mkdtemp(join(tmpdir(), 'lapidary-agent-'));
  const forgetDir = atProcessEnd(() => rmSync(dir, { recursive: true, force: true }));
  const credentialsFile = join(dir, 'creds.yaml');
  await layOutAgent(dir, { seenAs: dir, credentialsFile, daemonize: false });
  if (typeof account === 'string') await symlink(account, credentialsFile);
  else await writeFile(credentialsFile, credentials(account));
  const child: Child = startChild(tools.crowdsec, ['-c', join(dir, 'config.yaml')], { cwd: dir });
  const starts = (saw: (thing: unknown) => void): boolean => {
    saw(child.log().slice(-1000));
    if (!child.running()) throw new Error('the agent has ended');
    return child.log().includes('Starting processing data');
  };
  // An agent that was built without libre2 compiles its patterns for seconds of computing.
  await until('the agent reads its log file', starts, 90_000);

  return {
    attackFrom: (address) => appendFile(join(dir, agentLogFile), guessesFrom(address)),
    running: () => child.running(),
    log: () => child.log(),
    async close() {
      await child.end('SIGKILL');
      await rm(dir, { recursive: true, force: true });
      forgetDir();
    },
  };
}

/** The log that it reads, in its folder. */
export const agentLogFile = 'auth.log';

/** What sshd writes when somebody guesses: enough for a ban. */
export function guessesFrom(address: string): string {
  const stamp = new Date().toUTCString().replace(/^\w+, (\d+) (\w+) \d+ ([\d:]+) .*$/, '$2 $1 $3');
  const line = (guess: number): string =>
    `${stamp} host sshd[${100 + guess}]: Failed password for invalid user admin from ${address} port ${4000 + guess} ssh2\n`;
  return Array.from({ length: 8 }, (_, guess) => line(guess + 1)).join('');
}

export interface AgentLayout {
  /** Where the agent itself sees the folder. */
  seenAs: string;
  credentialsFile: string;
  /** 1.4 tells systemd that it is ready only then; it does not fork. */
  daemonize: boolean;
}

/** Writes all that an agent needs into a folder, but its account. */
export async function layOutAgent(dir: string, layout: AgentLayout): Promise<void> {
  const tools = await requireTools();
  await cp(tools.hub, join(dir, 'hub'), { recursive: true });
  await cp(tools.patterns, join(dir, 'patterns'), { recursive: true });
  for (const name of ['postoverflows', 'data', 'notifications', 'plugins'])
    await mkdir(join(dir, name), { recursive: true });
  const items = {
    'parsers/s00-raw': 'parsers/s00-raw/crowdsecurity/syslog-logs.yaml',
    'parsers/s01-parse': 'parsers/s01-parse/crowdsecurity/sshd-logs.yaml',
    'parsers/s02-enrich': 'parsers/s02-enrich/crowdsecurity/dateparse-enrich.yaml',
    scenarios: 'scenarios/crowdsecurity/ssh-bf.yaml',
  };
  for (const [folder, item] of Object.entries(items)) {
    await mkdir(join(dir, folder), { recursive: true });
    await symlink(join(layout.seenAs, 'hub', item), join(dir, folder, item.split('/').at(-1) as string));
  }
  const files = {
    [agentLogFile]: '',
    'acquis.yaml': `filenames: [${layout.seenAs}/${agentLogFile}]\nlabels: {type: syslog}\n`,
    'simulation.yaml': 'simulation: off\n',
    'config.yaml': configuration(layout),
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text);
}

/**
 * The engine's `cscli` as somebody elsewhere has it: with a LAPI and an account, and no way to the database but
 * through them.
 */
export async function remoteCscli(
  engine: Pick<Engine, 'dir'>,
  account: MachineAccount,
): Promise<(...args: string[]) => Promise<string>> {
  const tools = await requireTools();
  const dir = await mkdtemp(join(engine.dir, 'remote-'));
  const config = join(dir, 'config.yaml');
  await writeFile(join(dir, 'creds.yaml'), credentials(account));
  const text = await readFile(join(engine.dir, 'config.yaml'), 'utf8');
  const changed = text
    .replace(/credentials_path: \S+creds\.yaml/, `credentials_path: ${join(dir, 'creds.yaml')}`)
    .replace(/db_path: \S+crowdsec\.db/, `db_path: ${join(dir, 'none.db')}`);
  await writeFile(config, changed);
  return (...args) => untilUnlocked(() => run(tools.cscli, ['-c', config, ...args]));
}

function credentials({ url, login, password }: MachineAccount): string {
  return `url: ${url}\nlogin: ${login}\npassword: ${password}\n`;
}

function configuration({ seenAs, credentialsFile, daemonize }: AgentLayout): string {
  return `${folders(seenAs, daemonize)}crowdsec_service: {acquisition_path: ${seenAs}/acquis.yaml, parser_routines: 1}
cscli: {output: raw}
api:
  client: {credentials_path: ${credentialsFile}}
  server: {enable: false}
prometheus: {enabled: false}
`;
}
