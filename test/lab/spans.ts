// Sets of addresses as devices have them: from a first address to a last one. It shares nothing with what Lapidary reads and
// writes addresses with, so that it can judge that.

export interface Span {
  readonly family: 4 | 6;
  readonly first: bigint;
  readonly last: bigint;
}

/** An entry of a list or a table. `text`: the address, network or range in it, of one address without its prefix. */
export interface Entry extends Span {
  readonly text: string;
}

export interface Reading<Each extends Entry = Entry> {
  readonly entries: readonly Each[];
  /** What is not read, each with the reason: entries, or the file as a whole. */
  readonly refused: readonly string[];
}

type Address = Pick<Span, 'family'> & { readonly number: bigint };

const bitsOf = { 4: 32, 6: 128 } as const;

function readAddress(text: string): Address | undefined {
  return text.includes(':') ? readIpv6(text) : readIpv4(text);
}

/** Four numbers without leading zeros, which some read as octal. */
function readIpv4(text: string): Address | undefined {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256)) {
    return undefined;
  }
  return { family: 4, number: parts.reduce((sum, part) => sum * 256n + BigInt(part), 0n) };
}

/** RFC 4291, 2.2, in small letters and without an IPv4 address in it, which not every device reads. */
function readIpv6(text: string): Address | undefined {
  const halves = text.split('::').map((half) => (half === '' ? [] : half.split(':')));
  const written = halves.flat();
  const missing = 8 - written.length;
  const isWhole = halves.length === 1 ? missing === 0 : halves.length === 2 && missing >= 1;
  if (!isWhole || !written.every((group) => /^[0-9a-f]{1,4}$/.test(group))) return undefined;
  const [head, tail = []] = halves as [string[], string[]?];
  const groups = [...head, ...Array.from({ length: missing }, () => '0'), ...tail];
  return { family: 6, number: groups.reduce((sum, group) => sum * 65_536n + BigInt(`0x${group}`), 0n) };
}

export function readHost(text: string): Span | undefined {
  const address = readAddress(text);
  return address && { family: address.family, first: address.number, last: address.number };
}

/** An address with a prefix. No bit of host is set: pf's kernel and nftables refuse such an element, others differ. */
export function readPrefix(text: string): Span | undefined {
  const [, written = '', length = ''] = /^([^/]+)\/(0|[1-9]\d{0,2})$/.exec(text) ?? [];
  const address = readAddress(written);
  if (!address || Number(length) > bitsOf[address.family]) return undefined;
  const size = 1n << BigInt(bitsOf[address.family] - Number(length));
  const { family, number: first } = address;
  return first % size === 0n ? { family, first, last: first + size - 1n } : undefined;
}

/** `192.0.2.1-192.0.2.9`. */
export function readRange(text: string): Span | undefined {
  const [from, to, ...rest] = text.split('-').map(readAddress);
  if (!from || !to || rest.length > 0 || from.family !== to.family || from.number > to.number)
    return undefined;
  return { family: from.family, first: from.number, last: to.number };
}

export function readNetwork(text: string): Span | undefined {
  return readHost(text) ?? readPrefix(text);
}

/** `text`: as the span was written. */
export function entryOf(span: Span, text: string): Entry {
  return { ...span, text: isHost(span) ? text.replace(/[/-].*$/, '') : text };
}

export const isHost = ({ first, last }: Span): boolean => first === last;

/** In order of addresses, IPv4 before IPv6, wider ones first. */
export function sorted<Each extends Span>(spans: readonly Each[]): Each[] {
  const sign = (difference: bigint): number => (difference < 0n ? -1 : Number(difference > 0n));
  return spans.toSorted((a, b) => a.family - b.family || sign(a.first - b.first) || sign(b.last - a.last));
}

/** The same addresses in as few spans as there can be: two sets are equal where these are. */
export function union(spans: readonly Span[]): Span[] {
  const all: Span[] = [];
  for (const { family, first, last } of sorted(spans)) {
    const before = all.at(-1);
    if (!before || before.family !== family || first > before.last + 1n) all.push({ family, first, last });
    else if (last > before.last) all[all.length - 1] = { ...before, last };
  }
  return all;
}

/** What is left of one set without another. */
export function without(spans: readonly Span[], taken: readonly Span[]): Span[] {
  return union(taken).reduce(
    (left, { family, first, last }) =>
      left.flatMap((each) => {
        if (each.family !== family || each.last < first || each.first > last) return [each];
        const [lower, upper] = [
          { ...each, last: first - 1n },
          { ...each, first: last + 1n },
        ];
        return [lower, upper].filter((part) => part.first <= part.last);
      }),
    union(spans),
  );
}

/** For messages and for sets: `4 3221225985-3221225985`. */
export const nameOf = ({ family, first, last }: Span): string => `${family} ${first}-${last}`;
