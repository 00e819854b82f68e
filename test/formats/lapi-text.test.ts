// LAPI's texts, both ways: durations, addresses, query strings, JSON. Tables of cases.
import { describe, expect, test } from 'vitest';
import { matcher } from '../../src/mirror/view.ts';
import { formatDuration, parseDuration } from '../../src/formats/duration.ts';
import { covers, formatNetwork, limitedNetwork, parseNetwork, readClientIp } from '../../src/formats/ip.ts';
import { parseListQuery, parseQuery, parseStreamQuery } from '../../src/stream/query.ts';
import { decodeDecision, encodeDecision } from '../../src/formats/lapi-json.ts';

describe('durations', () => {
  test.each([
    ['3h59m59s', 14_399_000],
    ['59m58.192167365s', 3_598_192.167365],
    ['1m30.099960818s', 90_099.960818],
    ['-758.023µs', -0.758023],
    ['-1.8366839s', -1836.6839],
    ['0s', 0],
    ['0', 0],
    ['400ms', 400],
    ['1h0.5m', 3_630_000],
    ['+5s', 5000],
    ['.5s', 500],
  ])('%s is %d ms', (text, ms) => expect(parseDuration(text)).toBeCloseTo(ms, 6));

  test.each(['', '-', '5', 's', '1d', '4 h', '1h ', 'x1h', '1e3s', '--1s', '1.2.3s', '9223372036854775807h'])(
    '%j is none',
    (text) => expect(parseDuration(text)).toBeUndefined(),
  );

  test.each([
    [14_400, '4h0m0s'],
    [3599, '59m59s'],
    [60, '1m0s'],
    [1, '1s'],
    [0, '0s'],
    [-0.4, '0s'],
    [-3, '-3s'],
    [-3661, '-1h1m1s'],
    [8_760_000, '2433h20m0s'],
  ])('%d s is written %s', (seconds, text) => expect(formatDuration(seconds)).toBe(text));
});

