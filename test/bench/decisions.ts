// What both sides hold: decisions on addresses of documentation networks, the same in every run. There are far too
// few IPv4 addresses for documentation, and real lists are nearly all IPv4: so 32 random bits stand in for them in
// 2001:db8::/32. The length of a ban is random to the second, which is the hard case for gzip.
import type { ImportRow } from '../lab/engine.ts';

const scenarios = [
  'crowdsecurity/ssh-bf',
  'crowdsecurity/ssh-slow-bf',
  'crowdsecurity/http-probing',
  'crowdsecurity/http-crawl-non_statics',
  'crowdsecurity/http-bad-user-agent',
  'crowdsecurity/http-sensitive-files',
  'crowdsecurity/http-path-traversal-probing',
  'crowdsecurity/http-backdoors-attempts',
  'crowdsecurity/http-generic-bf',
  'crowdsecurity/iptables-scan-multi_ports',
  'crowdsecurity/postfix-spam',
  'crowdsecurity/apache_log4j2_cve-2021-44228',
];
const documentationIpv4 = ['192.0.2', '198.51.100', '203.0.113'];

/** No ban ends before this: nothing expires in the middle of a run. */
const leastHours = 4;
const mostHours = 7 * 24;

export function makeDecisions(count: number): ImportRow[] {
  const below = random(1);
  const values = new Set<string>();
  for (const network of documentationIpv4) {
    for (let host = 1; host < 255 && values.size < count / 20; host++) values.add(`${network}.${host}`);
  }
  while (values.size < count) values.add(makeValue(below));
  return [...values].map((value) => ({
    value,
    scope: value.includes('/') ? 'range' : 'ip',
    type: below(10) === 0 ? 'captcha' : 'ban',
    duration: `${leastHours + below(mostHours - leastHours)}h${below(60)}m${below(60)}s`,
    reason: scenarios[below(scenarios.length)],
  }));
}

/** Addresses for live lookups: every second one is banned. */
export function makeLookups(rows: readonly ImportRow[], count: number): string[] {
  const below = random(2);
  const banned = rows.filter((row) => row.scope === 'ip');
  return Array.from({ length: count }, (_, at) => {
    return at % 2 === 0 ? banned[below(banned.length)].value : makeAddress(below);
  });
}

/** Addresses for live look-ups that hardly a decision covers, whatever rows there are. */
export function makeUnbanned(count: number): string[] {
  const below = random(3);
  return Array.from({ length: count }, () => makeAddress(below));
}

type Below = (end: number) => number;

function makeValue(below: Below): string {
  if (below(20) > 0) return makeAddress(below);
  return `2001:db8:${hex(below, 0x10000)}:${hex(below, 0x10000)}::/64`;
}

function makeAddress(below: Below): string {
  return `2001:db8::${hex(below, 0x10000)}:${hex(below, 0x10000)}`;
}

/** Never 0, which would be written otherwise. */
function hex(below: Below, end: number): string {
  return (1 + below(end - 1)).toString(16);
}

/** Random numbers that are the same in every run (mulberry32). */
function random(seed: number): Below {
  let state = seed;
  return (end) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * end);
  };
}
