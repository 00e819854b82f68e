// IP addresses and CIDR ranges as LAPI compares them: host bits masked, IPv4-mapped IPv6 is IPv4,
// IPv4 never matches IPv6. The spellings are those that Go's net.ParseIP accepts; ours is RFC 5952's.

/** One address or range. `bytes` are 4 or 16, host bits are zero beyond `prefixBits`. */
export interface Network {
  readonly bytes: readonly number[];
  readonly prefixBits: number;
}

/** A network of an address (`192.0.2.1`, `2001:db8::1`) or a CIDR range (`192.0.2.7/24`), else undefined. */
export function parseNetwork(text: string): Network | undefined {
  const slash = text.indexOf('/');
  const address = parseAddress(slash < 0 ? text : text.slice(0, slash));
  if (!address) return undefined;
  const bits = address.length * 8;
  if (slash < 0) return { bytes: address, prefixBits: bits };
  const suffix = text.slice(slash + 1);
  if (!/^(0|[1-9]\d{0,2})$/.test(suffix)) return undefined;
  // Go keeps the prefix of `::ffff:192.0.2.0/120` in IPv6 bits; the address itself is IPv4.
  const mapped = address.length === 4 && text.includes(':');
  const prefixBits = Number(suffix) - (mapped ? 96 : 0);
  if (prefixBits < 0 || prefixBits > bits) return undefined;
  return { bytes: mask(address, prefixBits), prefixBits };
}

function parseAddress(text: string): number[] | undefined {
  if (!text.includes(':')) return parseIpv4(text);
  const bytes = parseIpv6(text);
  return bytes && isMapped(bytes) ? bytes.slice(12) : bytes;
}

const octet = String.raw`(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)`;
const ipv4 = new RegExp(`^(${octet})${String.raw`\.(${octet})`.repeat(3)}$`);

function parseIpv4(text: string): number[] | undefined {
  return ipv4.exec(text)?.slice(1).map(Number);
}

/** Without a zone. */
function parseIpv6(text: string): number[] | undefined {
  const gap = text.indexOf('::');
  if (gap < 0) {
    const bytes = readGroups(text);
    return bytes?.length === 16 ? bytes : undefined;
  }
  const left = text.lastIndexOf('.', gap) < 0 ? readGroups(text.slice(0, gap)) : undefined;
  const right = readGroups(text.slice(gap + 2));
  // A gap stands for one group at least.
  const missing = left && right ? 16 - left.length - right.length : 0;
  if (!left || !right || missing < 2) return undefined;
  while (left.length < 16 - right.length) left.push(0);
  return left.concat(right);
}

/** The bytes of groups with one colon between two. The last may be an IPv4 address. */
function readGroups(text: string): number[] | undefined {
  const bytes: number[] = [];
  if (text === '') return bytes;
  let start = 0;
  for (let colon = text.indexOf(':'); colon >= 0; colon = text.indexOf(':', start)) {
    const group = readHex(text, start, colon);
    if (group < 0) return undefined;
    bytes.push(group >> 8, group & 255);
    start = colon + 1;
  }
  const last = readHex(text, start, text.length);
  const lastBytes = last < 0 ? parseIpv4(text.slice(start)) : [last >> 8, last & 255];
  return lastBytes && bytes.concat(lastBytes);
}

/** The number that one to four hexadecimal digits write; -1: they are none. */
function readHex(text: string, start: number, end: number): number {
  if (end === start || end > start + 4) return -1;
  let number = 0;
  for (let at = start; at < end; at++) {
    const digit = hexDigit(text.charCodeAt(at));
    if (digit < 0) return -1;
    number = number * 16 + digit;
  }
  return number;
}

function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const lower = code | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x61 + 10 : -1;
}

/** IPv4 in IPv6: `::ffff:192.0.2.1`. */
function isMapped(bytes: readonly number[]): boolean {
  return bytes[10] === 0xff && bytes[11] === 0xff && bytes.findIndex((byte) => byte !== 0) === 10;
}

