// What each vendor publishes of the lists that its devices read: a reader for each name under /lists. It is as strict as the
// page that it was written from (docs/lists has a page for each family), and refuses what that does not allow; where a page
// says nothing, it is held to what is safe everywhere. It shares nothing with what writes the lists.
import { readTable } from './pf.ts';
import {
  entryOf,
  readHost,
  readNetwork,
  readPrefix,
  readRange,
  type Entry,
  type Reading,
  type Span,
} from './spans.ts';

export type Grammar = (file: string) => Reading;

/** What a line says; null: nothing, such as a comment. A text: why it is refused. */
type Line<Each extends Entry = Entry> = (line: string, at: number) => Each | null | string;

/** What a device reads of one file at most. */
interface Most {
  readonly entries?: number;
  readonly bytes?: number;
}

/** A file of lines. All of them are ASCII and end in a line feed, since not every device takes anything else. */
function lines<Each extends Entry>(line: Line<Each>, most: Most = {}): (file: string) => Reading<Each> {
  return (file) => {
    const entries: Each[] = [];
    const refused: string[] = [];
    if (/[^\n\x20-\x7e]/.test(file)) refused.push('the file has other characters than those of ASCII');
    if (file !== '' && !file.endsWith('\n')) refused.push('the last line does not end');
    if (file.length > (most.bytes ?? Infinity)) refused.push(`the file has more than ${most.bytes} bytes`);
    const all = file.split('\n');
    if (all.at(-1) === '') all.pop();
    for (const [at, text] of all.entries()) {
      const said = line(text, at);
      if (typeof said === 'string') refused.push(`line ${at + 1}: ${said}: ${text}`);
      else if (said !== null) entries.push(said);
    }
    if (entries.length > (most.entries ?? Infinity)) refused.push(`more than ${most.entries} entries`);
    return { entries, refused };
  };
}

type Form = (text: string) => Span | undefined;

/** A text that is in one of these forms. */
function entryIn(text: string, ...allowed: readonly Form[]): Entry | string {
  for (const form of allowed) {
    const span = form(text);
    if (span) return entryOf(span, text);
  }
  return 'no address';
}

const inForms = (...allowed: readonly Form[]): Line => {
  return (text) => entryIn(text, ...allowed);
};

/** nftables, ipset, HAProxy, nginx. Check Point's network feed takes ranges as well. */
const plain = lines(inForms(readNetwork));

/** PAN-OS, formatting guidelines of an IP address list: `[address, network or range] [blank] [comment]`. */
const paloalto = lines((line) => entryIn(line.split(' ', 1)[0] as string, readNetwork, readRange), {
  entries: 50_000,
});

/** FortiOS, IP address external feed. Comments are in FortiMail's page only. */
const fortigate = lines(inForms(readNetwork, readRange), { entries: 131_072, bytes: 10 * 1024 ** 2 });

/** FMC, custom lists and feeds: a line that begins with `#` is a comment. */
const cisco = lines((line) => (line.startsWith('#') ? null : entryIn(line, readNetwork)), {
  bytes: 500 * 1024 ** 2,
});

/** SRX, `feed-server`: nothing without a prefix, no comments. */
const juniper = lines(inForms(readPrefix));

/** AFM, feed lists: `address[,mask[,bl or wl[,category]]]`. A `wl` would let in who is banned. */
const f5 = lines((line) => {
  const [address = '', mask, kind = 'bl', category = 'crowdsec', ...more] = line.split(',');
  if (kind !== 'bl') return 'not of the block list';
  if (category !== 'crowdsec') return 'the BIG-IP has no such category';
  if (more.length > 0) return 'more than four fields';
  return mask === undefined ? entryIn(address, readHost) : entryIn(`${address}/${mask}`, readPrefix);
});

const observableTypes: Readonly<Record<string, Form>> = { IP: readHost, 'IP Range': readRange };

