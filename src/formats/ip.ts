// IP addresses and CIDR ranges as LAPI compares them: host bits masked, IPv4-mapped IPv6 is IPv4,
// IPv4 never matches IPv6. Parsing is ipaddr.js's, held to what Go's net.ParseIP accepts.

import ipaddr from 'ipaddr.js';

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
  if (text.includes(':')) return text.includes('%') ? undefined : parseIpv6(text);
  if (!/^(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}$/.test(text)) return undefined;
  const bytes = text.split('.').map(Number);
  return bytes.every((byte) => byte <= 255) ? bytes : undefined;
}

function parseIpv6(text: string): number[] | undefined {
  try {
    const address = ipaddr.IPv6.parse(text);
    return address.isIPv4MappedAddress() ? address.toIPv4Address().toByteArray() : address.toByteArray();
  } catch {
    return undefined;
  }
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

/** Most clients' address, read at each request: of IPv4 there is one spelling alone. */
const octet = String.raw`(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)`;
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
  const address = ipaddr.fromByteArray([...network.bytes]).toString();
  return network.prefixBits === network.bytes.length * 8 ? address : `${address}/${network.prefixBits}`;
}
