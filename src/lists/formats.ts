// A list as appliances read it: a network → a line. Pure. What each vendor's page asks for is in docs/lists.md; where a public
// tool writes something else, the vendor's page counts. A mistake here makes a device refuse a whole list, or ban the wrong
// addresses. Every line is ASCII, so its length is that of its bytes.

import { lastAddress, parseNetwork } from '../formats/ip.ts';

export const formats = ['plain', 'cidr', 'range', 'f5', 'checkpoint', 'mikrotik', 'json'] as const;

export type Format = (typeof formats)[number];

/** A network of a list, and what some formats say of the ban on it. */
export interface Entry {
  /** The first address, as RFC 5952 writes it. */
  readonly address: string;
  readonly prefixBits: number;
  readonly family: 4 | 6;
  /** Of the decision. Two entries have the same only where both are left of one range. */
  readonly id: number;
  /** It is left of a range with an allowed address in it. */
  readonly isLeft: boolean;
  readonly scenario: string;
  /** How long the ban still lasts. */
  readonly leftMs: number;
}

/** How a list is written. */
export interface Form {
  readonly contentType: string;
  /** Before and after all lines, and between two. */
  readonly head: string;
  readonly between: string;
  readonly tail: string;
  /** The families that it can write. */
  readonly families: readonly (4 | 6)[];
  /** Whether a line says how long a ban lasts. */
  readonly isTimed: boolean;
  line(entry: Entry, listName: string): string;
}

const text = {
  contentType: 'text/plain; charset=utf-8',
  head: '',
  between: '',
  tail: '',
  families: [4, 6],
  isTimed: false,
} as const;

export const forms: Readonly<Record<Format, Form>> = {
  plain: { ...text, line: (entry) => `${shortest(entry)}\n` },
  // Juniper reads no line without a prefix.
  cidr: { ...text, line: ({ address, prefixBits }) => `${address}/${prefixBits}\n` },
  range: { ...text, line: (entry) => `${entry.address}-${lastOf(entry)}\n` },
  // The mask of IPv6 is a number of bits, too: cs-blocklist-mirror writes 64 for every address.
  f5: { ...text, line: ({ address, prefixBits }) => `${address},${prefixBits},bl,crowdsec\n` },
  checkpoint: {
    ...text,
    contentType: 'text/csv; charset=utf-8',
    head: '#UNIQ-NAME,VALUE,TYPE,CONFIDENCE,SEVERITY,PRODUCT,COMMENT\n',
    // Its two types of addresses are of IPv4.
    families: [4],
    line: (entry) => {
      const { id, isLeft, scenario } = entry;
      // No two lines may have the same name.
      const name = isLeft ? `${id}-${entry.address.replaceAll('.', '-')}` : id;
      const value = isHost(entry) ? `${entry.address},IP` : `${entry.address}-${lastOf(entry)},IP Range`;
      return `lapidary-${name},${value},high,high,AB,${plainText(scenario)}\n`;
    },
  },
  mikrotik: {
    ...text,
    isTimed: true,
    line: (entry, listName) => {
      const menu = entry.family === 4 ? '/ip' : '/ipv6';
      const comment = plainText(entry.scenario.slice(entry.scenario.lastIndexOf('/') + 1));
      const what = `list=${listName} address=${shortest(entry)} timeout=${hoursLeft(entry)}h comment="${comment}"`;
      // One that is there already would stop the import.
      return `:do { ${menu} firewall address-list add ${what} } on-error={}\n`;
    },
  },
  json: {
    ...text,
    contentType: 'application/json',
    head: '[',
    between: ',',
    tail: '\n]\n',
    line: (entry) => `\n"${shortest(entry)}"`,
  },
};

/** The text of a list in parts of some `sliceLength` characters. */
export function* textOf(
  { head, between, tail, line }: Form,
  entries: Iterable<Entry>,
  listName: string,
  sliceLength: number,
): Generator<string> {
  let slice = head;
  let separator = '';
  for (const entry of entries) {
    slice += separator + line(entry, listName);
    separator = between;
    if (slice.length < sliceLength) continue;
    yield slice;
    slice = '';
  }
  slice += tail;
  if (slice !== '') yield slice;
}

function isHost({ prefixBits, family }: Entry): boolean {
  return prefixBits === (family === 4 ? 32 : 128);
}

function shortest(entry: Entry): string {
  return isHost(entry) ? entry.address : `${entry.address}/${entry.prefixBits}`;
}

function lastOf(entry: Entry): string {
  const network = isHost(entry) ? undefined : parseNetwork(shortest(entry));
  return network ? lastAddress(network) : entry.address;
}

/**
 * A scenario's name where a comma, a quote or a `$` would be read as something else, and by a spreadsheet what begins like a
 * formula.
 */
function plainText(scenario: string): string {
  return scenario.replace(/[^\w ./:@+-]|^[@+-]/g, '_');
}

/** RouterOS counts timeouts in hundredths of a second, in 31 bits. */
const mostHours = 5_965;

/** In whole hours, rounded up: a text that changed with every second would be a new list each time. */
function hoursLeft({ leftMs }: Entry): number {
  return Math.min(mostHours, Math.max(1, Math.ceil(leftMs / 3_600_000)));
}
