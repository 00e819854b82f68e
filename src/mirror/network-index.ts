// Which active decisions cover an address: one map per prefix length, so a live lookup costs a few map reads, whatever
// the size of the list.

import { networkKey, widen, type Network } from '../formats/ip.ts';
import type { Row } from '../formats/decision.ts';
import { networkOf } from './view.ts';

export interface NetworkIndex {
  insert(row: Row): void;
  withdraw(row: Row): void;
  /** Active rows whose address or range holds all of `network`. */
  covering(network: Network): Row[];
}

export function createNetworkIndex(): NetworkIndex {
  // By family (bytes of an address) and prefix length; the key is the masked network.
  const byPrefix = new Map<string, { prefixBits: number; rows: Map<string, Row[]> }>();
  const levelName = (network: Network): string => `${network.bytes.length}/${network.prefixBits}`;

  return {
    insert(row) {
      const network = networkOf(row);
      if (!network) return;
      let level = byPrefix.get(levelName(network));
      if (!level)
        byPrefix.set(levelName(network), (level = { prefixBits: network.prefixBits, rows: new Map() }));
      const key = networkKey(network);
      const rows = level.rows.get(key);
      if (rows) rows.push(row);
      else level.rows.set(key, [row]);
    },
    withdraw(row) {
      const network = networkOf(row);
      const level = network && byPrefix.get(levelName(network));
      if (!network || !level) return;
      const key = networkKey(network);
      const rest = level.rows.get(key)?.filter((other) => other !== row) ?? [];
      if (rest.length > 0) level.rows.set(key, rest);
      else level.rows.delete(key);
      if (level.rows.size === 0) byPrefix.delete(levelName(network));
    },
    covering(network) {
      const found: Row[] = [];
      for (const [name, level] of byPrefix) {
        if (!name.startsWith(`${network.bytes.length}/`)) continue;
        const wider = widen(network, level.prefixBits);
        if (wider) found.push(...(level.rows.get(networkKey(wider)) ?? []));
      }
      return found;
    },
  };
}
