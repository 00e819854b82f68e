// Upstreams that are no engine: what their entries become, and that a bad one names its field and never its value.
import { expect, test } from 'vitest';
import { readSettings } from '../../src/config/settings.ts';

const drop = { kind: 'list', name: 'drop', url: 'https://lists.example/drop.php?format=txt' };
const cloud = { kind: 'hosted', name: 'cloud', url: 'https://hosted.example/v1/integrations/1', key: 'k' };
const read = (...entries: unknown[]) => readSettings({ UPSTREAMS: JSON.stringify(entries) });

test('a list has defaults, and is no engine that machines could reach', () => {
  const { upstreams, engines } = read(drop, {
    kind: 'lapi',
    name: 'paris',
    url: 'https://a.example',
    key: 'k',
  });
  expect(upstreams[0]).toEqual({
    ...drop,
    headers: {},
    timeoutMs: 10_000,
    intervalMs: 3_600_000,
    allowReserved: false,
    maxDecisions: 100_000,
    mayBeEmpty: false,
  });
  expect(engines.map(({ name }) => name)).toEqual(['paris']);
});

test('a hosted integration is pulled once a day, and names its key by its entry', () => {
  const { upstreams, engines } = read({ ...cloud, url: `${cloud.url}/` });
  const { key, ...rest } = cloud;
  expect(upstreams).toEqual([
    {
      ...rest,
      apiKey: key,
      keyName: 'the key of cloud in UPSTREAMS',
      headers: {},
      timeoutMs: 10_000,
      intervalMs: 86_400_000,
    },
  ]);
  expect(engines).toEqual([]);
});

test.each([
  ['kind', { ...drop, kind: 'hidden' }],
  ['name', { ...drop, name: 'Hidden' }],
  ['name', { ...drop, url: 'https://b.example' }],
  ['url', { ...drop, name: 'b' }],
  ['url', { ...drop, url: 'ftp://hidden.example' }],
  ['url', { ...drop, url: 'https://user:hidden@lists.example' }],
  ['url', { ...drop, url: 'https://lists.example/#hidden' }],
  ['interval_minutes', { ...drop, interval_minutes: 4 }],
  ['interval_minutes', { ...drop, interval_minutes: '60 hidden' }],
  ['interval_minutes', { ...drop, interval_minutes: 10_081 }],
  ['allow_reserved', { ...drop, allow_reserved: 'hidden' }],
  ['max_decisions', { ...drop, max_decisions: 1_000_001 }],
  ['may_be_empty', { ...drop, may_be_empty: 'hidden' }],
  ['headers', { ...drop, headers: { a: 1 } }],
  ['key', { ...cloud, key: undefined }],
  ['key', { ...cloud, key: 'hidden key' }],
  ['url', { ...cloud, url: 'https://hosted.example/v1?key=hidden' }],
  ['interval_minutes', { ...cloud, interval_minutes: 0 }],
])('an entry with a bad %s is refused by it', (field, bad) => {
  const refused = () => read(drop, bad);
  expect(refused).toThrow(`UPSTREAMS, entry 2, ${field} must be `);
  expect(refused).not.toThrow(/hidden/i);
});

test.each([
  ['no object', 'hidden'],
  ['a field of another kind', { ...drop, key: 'hidden' }],
  ['a field of a list', { ...cloud, allow_reserved: 'hidden' }],
])('an entry that has %s is refused', (_, bad) => {
  expect(() => read(bad)).toThrow(/^UPSTREAMS, entry 1 must be an? /);
  expect(() => read(bad)).not.toThrow(/hidden/i);
});
