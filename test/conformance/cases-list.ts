// The list: lookups by address in both directions, filters, pages, and what is no address.
// Order is not compared: LAPI promises none, Lapidary gives the strictest decision on an address first.
import { cached, type Case, fractions, listPath, refused, refusedPage } from './case.ts';

function look(name: string, query: string, shows?: Case['shows']): Case {
  return { name: `list: ${name}`, path: `${listPath}${query}`, ...(shows && { shows }) };
}

export const listCases: Case[] = [
  look('everything', ''),
  look('scopes', '?scopes=country,username'),
  look('scope', '?scope=country&value=FR'),
  look('scope, and a value outside of it', '?scope=country&value=192.0.2.1', (engine) =>
    engine.since('1.6.1') ? {} : { 'scope-alias': ['list: only LAPI has Ip 192.0.2.1 ban cscli 4h'] },
  ),
  look('empty scopes', '?scopes='),
  look('origins', '?origins=crowdsec'),
  look('scenarios_containing', '?scenarios_containing=SSH'),
  look('empty scenarios_not_containing', '?scenarios_not_containing='),
  look('value', '?value=192.0.2.3'),
  look('value of another scope', '?value=alice'),
  look('type', '?type=captcha'),
  look('simulated=true', '?simulated=true&value=203.0.113.7', {
    'no-simulated': ['list: only LAPI has Ip 203.0.113.7 ban crowdsec 4h'],
  }),
  look('simulated row by its address', '?ip=203.0.113.7'),
  look('unknown parameters', '?foo=bar&startup=true'),
  look('ended decisions', '?value=203.0.113.50'),
  look('an address', '?ip=203.0.113.1'),
  look('an address in two ranges', '?ip=192.0.2.130'),
  look('an address with two types', '?ip=192.0.2.4'),
  look('an address and a type', '?ip=192.0.2.4&type=ban'),
  look('an address and a scope', '?ip=192.0.2.4&scopes=Ip'),
  { ...look('nobody, byte by byte', '?ip=198.51.100.1', cached), layout: true },
  { ...look('one row, byte by byte', '?value=203.0.113.3', { ...cached, ...fractions }), layout: true },
  look('an address in a CIDR value of scope Ip', '?ip=203.0.113.20'),
  look('range in a range', '?range=192.0.2.128/26'),
  look('range as wide as a range', '?range=192.0.2.0/24'),
  look('range wider than all', '?range=192.0.2.0/23'),
  look('inside of a range', '?range=192.0.2.0/23&contains=false'),
  look('inside of a range with host bits', '?range=192.0.2.200/25&contains=false'),
  look('inside of an address', '?ip=192.0.2.130&contains=false'),
  look('inside of all of IPv4', '?ip=0.0.0.0/0&contains=false'),
  look('inside of all of IPv6', '?range=::/0&contains=0'),
  look('CIDR in ip, host bits set', '?ip=192.0.2.9/24'),
  look('an address in range', '?range=192.0.2.1'),
  look('contains=T', '?ip=192.0.2.1&contains=T'),
  look('an IPv6 address', '?ip=2001:db8::1'),
  look('an IPv6 address in another form', '?ip=2001:0DB8:0:0::0001'),
  look('an escaped IPv6 address', '?ip=2001%3Adb8%3A%3A1'),
  look('an IPv6 address in a range', '?ip=2001:db8:1:2::3'),
  look('inside of an IPv6 range', '?range=2001:db8::/32&contains=false'),
  look('an IPv6 range in a range', '?range=2001:db8:1:8000::/50'),
  look('the address below one that ends in ffff', '?ip=2001:db8:2::ffff:ffff:ffff:fffe', {
    neighbours: ['list: only LAPI has Ip 2001:db8:2::ffff:ffff:ffff:ffff ban cscli 4h'],
  }),
  look('IPv4 mapped into IPv6', '?ip=::ffff:192.0.2.1'),
  look('IPv4 mapped, in hexadecimal', '?ip=::ffff:c000:201'),
  look('inside of a mapped range', '?range=::ffff:192.0.2.0/120&contains=false&value=192.0.2.1', {
    'mapped-range': ['list: only Lapidary has Ip 192.0.2.1 ban cscli 4h'],
  }),
  look('::', '?ip=::'),
  {
    ...look('ip and range', '?ip=192.0.2.1&range=203.0.113.16/28', {
      'ip-and-range': [
        'list: only LAPI has Ip 203.0.113.16/28 ban crowdsec 4h',
        'list: only Lapidary has Ip 192.0.2.1 ban cscli 4h',
        'list: only Lapidary has Range 192.0.2.0/24 ban cscli 12h',
      ],
    }),
    byChance: true,
  },
  look('an invalid ip', '?ip=zz', refused('ip')),
  look('an empty ip', '?ip=', refused('ip')),
  look('three octets', '?ip=192.0.2', refused('ip')),
  look('a leading zero', '?ip=192.0.2.01', refused('ip')),
  look('a blank at the end', '?ip=192.0.2.1+', refused('ip')),
  look('a zone', '?ip=fe80::1%25eth0', refused('ip')),
  look('a prefix that is too long', '?range=192.0.2.0/33', refused('range')),
  look('a range without a prefix length', '?range=192.0.2.0/', refused('range')),
  look('a range with an octet too large', '?range=192.0.2.256/24', refused('range')),
  look('an invalid contains', '?ip=192.0.2.1&contains=yes', refused('contains')),
  look('an empty contains', '?ip=192.0.2.1&contains=', refused('contains')),
  look('an invalid contains without an address', '?contains=maybe', refused('contains')),
  look('limit and offset', '?value=192.0.2.1&limit=1&offset=1', {
    'list-pages': ['list: only LAPI has Ip 192.0.2.1 ban cscli 4h'],
  }),
  look('limit', '?value=192.0.2.1&limit=1'),
  look('id_gt', '?id_gt=100000&value=192.0.2.1', {
    'list-pages': ['list: only LAPI has Ip 192.0.2.1 ban cscli 4h'],
  }),
  look('an invalid limit', '?limit=zz&value=192.0.2.1', refusedPage('limit')),
  look('an invalid offset', '?offset=1.5&value=192.0.2.1', refusedPage('offset')),
  look('an escape that is no UTF-8', '?value=%ff'),
];