describe('addresses', () => {
  test.each([
    ['192.0.2.1', '192.0.2.1'],
    ['192.0.2.77/24', '192.0.2.0/24'],
    ['2001:0DB8::00A1', '2001:db8::a1'],
    ['2001:db8:ffff::/33', '2001:db8:8000::/33'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.0/120', '192.0.2.0/24'],
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['::/0', '::/0'],
  ])('%s is %s', (text, canonical) => {
    const network = parseNetwork(text);
    expect(network && formatNetwork(network)).toBe(canonical);
  });

  test.each([
    '',
    ' 192.0.2.1',
    '192.0.2.1 ',
    '192.0.2',
    '192.0.2.256',
    '192.0.2.01',
    '0x7f.1',
    '192.0.2.0/33',
    '192.0.2.0/-1',
    '192.0.2.0/024',
    '192.0.2.0/',
    '2001:db8::/129',
    'fe80::1%eth0',
    '2001:db8:::1',
    '::ffff:192.0.2.0/64',
    'example.net',
  ])('%j is none', (text) => expect(parseNetwork(text)).toBeUndefined());

  test.each([
    ['192.0.2.0/24', '192.0.2.255', true],
    ['192.0.2.0/24', '192.0.3.0', false],
    ['192.0.2.0/25', '192.0.2.0/24', false],
    ['0.0.0.0/0', '2001:db8::1', false],
    ['2001:db8::/33', '2001:db8:7fff::1', true],
    ['2001:db8::/33', '2001:db8:8000::1', false],
  ])('%s covers %s: %s', (outer, inner, expected) => {
    expect(covers(parseNetwork(outer)!, parseNetwork(inner)!)).toBe(expected);
  });
});

describe('the address of a client', () => {
  test.each([
    ['198.51.100.7', '198.51.100.7'],
    ['198.51.100.7:40001', '198.51.100.7'],
    [' 198.51.100.7 ', '198.51.100.7'],
    ['::ffff:198.51.100.7', '198.51.100.7'],
    ['::FFFF:c633:6407', '198.51.100.7'],
    ['[::ffff:198.51.100.7]:443', '198.51.100.7'],
    ['2001:DB8:0:0::7', '2001:db8::7'],
    ['[2001:db8::7]', '2001:db8::7'],
    ['[2001:db8::7]:443', '2001:db8::7'],
    ['fe80::7%eth0', 'fe80::7'],
    ['[fe80::7%25eth0]:443', 'fe80::7'],
  ])('%j is %s', (text, address) => expect(readClientIp(text)).toBe(address));

  test.each(['', 'unknown', '198.51.100.7:', '198.51.100.7:x', '198.51.100.7:400010', '198.51.100.7/32'])(
    '%j is none',
    (text) => expect(readClientIp(text)).toBeUndefined(),
  );

  test.each([
    ['198.51.100.7', '198.51.100.7'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:db8:1:2::', '2001:db8:1:2::/64'],
    ['unknown', 'unknown'],
  ])('%s is counted by %s', (address, network) => expect(limitedNetwork(address)).toBe(network));
});

describe('query strings, as Go parses them', () => {
  test.each([
    ['?a=1&b=2', { a: '1', b: '2' }],
    ['?a=1&a=2', { a: '1' }],
    ['?startup=true;scopes=ip', {}],
    ['?a=%zz&b=1', { b: '1' }],
    ['?a=%ff', { a: '\ufffd' }],
    ['?a=b+c%2Cd', { a: 'b c,d' }],
    ['?a', { a: '' }],
    ['?', {}],
    ['', {}],
  ])('%s', (search, expected) => expect(Object.fromEntries(parseQuery(search))).toEqual(expected));

  test.each([
    ['startup=true', true],
    ['startup=TRUE', false],
    ['startup=1', false],
    ['startup', false],
    ['startup=true&startup=false', true],
  ])('%s: start-up is %s', (search, startup) => {
    expect(parseStreamQuery(search)).toMatchObject({ ok: true, value: { startup } });
  });

  const decision = {
    engine: 'default',
    id: 1,
    origin: 'crowdsec',
    scenario: 'crowdsecurity/SSH-bf 100%',
    scope: 'Ip',
    type: 'ban',
    value: '192.0.2.130',
    untilMs: 0,
  };
  test.each([
    ['', true],
    ['scopes=ip', true],
    ['scopes=range', false],
    ['scopes=', false],
    ['scopes=range, ip', false],
    ['scopes=ip&scope=range', false],
    ['origins=crowdsec,CAPI', true],
    ['origins=Crowdsec', false],
    ['origins=', false],
    ['origin=CAPI', true],
    ['scenarios_containing=http,ssh', true],
    ['scenarios_containing=', true],
    ['scenarios_containing=0%25', true],
    ['scenarios_containing=%25h', false],
    ['scenarios_not_containing=http', true],
    ['scenarios_not_containing=SSH', false],
    ['scenarios_not_containing=', false],
    ['type=ban', true],
    ['type=ban,captcha', false],
    ['value=192.0.2.130', true],
    ['value=192.0.2.13', false],
    ['ip=192.0.2.130', true],
    ['ip=192.0.2.0/24', false],
    ['range=192.0.2.128/25&contains=false', true],
    ['range=192.0.2.128/25&contains=F', true],
    ['ip=2001:db8::1', false],
  ])('%j passes: %s', (search, passes) => {
    const query = parseStreamQuery(search);
    expect(query.ok && matcher(query.value.view)(decision)).toBe(passes);
  });

  test.each([
    ['', null, 0, 0],
    ['limit=2&offset=1&id_gt=7', 2, 1, 7],
    ['limit=0', 0, 0, 0],
    ['limit=-1&offset=-1&id_gt=-1', null, 0, 0],
    ['limit=-9223372036854775808', null, 0, 0],
    ['limit=%2B2&offset=01&id_gt=%2B007', 2, 1, 7],
    ['limit=2&limit=x', 2, 0, 0],
    ['limit=9223372036854775807', 2 ** 63, 0, 0],
  ])('%j asks for %s decisions, after the first %s, with ids above %s', (search, limit, offset, id) => {
    const value = { limit, offset, idGreaterThan: id };
    expect(parseListQuery(search)).toMatchObject({ ok: true, value });
  });

  test.each([
    ['ip=', 'ip'],
    ['range=x', 'range'],
    ['ip=192.0.2.1&contains=', 'contains'],
    ['limit=', 'limit'],
    ['limit=+2', 'limit'],
    ['limit=0x2', 'limit'],
    ['limit=1e2', 'limit'],
    ['limit=1_0', 'limit'],
    ['limit=9223372036854775808', 'limit'],
    ['limit=-9223372036854775809', 'limit'],
    ['offset=1.5', 'offset'],
    ['offset=-', 'offset'],
    ['id_gt=', 'id_gt'],
    ['id_gt=٢', 'id_gt'],
  ])('%s is bad input that names %s', (search, field) => {
    expect(parseListQuery(search)).toMatchObject({ ok: false, failure: { kind: 'bad-input', field } });
  });
});

describe('decisions as JSON', () => {
  const json = {
    duration: '1h',
    id: 7,
    origin: 'CAPI',
    scenario: 's',
    scope: 'ip',
    type: 'ban',
    value: '192.0.2.1',
  };

  test('are decoded with our clock and LAPI’s spelling of scopes', () => {
    expect(decodeDecision({ json: { ...json, uuid: 'u', until: 'x' } }, 1000)).toEqual({
      id: 7,
      uuid: 'u',
      origin: 'CAPI',
      scenario: 's',
      scope: 'Ip',
      type: 'ban',
      value: '192.0.2.1',
      untilMs: 3_601_000,
    });
  });

  test.each([
    [null, null, 'is not an object'],
    [[], null, 'has no numeric id'],
    ['text', null, 'is not an object'],
    [{ ...json, id: '7' }, null, 'has no numeric id'],
    [{ ...json, id: 0 }, null, 'has an id that is out of range'],
    [{ ...json, id: -1 }, null, 'has an id that is out of range'],
    [{ ...json, id: 1.5 }, null, 'has an id that is out of range'],
    [{ ...json, id: 2 ** 53 }, null, 'has an id that is out of range'],
    [{ ...json, value: undefined }, 7, 'has no value'],
    [{ ...json, scenario: null }, 7, 'has no scenario'],
    [{ ...json, origin: 5 }, 7, 'has no origin'],
    [{ ...json, duration: 'soon' }, 7, 'has a duration that can not be read'],
  ])('%j is no decision, and says why', (bad, id, problem) => {
    expect(decodeDecision({ json: bad }, 0)).toEqual({ id, problem });
  });

  test.each(['2562047h47m16.854775807s', '-2562047h47m16.854775808s'])(
    'Go’s extreme %s is a duration, and goes out as one that Go can read',
    (duration) => {
      const decision = decodeDecision({ json: { ...json, duration } }, Date.now());
      if ('problem' in decision) throw new Error(decision.problem);
      const seconds = Math.floor((decision.untilMs - Date.now()) / 1000);
      expect(encodeDecision(decision, seconds, false)).toContain(
        duration.startsWith('-') ? '-2562047h47m16s' : '"2562047h47m16s"',
      );
    },
  );

  test('what has no end has the same one in every list, whenever it is asked for', () => {
    const at = (nowMs: number) =>
      decodeDecision({ json: { ...json, duration: '2562047h47m16.854775807s' } }, nowMs);
    expect(at(0)).toEqual(at(1_000_000_000_000));
  });

  test('are encoded in Go’s field order, with Go’s escapes', () => {
    const decision = { ...json, scope: 'Ip', scenario: '<a & "b">\u2028é', untilMs: 0, uuid: 'u-1' };
    const text = encodeDecision(decision, 59, true);
    expect(text).toBe(
      '{"duration":"59s","id":7,"origin":"CAPI","scenario":"\\u003ca \\u0026 \\"b\\"\\u003e\\u2028é",' +
        '"scope":"Ip","type":"ban","uuid":"u-1","value":"192.0.2.1"}',
    );
    expect(JSON.parse(text).scenario).toBe(decision.scenario);
    expect(encodeDecision(decision, 59, false)).not.toContain('uuid');
  });
});
