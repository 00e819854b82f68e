// Spellings of addresses, held against the runtime's own parser of addresses in URLs. It takes and writes IPv6 as Go does,
// but for IPv4 in it, which it writes in hex.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatNetwork, parseNetwork, readClientIp } from '../../src/formats/ip.ts';

/** As the runtime writes an IPv6 address; undefined: it is none. */
function byRuntime(text: string): string | undefined {
  return URL.canParse(`http://[${text}]/`) ? new URL(`http://[${text}]/`).hostname.slice(1, -1) : undefined;
}

/** IPv4 in the last 32 bits of `::ffff:c000:201`. */
function mapped(text: string | undefined): string | undefined {
  const [, high, low] = /^::ffff:([0-9a-f]+):([0-9a-f]+)$/.exec(text ?? '') ?? [];
  if (high === undefined || low === undefined) return text;
  return [high, low]
    .map((group) => parseInt(group, 16))
    .flatMap((group) => [group >> 8, group & 255])
    .join('.');
}

const group = fc.oneof(
  fc.nat(0xffff).map((value) => value.toString(16)),
  fc.constantFrom(
    '0',
    '0',
    '0',
    '00',
    '0000',
    '00a',
    'ffff',
    'FFFF',
    'Db8',
    'f',
    '00000',
    '1ffff',
    '',
    'g',
    '-1',
    '0x1',
  ),
);
const octet = fc.oneof(
  fc.nat(299).map(String),
  fc.constantFrom('0', '00', '01', '255', '256', '1000', '', 'a', '0x1', '-1'),
);
const dotted = fc.array(octet, { minLength: 3, maxLength: 5 }).map((octets) => octets.join('.'));
const colon = fc.constantFrom(':', ':', ':', ':', '::', '');

/** Up to ten parts, most of them groups, with any number of gaps; a few of all are addresses. */
const spelling = fc
  .array(fc.tuple(fc.oneof({ weight: 9, arbitrary: group }, { weight: 1, arbitrary: dotted }), colon), {
    maxLength: 10,
  })
  .map((parts) => parts.flat().join(''));
/** Right but for one change at most. */
const nearly = fc
  .tuple(
    fc.ipV6(),
    fc.nat(50),
    fc.constantFrom('', '', ':', '::', '0', 'f', '.', '1.', '/', ' ', '%', 'g'),
    fc.nat(2),
  )
  .map(([text, at, more, less]) => text.slice(0, at) + more + text.slice(at + less));
const mappedSpelling = fc
  .tuple(
    fc.constantFrom('::ffff:', '::FFFF:', '0:0:0:0:0:ffff:', '::', '::1:', '2001:db8::'),
    fc.oneof(dotted, fc.ipV4()),
  )
  .map(([prefix, text]) => prefix + text);

test('an IPv6 address is read and written as the runtime does, in any spelling, good or bad', () => {
  const texts = fc.oneof(fc.ipV6(), spelling, nearly, mappedSpelling).filter((text) => text.includes(':'));
  fc.assert(
    fc.property(texts, (text) => {
      const network = text.includes('/') ? undefined : parseNetwork(text);
      expect(network && formatNetwork(network)).toBe(mapped(byRuntime(text)));
    }),
    { numRuns: 20_000 },
  );
});

test('an IPv4 address has one spelling', () => {
  fc.assert(
    fc.property(fc.oneof(dotted, fc.ipV4()), (text) => {
      const octets = text.split('.');
      const isGood = octets.length === 4 && octets.every((each) => String(Number(each) & 255) === each);
      const network = parseNetwork(text);
      expect(network && formatNetwork(network)).toBe(isGood ? text : undefined);
      expect(readClientIp(text)).toBe(isGood ? text : undefined);
    }),
    { numRuns: 5_000 },
  );
});

test.each([
  // Not mapped: no engine takes it for IPv4.
  ['::192.0.2.1', '::c000:201'],
  ['2001:db8::192.0.2.1', '2001:db8::c000:201'],
  ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
  ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
  ['2001:db8:1:1:1:1:0:0', '2001:db8:1:1:1:1::'],
  ['::', '::'],
])('%s is %s', (text, canonical) => {
  expect(formatNetwork(parseNetwork(text)!)).toBe(canonical);
});

test.each([
  '::ffff:192.0.2.01',
  '::ffff:0xc0.0.2.1',
  '192.0.2.1::',
  '2001:db8::1:',
  ':2001:db8::1',
  '2001:db8::1::2',
  ':',
])('%j is none', (text) => expect(parseNetwork(text)).toBeUndefined());
