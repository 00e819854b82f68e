// The readers that judge the lists can refuse: of each what its vendor's page does not allow, and what a page allows is read.
import { expect, test } from 'vitest';
import { listNames } from '../../src/lists/names.ts';
import { grammars } from '../lab/grammars.ts';
import { readTable } from '../lab/pf.ts';
import { nameOf, readNetwork, readRange, union, without, type Span } from '../lab/spans.ts';

const header = '#UNIQ-NAME,VALUE,TYPE,CONFIDENCE,SEVERITY,PRODUCT,COMMENT';
const row = (...fields: string[]) => `${header}\n${fields.join(',')}`;
const add = (what: string, menu = '/ip') =>
  `:do { ${menu} firewall address-list add list=crowdsec ${what} } on-error={}`;

/** Files without their last line feed. None has an address that a device may ban. */
const refusedByAll = [
  'example.org',
  'self',
  'em0',
  '-',
  '192.0.2',
  '192.0.2.300',
  '192.0.2.01',
  '192.0.2.1.1',
  '192.0.2.1/33',
  '192.0.2.1/24',
  '192.0.2.0/024',
  '192.0.2.0/255.255.255.0',
  '192.0.2.9-192.0.2.1',
  '192.0.2.1-2001:db8::1',
  '!192.0.2.1',
  '2001:db8:::1',
  '2001:db8::1::',
  '2001:DB8::1',
  '::ffff:192.0.2.1',
  '2001:db8::/129',
  '2001:db8::1/32',
  '[2001:db8::1]',
  '2001:db8::1%em0',
];

const refused: Record<string, string[]> = {
  plain: ['192.0.2.1-192.0.2.9', '192.0.2.1 192.0.2.2', '192.0.2.1 # one', '# none', '', ' 192.0.2.1'],
  cidr: ['192.0.2.1', '2001:db8::1', '192.0.2.1/32 ', '192.0.2.1-192.0.2.9'],
  range: ['192.0.2.1', '192.0.2.0/24', '192.0.2.1 - 192.0.2.9', '192.0.2.1-192.0.2.5-192.0.2.9'],
  f5: [
    '192.0.2.1,32,wl,crowdsec',
    '192.0.2.1,33',
    '2001:db8::1,129,bl,crowdsec',
    '192.0.2.1,32,bl,other',
    '192.0.2.1,32,bl,crowdsec,x',
    '192.0.2.0/24',
    '2001:db8::1,64,bl,crowdsec',
  ],
  checkpoint: [
    '192.0.2.1',
    row('1', '192.0.2.1', 'IP', 'high', 'high', 'AB', '').replace(header, '#NAME'),
    row('1', '192.0.2.1', 'IP', 'high', 'high', 'AB'),
    row('1', '192.0.2.1', 'IP', 'high', 'high', 'AB', 'a', 'b'),
    row('1', '192.0.2.1', 'IP', 'high', 'high', 'AB', '"a"'),
    row('1', '192.0.2.1', 'IP', 'high', 'high', 'AB', '=a'),
    row('1', '192.0.2.1', 'IP', 'worst', 'high', 'AB', ''),
    row('1', '192.0.2.1', 'IP', 'high', 'high', 'XY', ''),
    row('1', '192.0.2.0/24', 'IP', 'high', 'high', 'AB', ''),
    row('1', '192.0.2.0/24', 'IP Range', 'high', 'high', 'AB', ''),
    row('1', '192.0.2.1', 'Domain', 'high', 'high', 'AB', ''),
    row('1', '2001:db8::1', 'IP', 'high', 'high', 'AB', ''),
    `${row('1', '192.0.2.1', 'IP', 'high', 'high', 'AB', '')}\n1,192.0.2.2,IP,high,high,AB,`,
  ],
  mikrotik: [
    '/ip firewall address-list add list=crowdsec address=192.0.2.1 timeout=4h',
    add('address=192.0.2.1'),
    add('address=192.0.2.1 timeout=0h'),
    add('address=192.0.2.1 timeout=5966h'),
    add('address=192.0.2.1 timeout=4h disabled=yes'),
    add('address=192.0.2.1 timeout=4h timeout=5h'),
    add('address=192.0.2.1 timeout=4h comment="a" b"'),
    add('address=192.0.2.1 timeout=4h comment="$a"'),
    add('address=192.0.2.1 timeout=4h comment="a?"'),
    add('address=192.0.2.1 timeout=4h; /system reboot'),
    add('address=192.0.2.1 timeout=4h', '/ipv6'),
    add('address=2001:db8::1 timeout=4h'),
    `${add('address=192.0.2.1 timeout=4h')}\n${add('address=192.0.2.1 timeout=4h')}`,
  ],
  json: [
    '"192.0.2.1"',
    '{"a":"192.0.2.1"}',
    '[1]',
    '["192.0.2.1",]',
    '["192.0.2.1-192.0.2.9"]',
    '["example.org"]',
  ],
  paloalto: ['https://192.0.2.1', '# none', '', '192.0.2.1,a comment'],
  fortigate: ['# none', '', '192.0.2.1 a comment'],
  cisco: ['192.0.2.1-192.0.2.9', '192.0.2.1 # one', ''],
  juniper: ['192.0.2.1', '2001:db8::1', '# none'],
  pfsense: ['192.0.2.1-192.0.2.9', '192.0.2.1,192.0.2.2'],
  opnsense: ['example.org # a name', '192.0.2.1-192.0.2.9', '192.0.2.1/0.0.0.255'],
  sophos: ['192.0.2.0/24', '192.0.2.1-192.0.2.9', '2001:db8::1', '# none', '192.0.2.1/32'],
};

