// What is read of a public list's text. The forms are those of FireHOL's netsets, of Spamhaus DROP, and of CSV.
import { describe, expect, test } from 'vitest';
import { createLines, readLine, valueOf } from '../../src/engines/list-text.ts';

/** What a list bans, and the lines of it that can't be read. */
function read(text: string, allowReserved = true, piece = Infinity) {
  const values: string[] = [];
  const wrong: (string | number)[] = [];
  const lines = createLines((line, number) => {
    const said = readLine(line, allowReserved);
    if (typeof said === 'object') values.push(valueOf(said).value);
    else if (said !== 'nothing') wrong.push(number, said);
  });
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length; at += piece) lines.push(bytes.slice(at, at + piece));
  lines.end();
  return { values, wrong };
}

const netset = `#
# firehol_level1
#
# ipv4 hash:net ipset
#
# Maintainer      : FireHOL
192.0.2.0/25
198.51.100.7
203.0.113.0/24
`;

const drop = `; Spamhaus DROP List 2026/11/01 - (c) 2026 The Spamhaus Project SLU\r
; Last-Modified: Sun, 01 Nov 2026 10:10:10 GMT\r
192.0.2.0/24 ; SBL256894\r
198.51.100.0/25 ; SBL434604\r
2001:db8::/32 ; SBL303641\r
`;

const csv = `ip,score,"last seen"
192.0.2.1,100,"2026-11-01, 10:00"
"198.51.100.9",74,never
2001:DB8:0::9,20,
`;

describe('the networks of', () => {
  test.each([
    ['a netset', netset, ['192.0.2.0/25', '198.51.100.7', '203.0.113.0/24'], []],
    ['DROP, with comments behind', drop, ['192.0.2.0/24', '198.51.100.0/25', '2001:db8::/32'], []],
    ['CSV, but for its head', csv, ['192.0.2.1', '198.51.100.9', '2001:db8::9'], [1, 'unreadable']],
    ['columns behind a tab or a #', '192.0.2.1\t9\n192.0.2.2#4#2#host#\n', ['192.0.2.1', '192.0.2.2'], []],
    ['a last line without an end', '192.0.2.1\n192.0.2.2', ['192.0.2.1', '192.0.2.2'], []],
    [
      'one spelling each',
      '192.0.2.9/32\n192.0.2.77/24\n::ffff:192.0.2.1\n',
      ['192.0.2.9', '192.0.2.0/24', '192.0.2.1'],
      [],
    ],
  ])('%s', (_, text, values, wrong) => {
    for (const piece of [1, 7, Infinity]) expect(read(text, true, piece)).toEqual({ values, wrong });
  });
});

test('a line that begins with no address costs itself', () => {
  const text = 'example.net\n192.0.2.1-192.0.2.9\n192.0.2\n192.0.2.1/33\n<html>\n192.0.2.5\n';
  const wrong = [1, 2, 3, 4, 5].flatMap((number) => [number, 'unreadable']);
  expect(read(text)).toEqual({ values: ['192.0.2.5'], wrong });
});

test('a line may be as long as it likes', () => {
  const text = `192.0.2.1 ; ${'x'.repeat(300_000)}\n192.0.2.2\n`;
  for (const piece of [4096, Infinity])
    expect(read(text, true, piece).values).toEqual(['192.0.2.1', '192.0.2.2']);
});

test('nobody’s networks are not banned, nor what has them inside', () => {
  const reserved = [
    '10.1.2.3',
    '192.168.0.0/16',
    '127.0.0.1',
    '100.64.0.0/10',
    '192.0.2.0/24',
    '224.0.0.0/3',
  ];
  const more = [
    '0.0.0.0/0',
    '::/0',
    '::1',
    'fe80::/10',
    'fd00::1',
    '2001:db8::1',
    '192.0.0.0/8',
    '172.0.0.0/10',
  ];
  for (const line of [...reserved, ...more]) expect(readLine(line, false), line).toBe('reserved');
  for (const line of ['9.9.9.9', '11.0.0.0/8', '2620:fe::fe', '192.0.1.0/24']) {
    expect(readLine(line, false), line).toBeTypeOf('object');
  }
});

test('no line bans a good part of the internet, whatever the settings allow', () => {
  for (const line of ['0.0.0.0/0', '198.0.0.0/7', '::/0', '2000::/15']) {
    expect(readLine(line, true), line).toBe('too-wide');
  }
});
