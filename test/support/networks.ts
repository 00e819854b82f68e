// Decisions on networks in every spelling that engines may send, well-formed or not, and what happens to them.
import fc from 'fast-check';
import type { Row } from '../../src/formats/decision.ts';
import { parseNetwork } from '../../src/formats/ip.ts';
import { createRow } from '../../src/mirror/decisions.sql.ts';
import { applyChange, createMirror, type Mirror } from '../../src/mirror/memory.ts';

const addresses = {
  4: [
    [192, 0, 2, 0],
    [192, 0, 2, 77],
    [198, 51, 100, 7],
    [203, 0, 113, 255],
  ],
  16: [
    [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1],
    [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0],
    [0x2001, 0xdb8, 1, 0, 0, 2, 0, 0],
    [0x2001, 0xdb8, 0, 1, 2, 3, 4, 5],
    [0x2001, 0xdb8, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf],
    [0x2001, 0xdb8, 0, 1, 0, 1, 0xffff, 0xffff],
  ],
} as const;

const slash = (bits: number): fc.Arbitrary<string> =>
  fc.option(
    fc.nat(bits).map((prefixBits) => `/${prefixBits}`),
    { nil: '' },
  );

const hex = (group: number): string => group.toString(16);
const upper = (text: string): string => text.toUpperCase();

const ipv4 = fc
  .tuple(fc.constantFrom(...addresses[4]), slash(32), slash(128), fc.nat(3))
  .map(([[a, b, c, d], own, mapped, spelling]) => {
    const low = `${hex(a * 256 + b)}:${hex(c * 256 + d)}`;
    return [
      `${a}.${b}.${c}.${d}${own}`,
      `::ffff:${a}.${b}.${c}.${d}${mapped}`,
      `::FFFF:${upper(low)}${mapped}`,
      `0:0:0:0:0:ffff:${low}${mapped}`,
    ][spelling] as string;
  });

/** Any gaps of zeros, in a network that few rows share. */
const anyGroups = fc
  .array(fc.constantFrom(0, 0, 1, 0xffff), { minLength: 6, maxLength: 6 })
  .map((groups) => [0x2001, 0xdb8, ...groups]);

const ipv6 = fc
  .tuple(fc.oneof(fc.constantFrom(...addresses[16]), anyGroups), slash(128), fc.nat(4))
  .map(([groups, own, spelling]) => {
    const plain = groups.map(hex).join(':');
    const [high = 0, low = 0] = groups.slice(6);
    const dotted = [high >> 8, high & 255, low >> 8, low & 255].join('.');
    return [
      plain + own,
      groups.map((group) => hex(group).padStart(4, '0')).join(':') + own,
      upper(plain) + own,
      plain.replace(/(?<=:)0(:0)*(?=:|$)/, ':').replace(':::', '::') + own,
      `${groups.slice(0, 6).map(hex).join(':')}:${dotted}${own}`,
    ][spelling] as string;
  });

const noNetwork = fc.constantFrom(
  ...['', 'FR', '64500', '192.0.2', '192.0.2.077', '192.0.2.77/', '192.0.2.77/033', '192.0.2.77/33'],
  ...['192.0.2.77/999', '192.0.2.77/x', ' 192.0.2.77', '::ffff:192.0.2.77/95', '2001:db8::1/129'],
  ...['2001:db8::1%eth0', '2001:db8:::1', '::1::', 'a:b', '/24'],
);

/** A value in the text of an engine. */
export const spelled: fc.Arbitrary<string> = fc.oneof(
  { weight: 5, arbitrary: ipv4 },
  { weight: 5, arbitrary: ipv6 },
  { weight: 1, arbitrary: noNetwork },
);

/** Mostly LAPI's two scopes of addresses. The others may have addresses as values. */
const scope = fc.constantFrom('Ip', 'Range', 'Ip', 'Range', 'Ip', 'Range', 'ip', 'Country', 'session');

export interface Spelled {
  readonly value: string;
  readonly scope: string;
}

export const decision: fc.Arbitrary<Spelled> = fc.record({ value: spelled, scope });

/** One that a look-up may ask for. */
export const network = spelled.map(parseNetwork).filter((read) => read !== undefined);
export type Step = { add: Spelled } | { end: number } | { renew: number };
export const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ add: decision }) },
  fc.record({ end: fc.nat(99) }),
  fc.record({ renew: fc.nat(99) }),
);

/** A mirror of decisions whose ids are their places, from 1 on. */
export function mirrorOf(decisions: readonly Spelled[]): Mirror {
  const rows = decisions.map((each, index) => rowOf(index + 1, each));
  const keptBack = { values: () => [], of: () => [] };
  return createMirror(rows, { sequence: rows.length, purgedSequence: 0 }, keptBack);
}

function rowOf(id: number, { value, scope }: Spelled): Row {
  const place = { rowId: id, engine: 'default', engineId: id };
  const rest = { origin: 'crowdsec', scenario: 'ssh-bf', type: 'ban', untilMs: Number.MAX_SAFE_INTEGER };
  return createRow(place, { id, value, scope, ...rest }, id);
}

export function take(mirror: Mirror, step: Step): void {
  const active = [...mirror.byId.values()];
  const change = { again: [], added: [], removed: [] };
  const sequence = mirror.sequence + 1;
  if ('add' in step) {
    const added = [{ row: rowOf(sequence, step.add) }];
    return applyChange(mirror, { ...change, added, sequence });
  }
  if (active.length === 0) return;
  const row = active[('end' in step ? step.end : step.renew) % active.length] as Row;
  if ('end' in step) {
    return applyChange(mirror, { ...change, removed: [{ row, seq: sequence, atMs: 1 }], sequence });
  }
  const added = [{ row: { ...row, addedSeq: sequence }, renewed: row }];
  applyChange(mirror, { ...change, added, sequence });
}

/** An address with every prefix length, and with its host bits. */
export function eachPrefix(address: string): string[] {
  const bits = address.includes(':') ? 128 : 32;
  return Array.from({ length: bits + 1 }, (_, prefixBits) => `${address}/${prefixBits}`);
}
