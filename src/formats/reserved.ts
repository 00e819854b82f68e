// Networks that nobody on the internet has: private, local, for documentation, multicast, not given out. A public list that
// names one of them would cut a site off from itself. Pure.

import { parseNetwork, type Network } from './ip.ts';

/** IANA's special-purpose registries, RFC 6890 and its successors, and multicast. */
const reserved = [
  [
    '0.0.0.0/8',
    '10.0.0.0/8',
    '100.64.0.0/10',
    '127.0.0.0/8',
    '169.254.0.0/16',
    '172.16.0.0/12',
    '192.0.0.0/24',
  ],
  ['192.0.2.0/24', '192.88.99.0/24', '192.168.0.0/16', '198.18.0.0/15', '198.51.100.0/24', '203.0.113.0/24'],
  ['224.0.0.0/4', '240.0.0.0/4', '::/8', '64:ff9b::/96', '64:ff9b:1::/48', '100::/64', '2001::/23'],
  ['2001:db8::/32', '2002::/16', '3fff::/20', '5f00::/16', 'fc00::/7', 'fe80::/9', 'ff00::/8'],
]
  .flat()
  .map((text) => parseNetwork(text) as Network);

/** Whether a network has addresses of a reserved one. */
export function isReserved(network: Network): boolean {
  return reserved.some((each) => overlap(each, network));
}

/** Makes no lists: it is asked for each line of a long list. */
function overlap(a: Network, b: Network): boolean {
  if (a.bytes.length !== b.bytes.length) return false;
  const bits = Math.min(a.prefixBits, b.prefixBits);
  for (let at = 0; at * 8 < bits; at++) {
    const keep = (0xff00 >> Math.min(8, bits - at * 8)) & 0xff;
    if ((((a.bytes[at] as number) ^ (b.bytes[at] as number)) & keep) !== 0) return false;
  }
  return true;
}
