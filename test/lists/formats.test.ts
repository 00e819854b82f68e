// Each format, line by line, and the names of the lists.
import { expect, test } from 'vitest';
import { formats, forms, textOf, type Entry, type Format } from '../../src/lists/formats.ts';
import { listNames, readListName } from '../../src/lists/names.ts';

const hour = 3_600_000;

const entries: Entry[] = [
  {
    address: '192.0.2.1',
    prefixBits: 32,
    family: 4,
    id: 17,
    isLeft: false,
    scenario: 'crowdsecurity/ssh-bf',
    leftMs: 4 * hour,
  },
  {
    address: '198.51.100.0',
    prefixBits: 24,
    family: 4,
    id: 18,
    isLeft: false,
    scenario: 'a list, "quoted" $x\n\\é',
    leftMs: hour + 1,
  },
  { address: '203.0.113.0', prefixBits: 30, family: 4, id: 19, isLeft: false, scenario: '', leftMs: 1 },
  {
    address: '2001:db8::1',
    prefixBits: 128,
    family: 6,
    id: 20,
    isLeft: false,
    scenario: 'crowdsecurity/ssh-bf',
    leftMs: 9e15,
  },
  {
    address: '2001:db8::',
    prefixBits: 32,
    family: 6,
    id: 21,
    isLeft: false,
    scenario: 'drop',
    leftMs: 168 * hour,
  },
];

function written(format: Format, all = entries): string {
  const form = forms[format];
  const fitting = all.filter(({ family }) => form.families.includes(family));
  return [...textOf(form, fitting, 'crowdsec', 60)].join('');
}

const golden: Record<Format, string[]> = {
  plain: ['192.0.2.1', '198.51.100.0/24', '203.0.113.0/30', '2001:db8::1', '2001:db8::/32'],
  cidr: ['192.0.2.1/32', '198.51.100.0/24', '203.0.113.0/30', '2001:db8::1/128', '2001:db8::/32'],
  range: [
    '192.0.2.1-192.0.2.1',
    '198.51.100.0-198.51.100.255',
    '203.0.113.0-203.0.113.3',
    '2001:db8::1-2001:db8::1',
    '2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff',
  ],
  f5: [
    '192.0.2.1,32,bl,crowdsec',
    '198.51.100.0,24,bl,crowdsec',
    '203.0.113.0,30,bl,crowdsec',
    '2001:db8::1,128,bl,crowdsec',
    '2001:db8::,32,bl,crowdsec',
  ],
  checkpoint: [
    '#UNIQ-NAME,VALUE,TYPE,CONFIDENCE,SEVERITY,PRODUCT,COMMENT',
    'lapidary-17,192.0.2.1,IP,high,high,AB,crowdsecurity/ssh-bf',
    'lapidary-18,198.51.100.0-198.51.100.255,IP Range,high,high,AB,a list_ _quoted_ _x___',
    'lapidary-19,203.0.113.0-203.0.113.3,IP Range,high,high,AB,',
  ],
  mikrotik: [
    ':do { /ip firewall address-list add list=crowdsec address=192.0.2.1 timeout=4h comment="ssh-bf" } on-error={}',
    ':do { /ip firewall address-list add list=crowdsec address=198.51.100.0/24 timeout=2h comment="a list_ _quoted_ _x___" } on-error={}',
    ':do { /ip firewall address-list add list=crowdsec address=203.0.113.0/30 timeout=1h comment="" } on-error={}',
    ':do { /ipv6 firewall address-list add list=crowdsec address=2001:db8::1 timeout=5965h comment="ssh-bf" } on-error={}',
    ':do { /ipv6 firewall address-list add list=crowdsec address=2001:db8::/32 timeout=168h comment="drop" } on-error={}',
  ],
  json: [
    '[',
    '"192.0.2.1",',
    '"198.51.100.0/24",',
    '"203.0.113.0/30",',
    '"2001:db8::1",',
    '"2001:db8::/32"',
    ']',
  ],
};

test.each(formats)('%s, line by line', (format) => {
  expect(written(format)).toBe(`${golden[format].join('\n')}\n`);
});

test('no comment begins like a formula of a spreadsheet', () => {
  for (const scenario of ['=1+1', '+1+1', '-1+1', '@SUM(1)', '\t=1']) {
    const [, line] = written('checkpoint', [{ ...entries[0], scenario }]).split('\n');
    expect(line.split(',')[6]).toMatch(/^_/);
  }
});

test('an empty list is no line', () => {
  const empty = formats.map((format) => [format, written(format, [])]);
  expect(Object.fromEntries(empty)).toEqual({
    plain: '',
    cidr: '',
    range: '',
    f5: '',
    checkpoint: '#UNIQ-NAME,VALUE,TYPE,CONFIDENCE,SEVERITY,PRODUCT,COMMENT\n',
    mikrotik: '',
    json: '[\n]\n',
  });
  expect(JSON.parse(written('json', []))).toEqual([]);
  expect(JSON.parse(written('json'))).toEqual(golden.plain);
});

test('names: each with and without .txt, no others', () => {
  for (const name of listNames) expect(readListName(`${name}.txt`)).toBe(readListName(name));
  for (const wrong of ['', '.txt', 'plain.txt.txt', 'plain.csv', 'Plain', 'constructor', '__proto__']) {
    expect(readListName(wrong)).toBeUndefined();
  }
});
