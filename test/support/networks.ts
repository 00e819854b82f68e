// Networks in every spelling that engines may send, well-formed or not.
import fc from 'fast-check';
import { createRow } from '../../src/mirror/decisions.sql.ts';
import type { Row } from '../../src/formats/decision.ts';

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
export const scope = fc.constantFrom('Ip', 'Range', 'Ip', 'Range', 'Ip', 'Range', 'ip', 'Country', 'session');

/** A row of an engine: its first active one with this number. */
export function rowOf(id: number, { value, scope }: { value: string; scope: string }, addedSeq = id): Row {
  const place = { rowId: id, engine: 'default', engineId: id };
  const rest = { origin: 'crowdsec', scenario: 'ssh-bf', type: 'ban', untilMs: Number.MAX_SAFE_INTEGER };
  return createRow(place, { id, value, scope, ...rest }, addedSeq);
}
