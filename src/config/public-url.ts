// The address by which hosts know Lapidary, and whether an address leads to this machine itself. Pure.

import { covers, parseNetwork } from '../formats/ip.ts';

export const publicUrlMustBe = 'an address like https://lapidary.example.net';

/** The address without the slashes at its end; null: it is not like https://lapidary.example.net. */
export function parsePublicUrl(text: string): string | null {
  const url = text.replace(/\/+$/, '');
  return /^https?:\/\/[^\s/?#@]+(\/[\w.~-]+)*$/.test(url) ? url : null;
}

const loopback = ['127.0.0.0/8', '::1', '0.0.0.0', '::'].flatMap((text) => parseNetwork(text) ?? []);

/** Whether an address (`192.0.2.1`) leads back to the machine on which it is used. */
export function isLoopback(address: string): boolean {
  const network = parseNetwork(address);
  return network !== undefined && loopback.some((own) => covers(own, network));
}

/**
 * The same for `https://host:1/path`, `//host:1` or `host:1`, read as clients do: `127.1` and `2130706433` are loopback,
 * too. A name may still lead there without being a loopback address. What no client can read counts as loopback, so that
 * it is never fixed as the public address.
 */
export function isLoopbackUrl(url: string): boolean {
  const address = `http://${url.replace(/^(https?:)?\/\//, '')}`;
  if (!URL.canParse(address)) return true;
  const name = new URL(address).hostname.replace(/^\[|\]$/g, '');
  return isLoopback(name) || /^(.+\.)?localhost\.?$/.test(name);
}
