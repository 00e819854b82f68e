// Each format, line by line, and held against what each vendor's page says of a line.
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

const octet = String.raw`(?:25[0-5]|2[0-4]\d|1?\d?\d)`;
const v4 = String.raw`${octet}(?:\.${octet}){3}`;
const v6 = String.raw`(?=[0-9a-f:]{2,39}(?![0-9a-f:]))[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}`;
const ip = `(?:${v4}|${v6})`;
const line = (pattern: string) => new RegExp(`^(?:${pattern})$`);

/** What a vendor's page says of a line; a page that allows more than we need is held to what we write. */
const grammars: Record<string, RegExp> = {
  // EDL of type IP: address, subnet or range; text after the first blank is a comment.
  paloalto: line(String.raw`${ip}(?:/\d{1,3}|-${ip})?(?: .*)?`),
  // external-resource of type address: the same three.
  fortigate: line(String.raw`${ip}(?:/\d{1,3}|-${ip})?`),
  cisco: line(String.raw`#.*|${ip}(?:/\d{1,3})?`),
  // feed-server: always with a prefix.
  juniper: line(String.raw`${v4}/\d{1,2}|${v6}/\d{1,3}`),
  // parse_aliases_file: what is before a blank, `#` or `;`.
  pfsense: line(String.raw`(?:${ip}(?:/\d{1,3})?)?[ \t]*(?:[#;].*)?`),
  // alias/uri.py splits at blanks, commas, semicolons, bars and `#`.
  opnsense: line(String.raw`${ip}(?:/\d{1,3})?(?:[\s,;|#].*)?`),
  // One address, nothing else.
  sophos: line(v4),
  f5: line(String.raw`${v4},(?:[0-9]|[12]\d|3[0-2]),(?:bl|wl),\w+|${v6},\d{1,3},(?:bl|wl),\w+`),
  checkpoint: line(
    String.raw`#.*|[\w-]+,(?:${v4},IP|${v4}-${v4},IP Range),(?:low|medium|high|critical),(?:low|medium|high|critical),(?:AV|AB),[^,\n]*`,
  ),
  mikrotik: line(
    String.raw`:do \{ (?:/ip firewall address-list add list=[\w-]+ address=${v4}(?:/\d{1,2})?|/ipv6 firewall address-list add list=[\w-]+ address=${v6}(?:/\d{1,3})?) timeout=\d+h comment="[^"\\$\n]*" \} on-error=\{\}`,
  ),
};

test.each(Object.keys(grammars))('%s reads every line', (name) => {
  const { format, family, hostsOnly } = readListName(name)!;
  const fitting = entries.filter((entry) => {
    return (
      (!hostsOnly || entry.prefixBits === (entry.family === 4 ? 32 : 128)) &&
      (family ?? entry.family) === entry.family
    );
  });
  const lines = written(format, fitting).split('\n').slice(0, -1);
  expect(lines.length).toBeGreaterThan(0);
  for (const each of lines) expect(each).toMatch(grammars[name]);
});

test('what no vendor reads does not pass for a line', () => {
  for (const name of ['fortigate', 'cisco', 'juniper', 'sophos']) {
    for (const wrong of ['', '192.0.2', '192.0.2.300', 'example.org', '192.0.2.1;x']) {
      expect(wrong).not.toMatch(grammars[name]);
    }
  }
});

test('names: each with and without .txt, no others', () => {
  for (const name of listNames) expect(readListName(`${name}.txt`)).toBe(readListName(name));
  for (const wrong of ['', '.txt', 'plain.txt.txt', 'plain.csv', 'Plain', 'constructor', '__proto__']) {
    expect(readListName(wrong)).toBeUndefined();
  }
});