/** Custom intelligence feeds in Check Point's own CSV: seven fields, whose first is unique; the two types are of IPv4. */
function checkpoint(file: string): Reading {
  const names = new Set<string>();
  const header = '#UNIQ-NAME,VALUE,TYPE,CONFIDENCE,SEVERITY,PRODUCT,COMMENT';
  const read = lines((line, at) => {
    if (at === 0) return line === header ? null : 'not the header';
    const [name = '', value = '', type = '', confidence = '', severity = '', product = '', ...comment] =
      line.split(',');
    if (comment.length !== 1) return 'not seven fields';
    if (!/^[\w-]+$/.test(name) || names.has(name)) return 'no unique name';
    names.add(name);
    const levels = ['low', 'medium', 'high', 'critical'];
    if (!levels.includes(confidence) || !levels.includes(severity)) return 'no level';
    if (product !== 'AV' && product !== 'AB') return 'no product';
    if (/["']|^[=+@-]/.test(comment[0] as string)) return 'a quote, or a formula of a spreadsheet';
    const form = observableTypes[type];
    if (!form || value.includes(':')) return 'no type of IPv4';
    return entryIn(value, form);
  });
  const reading = read(file);
  return file === '' ? { ...reading, refused: ['no header'] } : reading;
}

/** Third-party threat feeds: one address of IPv4 a line, and nothing else. */
const sophos = lines((line) => (line.includes(':') ? 'not IPv4' : entryIn(line, readHost)));

/** Each entry that was read becomes a line of the file that pfctl loads. */
const intoTable = (read: Grammar): Grammar => {
  return (file) => {
    const { entries, refused } = read(file);
    const table = readTable(entries.map(({ text }) => `${text}\n`).join(''));
    return { entries: table.entries, refused: [...refused, ...table.refused] };
  };
};

/** pfSense, `parse_aliases_file`: what stands before a blank, `#` or `;`. */
const pfsense = intoTable(
  lines((line) => {
    const [address = ''] = line.split(/[\s#;]/, 1);
    return address === '' ? null : entryIn(address, readNetwork);
  }),
);

/**
 * OPNsense, `alias/uri.py`: what stands before a blank, `,`, `;`, `|` or `#`. What is no address is looked up as a name, and
 * what begins with `!` is let in. It takes ranges apart; they are refused here, since none is written.
 */
const opnsense = intoTable(
  lines((line) => {
    const [address = ''] = line.split(/[\s,;|#]/, 1);
    return address === '' || address.startsWith('//') ? null : entryIn(address, readNetwork);
  }),
);

/** A text of JSON. */
function json(file: string): Reading {
  let parsed: unknown;
  try {
    parsed = JSON.parse(file);
  } catch {
    return { entries: [], refused: ['no JSON'] };
  }
  if (!Array.isArray(parsed)) return { entries: [], refused: ['no array'] };
  const said = parsed.map((each: unknown) =>
    typeof each === 'string' ? entryIn(each, readNetwork) : 'no text',
  );
  return {
    entries: said.filter((each) => typeof each !== 'string'),
    refused: said.flatMap((each, at) => (typeof each === 'string' ? [`${each}: ${parsed[at]}`] : [])),
  };
}

/** An entry of an address list of RouterOS. */
export interface RouterEntry extends Entry {
  readonly list: string;
  readonly hours: number;
}

const command =
  /^:do \{ \/(ip|ipv6) firewall address-list add ((?:[a-z]+=(?:"[^"]*"|[^\s"{}[\]$;\\]+) ?)+)\} on-error=\{\}$/;
const settings = ['list', 'address', 'timeout', 'comment'];
/** 2^31 hundredths of a second. */
const mostHours = 5_965;

/**
 * A script for `/import`, of commands that add to an address list and do nothing else. Within quotes `$`, `\` and `?` are
 * more than themselves. Without a timeout an entry would be written to flash; one that is there twice is refused by the
 * router. Those of /ip are of IPv4, those of /ipv6 of IPv6.
 */
export function mikrotik(file: string): Reading<RouterEntry> {
  const known = new Set<string>();
  const read = lines<RouterEntry>((line) => {
    if (line.startsWith('#')) return null;
    const [, menu, text = ''] = command.exec(line) ?? [];
    if (menu === undefined) return 'not one command that adds';
    const pairs = [...text.matchAll(/([a-z]+)=("[^"]*"|\S+)/g)].map(([, name = '', value = '']) => [
      name,
      value,
    ]);
    const said = Object.fromEntries(pairs) as Record<string, string>;
    if (pairs.length !== Object.keys(said).length || !pairs.every(([name = '']) => settings.includes(name))) {
      return 'another setting';
    }
    if (/[$\\?]/.test(said['comment'] ?? '')) return 'a comment that is not plain';
    const [, hours = '0'] = /^(\d+)h$/.exec(said['timeout'] ?? '') ?? [];
    if (Number(hours) < 1 || Number(hours) > mostHours) return 'no timeout';
    const list = said['list'] ?? '';
    if (!/^[\w-]+$/.test(list)) return 'no list';
    const entry = entryIn(said['address'] ?? '', readNetwork);
    if (typeof entry === 'string') return entry;
    if (entry.family !== (menu === 'ip' ? 4 : 6)) return 'of the other family';
    const id = `${list} ${entry.text}`;
    if (known.has(id)) return 'there twice';
    known.add(id);
    return { ...entry, list, hours: Number(hours) };
  });
  return read(file);
}

/** By the names under /lists. */
export const grammars: Readonly<Record<string, Grammar>> = {
  plain,
  cidr: juniper,
  range: lines(inForms(readRange)),
  f5,
  checkpoint,
  mikrotik,
  json,
  paloalto,
  fortigate,
  cisco,
  juniper,
  pfsense,
  opnsense,
  sophos,
};
