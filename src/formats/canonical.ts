// The value of a decision in one spelling. Engines keep a value as an agent wrote it, and bouncers get that text. But a
// kernel's set has one element for all texts of one network.

import { formatNetwork, parseNetwork } from './ip.ts';
import type { Row } from './decision.ts';

/**
 * IPv6 as RFC 5952 writes it: one gap of at least two groups, and no group of zeros beside it. Not mapped IPv4. Most values
 * are written so, and parsing them would take longer than all else that is done for a row.
 */
const plainIpv6 = (() => {
  const groups = '(?:[1-9a-f][0-9a-f]{0,3}(?::[1-9a-f][0-9a-f]{0,3})*)?';
  return new RegExp(`^(?!::ffff:)(?!(?:[^:]*:){7})${groups}::${groups}$`);
})();

/** Equal for all spellings of one network, country or AS. Any other value stays as it is. */
export function canonicalValue(scope: string, value: string): string {
  if (isOfAddresses(scope)) {
    // An IPv4 address has one spelling only.
    if (!/[:/]/.test(value) || plainIpv6.test(value)) return value;
    const network = parseNetwork(value);
    const text = network ? formatNetwork(network) : value;
    // The same string where possible: a row then has one text in memory, not two.
    return text === value ? value : text;
  }
  if (scope === 'Country') return value.toUpperCase();
  if (scope === 'AS') return /^(?:AS)?0*(\d{1,10})$/i.exec(value)?.[1] ?? value;
  return value;
}

/** LAPI's two scopes of addresses: `192.0.2.9` of the one is `192.0.2.9/32` of the other. */
export function isOfAddresses(scope: string): boolean {
  return scope === 'Ip' || scope === 'Range';
}

/** Whether two scopes have the same values. */
export function sameKind(a: string, b: string): boolean {
  return a === b || (isOfAddresses(a) && isOfAddresses(b));
}

/** Whether two rows do the same to the same network, country or AS, however each is spelled. */
export function sameNetwork(a: Row, b: Row): boolean {
  return a.canonicalValue === b.canonicalValue && a.type === b.type && sameKind(a.scope, b.scope);
}

/** Whether a row is spelled otherwise than its canonical value and scope. */
export function isRespelled({ scope, value, canonicalValue }: Row): boolean {
  return value !== canonicalValue || (isOfAddresses(scope) && value.includes('/') !== (scope === 'Range'));
}
