// Addresses that operators name. Pure.

import { covers, parseNetwork } from '../formats/ip.ts';

export const publicUrlMustBe = 'an address like https://lapidary.example.net';

/** An address like https://lapidary.example.net, without the slashes at its end; null: it is none. */
export function parsePublicUrl(text: string): string | null {
  const url = text.replace(/\/+$/, '');
  return /^https?:\/\/[^\s/?#@]+(\/[\w.~-]+)*$/.test(url) ? url : null;
}

const loopback = ['127.0.0.0/8', '::1', '0.0.0.0', '::'].flatMap((text) => parseNetwork(text) ?? []);

/** Whether an address (`192.0.2.1`) is this machine itself, for whoever is on it. */
export function isLoopback(address: string): boolean {
  const network = parseNetwork(address);
  return network !== undefined && loopback.some((own) => covers(own, network));
}

/**
 * Of `https://host:1/path`, `//host:1` or `host:1`, read as clients do: `127.1` and `2130706433` are this machine, too. A
 * name that is no address of this machine may still lead to it. What no client can read counts as this machine's, so that
 * it is never fixed as the broker's.
 */
export function isLoopbackUrl(url: string): boolean {
  const address = `http://${url.replace(/^(https?:)?\/\//, '')}`;
  if (!URL.canParse(address)) return true;
  const name = new URL(address).hostname.replace(/^\[|\]$/g, '');
  return isLoopback(name) || /^(.+\.)?localhost\.?$/.test(name);
}