function mask(bytes: readonly number[], prefixBits: number): number[] {
  return bytes.map((byte, index) => {
    const keep = Math.min(8, Math.max(0, prefixBits - index * 8));
    return byte & ((0xff00 >> keep) & 0xff);
  });
}

/** The network of `prefixBits` that holds this one; undefined when this one is wider. */
export function widen(network: Network, prefixBits: number): Network | undefined {
  if (prefixBits > network.prefixBits) return undefined;
  return { bytes: mask(network.bytes, prefixBits), prefixBits };
}

/** Whether every address of `inner` is in `outer`. */
export function covers(outer: Network, inner: Network): boolean {
  if (outer.bytes.length !== inner.bytes.length || outer.prefixBits > inner.prefixBits) return false;
  return mask(inner.bytes, outer.prefixBits).every((byte, index) => byte === outer.bytes[index]);
}

/** The last address of a network. */
export function lastAddress({ bytes, prefixBits }: Network): string {
  const last = bytes.map((byte, index) => {
    const kept = Math.min(8, Math.max(0, prefixBits - index * 8));
    return byte | (0xff >> kept);
  });
  return formatNetwork({ bytes: last, prefixBits: bytes.length * 8 });
}

/** Most clients' address, read at each request: of IPv4 there is one spelling alone. */
const clientIpv4 = new RegExp(String.raw`^(${octet}(?:\.${octet}){3})(?::\d{1,5})?$`);

/**
 * The one text of a client's address, whoever names it: Azure and AWS put a port behind it (`198.51.100.7:40001`,
 * `[2001:db8::7]:443`), dual-stack sockets write IPv4 as IPv6, link-local addresses have a zone. undefined: it is none.
 */
export function readClientIp(text: string): string | undefined {
  const ipv4 = clientIpv4.exec(text)?.[1];
  if (ipv4 !== undefined) return ipv4;
  const { v4, v6 } =
    /^(?<v4>[\d.]+)(:\d{1,5})?$|^\[(?<v6>[^\]]+)\](:\d{1,5})?$/.exec(text.trim())?.groups ?? {};
  const bytes = parseAddress((v4 ?? v6 ?? text.trim()).replace(/%.*$/, ''));
  return bytes && formatNetwork({ bytes, prefixBits: bytes.length * 8 });
}

/**
 * What a limit counts by, of an address as `readClientIp` gives it: an IPv4 address, and of IPv6 the /64, all of which
 * one client may use. A text that is no address counts by itself.
 */
export function limitedNetwork(address: string): string {
  const network = parseNetwork(address);
  const wide = network?.bytes.length === 16 && widen(network, 64);
  return wide ? formatNetwork(wide) : address;
}

/** Canonical text (RFC 5952 for IPv6): a bare address for one host, else CIDR. */
export function formatNetwork(network: Network): string {
  const { bytes } = network;
  const address = bytes.length === 4 ? bytes.join('.') : formatIpv6(bytes);
  return network.prefixBits === network.bytes.length * 8 ? address : `${address}/${network.prefixBits}`;
}

/** Its longest gap, of two groups of zeros at least, is left out; of two equal ones the first. */
function formatIpv6(bytes: readonly number[]): string {
  const groups: string[] = [];
  let gap = { start: 0, length: 1 };
  for (let at = 0, zeros = 0; at < 8; at++) {
    const group = ((bytes[2 * at] as number) << 8) | (bytes[2 * at + 1] as number);
    groups.push(group.toString(16));
    zeros = group === 0 ? zeros + 1 : 0;
    if (zeros > gap.length) gap = { start: at + 1 - zeros, length: zeros };
  }
  if (gap.length < 2) return groups.join(':');
  return `${groups.slice(0, gap.start).join(':')}::${groups.slice(gap.start + gap.length).join(':')}`;
}