test('there is a reader for each name', () => {
  expect(Object.keys(grammars).toSorted()).toEqual(listNames.toSorted());
  expect(Object.keys(refused).toSorted()).toEqual(listNames.toSorted());
});

test.each(listNames)('%s: what its page does not allow is refused', (name) => {
  for (const file of [...refusedByAll, ...refused[name]]) {
    expect([file, grammars[name](`${file}\n`).refused]).toEqual([file, [expect.any(String)]]);
  }
});

test('a file that is cut off, or has what is no ASCII, is refused', () => {
  for (const name of listNames.filter((name) => name !== 'json')) {
    const start = name === 'checkpoint' ? `${header}\n` : '';
    for (const file of [`${start}192.0.2`, `${start}#é\n`, `${start}\t192.0.2.1\r\n`]) {
      expect([name, file, grammars[name](file).refused.length > 0]).toEqual([name, file, true]);
    }
  }
});

test('as many entries as a device takes', () => {
  for (const [name, most] of [
    ['paloalto', 50_000],
    ['fortigate', 131_072],
  ] as const) {
    const file = (count: number) => '192.0.2.1\n'.repeat(count);
    expect(grammars[name](file(most)).refused).toEqual([]);
    expect(grammars[name](file(most + 1)).refused).toEqual([`more than ${most} entries`]);
  }
});

const hosts = ['4 3221225985-3221225985'];

const readable: [name: string, file: string, spans: string[]][] = [
  ['paloalto', '192.0.2.1 a comment, with; #anything\n', hosts],
  ['paloalto', '192.0.2.1-192.0.2.1\n', hosts],
  ['fortigate', '192.0.2.1-192.0.2.1\n', hosts],
  ['cisco', '# a comment\n192.0.2.1\n', hosts],
  ['juniper', '192.0.2.1/32\n', hosts],
  ['f5', '192.0.2.1\n', hosts],
  ['f5', '192.0.2.1,32\n', hosts],
  ['f5', '192.0.2.1,32,bl\n', hosts],
  ['checkpoint', `${row('1', '192.0.2.1', 'IP', 'high', 'high', 'AB', 'a b')}\n`, hosts],
  ['checkpoint', `${row('1', '192.0.2.1-192.0.2.1', 'IP Range', 'low', 'critical', 'AV', '')}\n`, hosts],
  ['pfsense', '# a comment\n; another\n\n192.0.2.1 ; one\n', hosts],
  ['opnsense', '# a comment\n// another\n192.0.2.1|x\n', hosts],
  ['mikrotik', `# a comment\n${add('address=192.0.2.1/32 timeout=5965h comment="a b"')}\n`, hosts],
  ['json', '["192.0.2.1"]', hosts],
  [
    'plain',
    '2001:db8::\n',
    ['6 42540766411282592856903984951653826560-42540766411282592856903984951653826560'],
  ],
  ['plain', '::/0\n', [`6 0-${2n ** 128n - 1n}`]],
  ['range', '0.0.0.0-255.255.255.255\n', ['4 0-4294967295']],
  ['plain', '', []],
];

test('what a page allows is read', () => {
  for (const [name, file, spans] of readable) {
    const { entries, refused } = grammars[name](file);
    expect([name, file, entries.map(nameOf), refused]).toEqual([name, file, spans, []]);
  }
});

test('a table of pf: what would be looked up, is let through or is there twice is refused', () => {
  for (const [file, why] of [
    ['!192.0.2.1', 'is let through: !192.0.2.1'],
    ['!!192.0.2.1', 'is let through: !!192.0.2.1'],
    ['self', 'would be looked up: self'],
    ['em0', 'would be looked up: em0'],
    ['em0:network', 'would be looked up: em0:network'],
    ['example.org', 'would be looked up: example.org'],
    ['192.0.2.1#one', 'would be looked up: 192.0.2.1#one'],
    ['192.0.2.1;', 'would be looked up: 192.0.2.1;'],
    ['192.0.2.1-192.0.2.9', 'would be looked up: 192.0.2.1-192.0.2.9'],
    ['192.0.2.1/24', 'would be looked up: 192.0.2.1/24'],
    ['192.0.2/24', 'would be looked up: 192.0.2/24'],
    ['{ 192.0.2.1 }', 'would be looked up: {'],
    ['192.0.2.1 192.0.2.1/32', 'there twice: 192.0.2.1/32'],
    ['x'.repeat(256), `longer than pfctl's buffer: ${'x'.repeat(20)}…`],
  ]) {
    expect([file, readTable(`198.51.100.1\n${file}\n`).refused[0]]).toEqual([file, why]);
  }
});

test('a table of pf: entries between blanks and line ends, and comments', () => {
  const { entries, refused } = readTable(' # none\n192.0.2.1\t192.0.2.0/24 # two\n#\n\n2001:db8::/32');
  expect([entries.map(({ text }) => text), refused]).toEqual([
    ['192.0.2.1', '192.0.2.0/24', '2001:db8::/32'],
    [],
  ]);
});

test('sets of addresses', () => {
  const read = (...texts: string[]) => texts.map((text) => (readNetwork(text) ?? readRange(text)) as Span);
  const names = (spans: Span[]) => spans.map(nameOf);
  expect(names(union(read('192.0.2.128/25', '192.0.2.0/25', '192.0.2.7', '2001:db8::1')))).toEqual(
    names(read('192.0.2.0/24', '2001:db8::1')),
  );
  expect(
    names(without(read('192.0.2.0/24', '2001:db8::1'), read('192.0.2.0', '192.0.2.9', '2001:db8::/32'))),
  ).toEqual(names(read('192.0.2.1-192.0.2.8', '192.0.2.10-192.0.2.255')));
});
