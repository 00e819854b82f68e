// The text: both formats, letter by letter, and which one a scraper gets.
import { describe, expect, test } from 'vitest';
import { labelsOf, mediaTypeFor, render, type Family } from '../../src/metrics/exposition.ts';
import { labelOf, tally } from '../../src/metrics/labels.ts';

const gauge = (name: string, samples: Family['samples']): Family => {
  return { name, type: 'gauge', help: 'Help.', samples };
};
const text = (...families: Family[]): string => [...render(families, 'text/plain')].join('');

describe('a sample', () => {
  test.each([
    ['no labels', {}, 1, 'up 1'],
    ['two labels', { a: 'x', b: 'y' }, 2.5, 'up{a="x",b="y"} 2.5'],
    ['a quote, a backslash and a line break', { a: '"\\\n' }, 0, 'up{a="\\"\\\\\\n"} 0'],
    ['what looks like the end of a label', { a: 'x"} 1\nevil 2' }, 0, 'up{a="x\\"} 1\\nevil 2"} 0'],
    ['letters of any alphabet', { a: 'ä漢' }, 0, 'up{a="ä漢"} 0'],
    ['never', {}, Infinity, 'up +Inf'],
    ['a time', {}, 1795975217.844, 'up 1795975217.844'],
  ])('with %s', (_, labels, value, line) => {
    expect(text(gauge('up', [[labelsOf(labels as Record<string, string>), value]]))).toBe(
      `# HELP up Help.\n# TYPE up gauge\n${line}\n`,
    );
  });

  test('a family without one is left out', () => {
    expect(text(gauge('a', []), gauge('b', [['', 1]]))).toBe('# HELP b Help.\n# TYPE b gauge\nb 1\n');
    expect(text(gauge('a', []))).toBe('');
  });

  test('many are one text in slices, each line whole in the end', () => {
    const samples = Array.from(
      { length: 20_000 },
      (_, number) => [labelsOf({ number: String(number) }), number] as const,
    );
    const slices = [...render([gauge('up', samples)], 'text/plain')];
    expect(slices.length).toBeGreaterThan(2);
    expect(Math.max(...slices.map(({ length }) => length))).toBeLessThan(132_000);
    const lines = slices.join('').trimEnd().split('\n');
    expect(lines.slice(2)).toEqual(samples.map(([, number]) => `up{number="${number}"} ${number}`));
  });
});

test('OpenMetrics names a counter without _total where it describes it, and says where it ends', () => {
  const counter: Family = { name: 'events_total', type: 'counter', help: 'Help.', samples: [['', 3]] };
  expect([...render([counter], 'application/openmetrics-text')].join('')).toBe(
    '# HELP events Help.\n# TYPE events counter\nevents_total 3\n# EOF\n',
  );
  expect(text(counter)).toBe('# HELP events_total Help.\n# TYPE events_total counter\nevents_total 3\n');
});

test.each([
  ['', 'text/plain'],
  ['*/*', 'text/plain'],
  ['text/html, application/json', 'text/plain'],
  ['text/plain;version=0.0.4', 'text/plain'],
  ['application/openmetrics-text', 'application/openmetrics-text'],
  // Prometheus 2.42 and 3.
  [
    'application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1',
    'application/openmetrics-text',
  ],
  [
    'application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2',
    'application/openmetrics-text',
  ],
  ['text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5', 'text/plain'],
  ['application/openmetrics-text;version=0.0.1', 'text/plain'],
  ['application/openmetrics-text;version=2.0.0', 'text/plain'],
  ['application/openmetrics-text;q=0', 'text/plain'],
  ['application/openmetrics-text;q=x', 'text/plain'],
])('Accept: %s', (accept, mediaType) => {
  expect(mediaTypeFor(accept)).toBe(mediaType);
});

describe('labels', () => {
  test.each([
    'banned 192.0.2.1 by hand',
    '192.0.2.1',
    '2001:db8::1',
    'from 2001:DB8:0:0:0:0:0:1, again',
    '::ffff:192.0.2.1',
  ])('%s: no address gets into one', (given) => {
    expect(labelOf(given)).toBe('other');
  });

  test.each(['crowdsecurity/http-cve-2021-41773', 'lists:firehol_level1', 'ssh:bf', 'v1.6.8', ''])(
    '%s stays',
    (given) => {
      expect(labelOf(given)).toBe(given);
    },
  );

  test('are escaped', () => {
    expect(labelOf('say "no"\\')).toBe('say \\"no\\"\\\\');
  });

  test('are short', () => {
    expect(labelOf('x'.repeat(5_000)).length).toBe(100);
  });

  test('those that count most keep their text, the rest is one', () => {
    const counted = [
      ...Array.from({ length: 1_000 }, (_, at) => ({ reason: `r${at}`, action: 'ban', count: at + 1 })),
      { reason: 'r999', action: 'captcha', count: 5 },
    ];
    const sums = tally(counted, { reason: 200, action: 20 });
    expect(sums.length).toBe(202);
    expect(sums).toContainEqual(['reason="r800",action="ban"', 801]);
    expect(sums).toContainEqual(['reason="r999",action="captcha"', 5]);
    expect(sums).toContainEqual(['reason="other",action="ban"', (800 * 801) / 2]);
    expect(sums.reduce((sum, [, count]) => sum + count, 0)).toBe((1_000 * 1_001) / 2 + 5);
  });

  test('a text that is cut, or that has an address, adds up with its like', () => {
    const long = 'x'.repeat(100);
    const counted = [`${long}1`, `${long}2`, '192.0.2.1', '192.0.2.2', 'other'];
    const sums = tally(
      counted.map((reason) => ({ reason, count: 1 })),
      { reason: 10 },
    );
    expect(sums).toEqual([
      [`reason="${long}"`, 2],
      ['reason="other"', 3],
    ]);
  });
});
