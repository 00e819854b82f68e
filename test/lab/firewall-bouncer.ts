// Debian's firewall bouncer in nftables mode, in a network namespace of its own; what it enforces is read from
// the kernel's sets, not from the bouncer.
import { rmSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Child, atProcessEnd } from './child.ts';
import { requireTools } from './debian.ts';
import { nftCommand, openNamespace, relayPort } from './netns.ts';
import { until } from './wait.ts';

/** Value to the timeout in seconds that it was added with; Infinity for an element that never ends. */
export type FirewallSet = Map<string, number>;

export interface FirewallSets {
  v4: FirewallSet;
  v6: FirewallSet;
}

export interface FirewallBouncer {
  /** Both sets are empty while the bouncer is stopped: it removes its tables. */
  sets(): Promise<FirewallSets>;
  waitFor(predicate: (sets: FirewallSets) => boolean, timeoutMs?: number): Promise<FirewallSets>;
  /** False after it gave up, which 0.0.25 does with status 0 when its first pull fails. */
  running(): boolean;
  log(): string;
  stop(): Promise<void>;
  restart(): Promise<void>;
  /** Stops it, removes its namespace and folder. */
  close(): Promise<void>;
}

export interface FirewallBouncerOptions {
  /** Plain http on this host's loopback. */
  url: string;
  key: string;
  /** As Go writes durations. */
  updateFrequency?: string;
}

export async function startFirewallBouncer(options: FirewallBouncerOptions): Promise<FirewallBouncer> {
  const tools = await requireTools();
  const [nft = '', ...nftArgs] = await nftCommand();
  const url = new URL(options.url);
  const dir = await mkdtemp(join(tmpdir(), 'lapidary-firewall-'));
  const forgetDir = atProcessEnd(() => rmSync(dir, { recursive: true, force: true }));
  const namespace = await openNamespace(Number(url.port));
  const { key: apiKey, updateFrequency } = options;
  const apiUrl = `http://127.0.0.1:${relayPort}${url.pathname.replace(/\/?$/, '/')}`;
  const settings = bouncerSettings({ dir, apiUrl, apiKey, ...(updateFrequency && { updateFrequency }) });
  await writeFile(join(dir, 'firewall.yaml'), settings);

  const start = () =>
    namespace.start(tools.firewallBouncer, ['-c', join(dir, 'firewall.yaml')], { cwd: dir });
  let child: Child = start();
  let earlierLog = '';
  const log = () => earlierLog + child.log();
  const stop = () => child.end('SIGTERM');
  const sets = async () => readSets(await namespace.run(nft, [...nftArgs, '-j', 'list', 'ruleset']));

  return {
    sets,
    waitFor(predicate, timeoutMs) {
      const probe = async (saw: (thing: unknown) => void) => {
        const both = await sets();
        saw([both, log().slice(-500)]);
        return predicate(both) && both;
      };
      return until(`the firewall's sets satisfy ${String(predicate)}`, probe, timeoutMs);
    },
    running: () => child.running(),
    log,
    stop,
    async restart() {
      await stop();
      earlierLog = log();
      child = start();
    },
    async close() {
      await child.end('SIGKILL');
      await namespace.close();
      await rm(dir, { recursive: true, force: true });
      forgetDir();
    },
  };
}

interface Ruleset {
  nftables: { set?: { name: string; elem?: Element[] } }[];
}
type Value = string | { prefix: { addr: string; len: number } };
type Element = Value | { elem: { val: Value; timeout?: number } };

function readSets(json: string): FirewallSets {
  const { nftables } = JSON.parse(json) as Ruleset;
  const read = (name: string): FirewallSet => {
    const elements = nftables.find(({ set }) => set?.name === name)?.set?.elem ?? [];
    return new Map(elements.map(readElement));
  };
  return { v4: read('crowdsec-blacklists'), v6: read('crowdsec6-blacklists') };
}

function readElement(element: Element): [string, number] {
  if (typeof element === 'object' && 'elem' in element) {
    return [readValue(element.elem.val), element.elem.timeout ?? Infinity];
  }
  return [readValue(element), Infinity];
}

function readValue(value: Value): string {
  return typeof value === 'string' ? value : `${value.prefix.addr}/${value.prefix.len}`;
}

export interface BouncerSettings {
  /** Where it writes its process id. */
  dir: string;
  apiUrl: string;
  apiKey: string;
  updateFrequency?: string;
  /** The tables and chains are somebody else's. */
  setOnly?: boolean;
}

/** The bouncer's configuration file, for nftables. */
export function bouncerSettings({
  dir,
  apiUrl,
  apiKey,
  updateFrequency = '1s',
  setOnly = false,
}: BouncerSettings): string {
  // daemonize does not fork; without it this version ignores SIGTERM, leaves its tables behind and tells systemd nothing.
  return `mode: nftables
update_frequency: ${updateFrequency}
daemonize: true
pid_dir: ${dir}/
log_mode: stdout
log_level: info
api_url: ${apiUrl}
api_key: "${apiKey}"
disable_ipv6: false
deny_action: DROP
supported_decisions_types: [ban]
blacklists_ipv4: crowdsec-blacklists
blacklists_ipv6: crowdsec6-blacklists
nftables:
  ipv4: {enabled: true, set-only: ${setOnly}, table: crowdsec, chain: crowdsec-chain}
  ipv6: {enabled: true, set-only: ${setOnly}, table: crowdsec6, chain: crowdsec6-chain}
prometheus: {enabled: false, listen_addr: 127.0.0.1, listen_port: 60601}
`;
}
