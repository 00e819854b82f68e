// Appliances that fetch lists, as their vendors' pages describe them: how each asks, what it takes from an answer, and what it
// does with its list on each status. Models, since no such device is to be had.
import { request } from 'node:http';

export interface Answer {
  status: number;
  headers: Record<string, string | undefined>;
  body: Buffer;
}

/** A request as it goes over the wire: nothing is unpacked, and no header is added. Status 0: nobody is there. */
export function ask(url: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> {
  return new Promise((resolve) => {
    const none: Answer = { status: 0, headers: {}, body: Buffer.alloc(0) };
    const sent = request(url, { method, headers, agent: false }, (response) => {
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
    sent.on('error', () => resolve(none));
    sent.end();
  });
}

export interface Appliance {
  /** Its time has come: it asks, or not, and takes what it gets. */
  refresh(): Promise<void>;
  /** What it bans. */
  bans(): string[];
  /** The statuses that it got. */
  readonly statuses: number[];
  /** Its admin types another password. */
  password(key: string): void;
}

/** What a kind of appliance does. */
interface Kind {
  readonly path: string;
  /** How it says who it is. */
  readonly sends: 'basic' | 'bearer' | 'when-asked';
  /** One line as it reads it; null: a comment. Throws where it takes none of the file. */
  line(text: string): string | null;
  /** Whether it gives up what it has when its password is refused. */
  readonly drops: boolean;
  /** Whether it takes an empty list for a fault. */
  readonly keepsOnEmpty: boolean;
  /** What it asks before it reads. */
  readonly probe: 'none' | 'etag' | 'head';
}

const network = /^[0-9a-f.:]+(\/\d{1,3})?$/;

function plainLine(text: string): string {
  if (!network.test(text)) throw new Error(`this is no network: ${text}`);
  return text;
}

const plain: Kind = {
  path: '/lists/plain',
  sends: 'basic',
  line: plainLine,
  drops: false,
  keepsOnEmpty: false,
  probe: 'none',
};

export const kinds: Readonly<Record<string, Kind>> = {
  paloalto: { ...plain, path: '/lists/paloalto', drops: true },
  fortigate: { ...plain, path: '/lists/fortigate', probe: 'etag' },
  cisco: { ...plain, path: '/lists/cisco', keepsOnEmpty: true },
  juniper: {
    ...plain,
    path: '/lists/juniper.txt',
    sends: 'when-asked',
    probe: 'head',
    line(text) {
      if (!text.includes('/')) throw new Error(`a line without a prefix: ${text}`);
      return plainLine(text).replace(/\/(?:32|128)$/, '');
    },
  },
  pfsense: { ...plain, path: '/lists/pfsense', keepsOnEmpty: true },
  opnsense: { ...plain, path: '/lists/opnsense', sends: 'bearer' },
  sophos: {
    ...plain,
    path: '/lists/sophos',
    line(text) {
      if (!/^\d+\.\d+\.\d+\.\d+$/.test(text)) throw new Error(`no IPv4 address: ${text}`);
      return text;
    },
  },
  f5: {
    ...plain,
    path: '/lists/f5',
    line(text) {
      const [address = '', bits = '', kind = '', category = ''] = text.split(',');
      if (kind !== 'bl' || category !== 'crowdsec') throw new Error(`no entry of a block list: ${text}`);
      const isHost = bits === (address.includes(':') ? '128' : '32');
      return plainLine(isHost ? address : `${address}/${bits}`);
    },
  },
  checkpoint: {
    ...plain,
    path: '/lists/checkpoint',
    line(text) {
      if (text.startsWith('#')) return null;
      const fields = text.split(',');
      if (fields.length !== 7) throw new Error(`not seven fields: ${text}`);
      return fields[1] as string;
    },
  },
  mikrotik: {
    ...plain,
    path: '/lists/mikrotik',
    line(text) {
      const [, address] = / address=(\S+) timeout=\d+h /.exec(text) ?? [];
      if (address === undefined) throw new Error(`an import would stop here: ${text}`);
      return plainLine(address);
    },
  },
};

export function startAppliance(base: string, kind: Kind, key: string): Appliance {
  const url = base + kind.path;
  const statuses: number[] = [];
  let banned: string[] = [];
  let known: Answer['headers'] = {};
  let credentials = key;

  const send = async (headers: Record<string, string>, method = 'GET'): Promise<Answer> => {
    const basic = `Basic ${Buffer.from(`device:${credentials}`).toString('base64')}`;
    const authorization = kind.sends === 'bearer' ? `Bearer ${credentials}` : basic;
    let answer = await ask(
      url,
      kind.sends === 'when-asked' ? headers : { ...headers, authorization },
      method,
    );
    const isAsked = answer.status === 401 && /^Basic realm=/.test(answer.headers['www-authenticate'] ?? '');
    if (kind.sends === 'when-asked' && isAsked)
      answer = await ask(url, { ...headers, authorization }, method);
    statuses.push(answer.status);
    return answer;
  };

  const probed = ['etag', 'last-modified', 'content-length'] as const;

  return {
    statuses,
    bans: () => banned,
    password: (key) => void (credentials = key),
    async refresh() {
      if (kind.probe === 'head') {
        const head = await send({}, 'HEAD');
        // A list has no date in the second in which it changed.
        const isSame = probed.every((name) => (known[name] ?? head.headers[name]) === head.headers[name]);
        if (head.status === 200 && known['etag'] !== undefined && isSame) return;
      }
      const etag = kind.probe === 'etag' ? known['etag'] : undefined;
      const answer = await send(etag === undefined ? {} : { 'if-none-match': etag });
      if (kind.drops && (answer.status === 401 || answer.status === 403)) banned = [];
      if (answer.status !== 200) return;
      const lines = answer.body
        .toString()
        .split('\n')
        .filter((line) => line !== '');
      const read = lines.map(kind.line).filter((line) => line !== null);
      known = answer.headers;
      if (read.length > 0 || !kind.keepsOnEmpty) banned = read;
    },
  };
}
