// Which active decisions cover an address. All spellings of a network have one canonical text (canonical.ts), so the map of
// canonical values has them already: a look-up reads it once for each prefix length that some decision has. There is no
// index of its own to build and to keep.

import { isOfAddresses } from '../formats/canonical.ts';
import { formatNetwork, widen, type Network } from '../formats/ip.ts';
import type { Row } from '../formats/decision.ts';

/** How many active decisions have a prefix length. A length too many costs a read, one that is missing a ban. */
export interface PrefixCounts {
  readonly v4: Map<number, number>;
  readonly v6: Map<number, number>;
}

/** `by`: 1 for a row that is now active, -1 for one that was. A text that is no network counts like one. */
export function countPrefix(counts: PrefixCounts, { scope, canonicalValue }: Row, by: 1 | -1): void {
  if (!isOfAddresses(scope)) return;
  const isV6 = canonicalValue.includes(':');
  const ofFamily = isV6 ? counts.v6 : counts.v4;
  const prefixBits = prefixOf(canonicalValue) ?? (isV6 ? 128 : 32);
  const count = (ofFamily.get(prefixBits) ?? 0) + by;
  if (count === 0) ofFamily.delete(prefixBits);
  else ofFamily.set(prefixBits, count);
}

/** How many active decisions are on addresses and ranges. */
export function countOfAddresses({ v4, v6 }: PrefixCounts): number {
  return [...v4.values(), ...v6.values()].reduce((sum, count) => sum + count, 0);
}

function prefixOf(text: string): number | undefined {
  // Not more digits, or texts that are no networks could make any number of lengths.
  const digits = text.includes('/') ? /\/(\d{1,3})$/.exec(text)?.[1] : undefined;
  return digits === undefined ? undefined : Number(digits);
}

interface Active {
  readonly byCanonicalValue: ReadonlyMap<string, readonly Row[]>;
  readonly prefixes: PrefixCounts;
}

/** Active rows whose address or range holds all of `network`. */
export function covering({ byCanonicalValue, prefixes }: Active, network: Network): Row[] {
  const found: Row[] = [];
  const ofFamily = network.bytes.length === 4 ? prefixes.v4 : prefixes.v6;
  for (const prefixBits of ofFamily.keys()) {
    const wider = widen(network, prefixBits);
    const rows = wider && byCanonicalValue.get(formatNetwork(wider));
    // Another scope may have the same text as a value.
    for (const row of rows ?? []) if (isOfAddresses(row.scope)) found.push(row);
  }
  return found;
}
