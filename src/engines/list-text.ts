// What a public list says, as plain text or CSV: one address or range at the begin of each line. Pure. A mistake here bans
// an address that the list does not have. The form is that of FireHOL's netsets, of Spamhaus DROP, and of CSV whose first
// column is the address; a list of another form has no line that can be read, and is refused.

import { formatNetwork, parseNetwork, type Network } from '../formats/ip.ts';
import { isReserved } from '../formats/reserved.ts';

/** The network of a line; `nothing`: a comment or an empty line; `reserved`: one that is not banned. */
export type Line = Network | 'nothing' | 'reserved' | 'unreadable' | 'too-wide';

/** A range that is wider bans a good part of the internet, and is a mistake. */
const leastPrefixBits = { 4: 8, 16: 16 } as const;

/** Reads one line. `#` and `;` begin a comment. Quotes around the first column are those of CSV. */
export function readLine(line: string, allowReserved: boolean): Line {
  const text = line.trimStart();
  if (text === '' || text.startsWith('#') || text.startsWith(';')) return 'nothing';
  const token = /^"?([^\s",;#|]*)/.exec(text)?.[1] ?? '';
  const network = parseNetwork(token);
  if (!network) return 'unreadable';
  if (!allowReserved && isReserved(network)) return 'reserved';
  return network.prefixBits < leastPrefixBits[network.bytes.length as 4 | 16] ? 'too-wide' : network;
}

/** LAPI's scope and value for a network, in one spelling. */
export function valueOf(network: Network): { readonly scope: 'Ip' | 'Range'; readonly value: string } {
  const isHost = network.prefixBits === network.bytes.length * 8;
  return { scope: isHost ? 'Ip' : 'Range', value: formatNetwork(network) };
}

/** Of a longer line only the begin is kept. The address is there. */
const longestLine = 1_000;

/** Splits a text into lines as it comes. `number`: of the line, from 1 on. */
export function createLines(take: (line: string, number: number) => void) {
  const decoder = new TextDecoder();
  let rest = '';
  let number = 0;
  const push = (text: string): void => {
    const lines = (rest + text).split(/\r?\n/);
    rest = (lines.pop() ?? '').slice(0, longestLine);
    for (const line of lines) take(line, ++number);
  };
  return {
    push: (piece: Uint8Array): void => push(decoder.decode(piece, { stream: true })),
    end(): void {
      push(decoder.decode());
      if (rest !== '') take(rest, ++number);
    },
  };
}
