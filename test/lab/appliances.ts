// Appliances that fetch lists, as their vendors' pages describe them: how each asks, what it takes from an answer, and what it
// does with its list on each status. Models, since no such device is to be had.
import { request } from 'node:http';
import { grammars, mikrotik, type Grammar } from './grammars.ts';
import type { Entry } from './spans.ts';

export interface Answer {
  status: number;
  headers: Record<string, string | undefined>;
  body: Buffer;
}

/** How long a device waits for a server that says nothing: shorter than a real one. */
const longestMs = 5_000;

/** A request as it goes over the wire: nothing is unpacked, and no header is added. Status 0: no whole answer came. */
export function ask(url: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> {
  return new Promise((resolve) => {
    const none: Answer = { status: 0, headers: {}, body: Buffer.alloc(0) };
    const sent = request(url, { method, headers, agent: false, timeout: longestMs }, (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('error', () => resolve(none));
      response.on('end', () => {
        const { statusCode = 0, headers } = response;
        resolve({
          status: response.complete ? statusCode : 0,
          headers: headers as Answer['headers'],
          body: Buffer.concat(parts),
        });
      });
    });
    sent.on('timeout', () => sent.destroy());
    sent.on('error', () => resolve(none));
    sent.end();
  });
}

export interface Appliance {
  /** Its time has come: it asks, or not, and takes what it gets. `nowMs`: by its clock. */
  refresh(nowMs?: number): Promise<void>;
  /** What it bans, and that as texts. */
  entries(nowMs?: number): readonly Entry[];
  bans(nowMs?: number): string[];
  /** The statuses that it got. */
  readonly statuses: number[];
  /** Its admin types another password, or another address. */
  password(key: string): void;
  move(base: string, path?: string): void;
}

/** What a kind of appliance does. */
export interface Kind {
  readonly path: string;
  /** How it says who it is. */
  readonly sends: 'basic' | 'bearer' | 'header' | 'when-asked';
  /** How it reads a list. */
  readonly read: Grammar;
  /** Whether it gives up what it has on a status that is none of a list. */
  readonly givesUp: (status: number) => boolean;
  /** Whether it takes an empty list for a fault. */
  readonly keepsOnEmpty: boolean;
  /** How long a list that it had stays without another one. */
  readonly holdMs: number;
  /** What it asks before it reads. */
  readonly probe: 'none' | 'etag' | 'head';
}

const never = (): boolean => false;
/** No page says what it does: the worst for us, to give up the list on any answer that blames the client. */
const blamed = (status: number): boolean => status >= 400 && status < 500;

const kind = (name: string): Kind => ({
  path: `/lists/${name}`,
  sends: 'basic',
  read: grammars[name] as Grammar,
  givesUp: blamed,
  keepsOnEmpty: false,
  holdMs: Infinity,
  probe: 'none',
});

export const kinds: Readonly<Record<string, Kind>> = {
  // When authentication fails it stops enforcing the list; without a server the last copy stays in force.
  paloalto: { ...kind('paloalto'), givesUp: (status) => status === 401 || status === 403 },
  fortigate: { ...kind('fortigate'), probe: 'etag' },
  cisco: { ...kind('cisco'), keepsOnEmpty: true },
  // `hold-interval`, a day by default.
  juniper: {
    ...kind('juniper'),
    path: '/lists/juniper.txt',
    sends: 'when-asked',
    probe: 'head',
    givesUp: never,
    holdMs: 86_400_000,
  },
  pfsense: { ...kind('pfsense'), keepsOnEmpty: true },
  // Any status but 200 is an error, and the table stays.
  opnsense: { ...kind('opnsense'), sends: 'bearer', givesUp: never },
  sophos: kind('sophos'),
  f5: kind('f5'),
  checkpoint: kind('checkpoint'),
  // A fetch that fails ends the script. Each entry ends at its own time.
  mikrotik: { ...kind('mikrotik'), read: mikrotik, givesUp: never },
  // `curl -f` fails, and nothing after it is run.
  hosts: { ...kind('plain'), sends: 'header', givesUp: never },
};

export function startAppliance(base: string, kind: Kind, key: string): Appliance {
  let url = base + kind.path;
  const statuses: number[] = [];
  let held: readonly Entry[] = [];
  let takenMs = 0;
  let known: Answer['headers'] = {};
  let credentials = key;

  const identity = (): Record<string, string> => {
    if (kind.sends === 'header') return { 'x-api-key': credentials };
    const basic = `Basic ${Buffer.from(`device:${credentials}`).toString('base64')}`;
    return { authorization: kind.sends === 'bearer' ? `Bearer ${credentials}` : basic };
  };
  const send = async (headers: Record<string, string>, method = 'GET'): Promise<Answer> => {
    const isShy = kind.sends === 'when-asked';
    let answer = await ask(url, isShy ? headers : { ...headers, ...identity() }, method);
    const isAsked = answer.status === 401 && /^Basic realm=/.test(answer.headers['www-authenticate'] ?? '');
    if (isShy && isAsked) answer = await ask(url, { ...headers, ...identity() }, method);
    statuses.push(answer.status);
    return answer;
  };

  const probed = ['etag', 'last-modified', 'content-length'] as const;

  /** Whether what it has is what the server has. */
  async function isKnown(): Promise<boolean> {
    if (kind.probe !== 'head') return false;
    const head = await send({}, 'HEAD');
    // A list has no date in the second in which it changed.
    const isSame = probed.every((name) => (known[name] ?? head.headers[name]) === head.headers[name]);
    return head.status === 200 && known['etag'] !== undefined && isSame;
  }

  function take({ headers, body }: Answer): void {
    const { entries, refused } = kind.read(body.toString());
    if (refused.length > 0) throw new Error(`${url} has what the device does not read: ${refused[0]}`);
    known = headers;
    if (entries.length > 0 || !kind.keepsOnEmpty) held = entries;
  }

  const entries = (nowMs = Date.now()): readonly Entry[] =>
    nowMs - takenMs >= kind.holdMs ? [] : held.filter((entry) => lastsMs(entry) > nowMs - takenMs);

  return {
    statuses,
    entries,
    bans: (nowMs) => entries(nowMs).map(({ text }) => text),
    password: (key) => void (credentials = key),
    move: (base, path = kind.path) => void (url = base + path),
    async refresh(nowMs = Date.now()) {
      if (nowMs - takenMs >= kind.holdMs) known = {};
      if (await isKnown()) return void (takenMs = nowMs);
      const etag = kind.probe === 'etag' ? known['etag'] : undefined;
      const answer = await send(etag === undefined ? {} : { 'if-none-match': etag });
      if (answer.status === 200) take(answer);
      if (answer.status === 200 || answer.status === 304) takenMs = nowMs;
      if (!kind.givesUp(answer.status)) return;
      held = [];
      known = {};
    },
  };
}

/** How long an entry is banned by itself: those of RouterOS have a timeout. */
function lastsMs(entry: Entry & { readonly hours?: number }): number {
  return (entry.hours ?? Infinity) * 3_600_000;
}
