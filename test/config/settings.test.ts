// Settings: defaults, and that a bad one names itself and never its value.
import { describe, expect, test } from 'vitest';
import { readSettings, settingNames } from '../../src/config/settings.ts';

const upstream = { UPSTREAM_URL: 'https://engine.example:8080/', UPSTREAM_API_KEY: 'secret-key' };

describe('settings', () => {
  test('have defaults', () => {
    expect(readSettings({})).toMatchObject({
      engines: [],
      syncIntervalMs: 10_000,
      resyncIntervalMs: 300_000,
      tailIntervalMs: 10_000,
      maxDecisions: Infinity,
      tombstoneMs: 7 * 86_400_000,
      auditKeptMs: 400 * 86_400_000,
      operatorToken: null,
      bootstrap: null,
      publicUrl: '',
    });
    expect(readSettings(upstream).engines[0]).toMatchObject({
      name: 'default',
      url: 'https://engine.example:8080',
      timeoutMs: 10_000,
      scopes: ['ip', 'range', 'country', 'as'],
      headers: {},
    });
  });

  test('keep the audit log for ever where its age is 0', () => {
    expect(readSettings({ AUDIT_RETENTION_DAYS: '0' }).auditKeptMs).toBe(Infinity);
  });

  test('take extra headers for what stands before the engine', () => {
    const UPSTREAM_HEADERS = '{"CF-Access-Client-Id":"id.access","CF-Access-Client-Secret":"hidden"}';
    expect(readSettings({ ...upstream, UPSTREAM_HEADERS }).engines[0]?.headers).toEqual(
      JSON.parse(UPSTREAM_HEADERS),
    );
  });

  test('take the account by which the first engine’s own allow-lists are read', () => {
    const account = { machine: 'lapidary', password: 'hidden, with spaces' };
    const UPSTREAM_ALLOWLISTS = JSON.stringify(account);
    expect(readSettings({ ...upstream, UPSTREAM_ALLOWLISTS }).engines[0]?.allowLists).toEqual(account);
    expect(readSettings(upstream).engines[0]?.allowLists).toBeNull();
  });

  test('take further engines, after the one of UPSTREAM_URL or without it', () => {
    const paris = {
      name: 'paris',
      url: 'https://paris.example/',
      key: 'k1',
      headers: { 'x-access': 'hidden' },
      hosts: ['LAPI-paris.example.net'],
    };
    const lyon = { name: 'lyon', url: 'http://192.0.2.9:8080', key: 'k2' };
    const UPSTREAMS = JSON.stringify([paris, lyon]);
    const { engines } = readSettings({ ...upstream, UPSTREAMS, UPSTREAM_TIMEOUT_SECONDS: '3' });
    expect(engines.map(({ name, url, apiKey }) => [name, url, apiKey])).toEqual([
      ['default', 'https://engine.example:8080', 'secret-key'],
      ['paris', 'https://paris.example', 'k1'],
      ['lyon', 'http://192.0.2.9:8080', 'k2'],
    ]);
    expect(engines[1]).toMatchObject({
      headers: paris.headers,
      hosts: ['lapi-paris.example.net'],
      timeoutMs: 3000,
    });
    expect(readSettings({ UPSTREAMS }).engines.map(({ name }) => name)).toEqual(['paris', 'lyon']);
  });

  test('take engines from several variables, of which one holds a dozen on Cloudflare', () => {
    const named = (name: string) => JSON.stringify([{ name, url: `https://${name}.example`, key: 'k' }]);
    const lists = {
      UPSTREAMS: named('a'),
      UPSTREAMS_2: named('b'),
      UPSTREAMS_3: named('c'),
      UPSTREAMS_4: named('d'),
    };
    const { engines } = readSettings({ ...upstream, ...lists });
    expect(engines.map(({ name }) => name)).toEqual(['default', 'a', 'b', 'c', 'd']);
    expect(engines[2]?.keyName).toBe('the key of engine b in UPSTREAMS_2');
    const twice = () => readSettings({ ...lists, UPSTREAMS_4: named('b') });
    expect(twice).toThrow('UPSTREAMS_4, entry 1, name must be one that no other engine has');
  });

  const paris = { name: 'paris', url: 'https://paris.example', key: 'k1' };
  test.each([
    ['a list', { paris: 'hidden' }],
    ['of objects', ['hidden']],
    ['with no other fields', [{ ...paris, secret: 'hidden' }]],
    ['with a name', [{ ...paris, name: 'Paris hidden' }]],
    ['with a name that is free', [{ ...paris, name: 'default' }]],
    ['with names of their own', [paris, { ...paris, url: 'https://hidden.example' }]],
    ['with an address', [{ ...paris, url: 'paris.example/hidden' }]],
    ['with addresses of their own', [{ ...paris, url: 'https://engine.example:8080' }]],
    ['with a key', [{ ...paris, key: 'hidden key' }]],
    ['with headers', [{ ...paris, headers: ['hidden'] }]],
    ['with host names', [{ ...paris, hosts: ['https://hidden.example'] }]],
    [
      'with host names of their own',
      [
        { ...paris, hosts: ['a.example'] },
        { ...paris, name: 'b', url: 'http://b.example', hosts: ['A.example'] },
      ],
    ],
  ])('further engines must be %s', (_, engines) => {
    const read = () => readSettings({ ...upstream, UPSTREAMS: JSON.stringify(engines) });
    expect(read).toThrow('UPSTREAMS');
    expect(read).not.toThrow(/hidden|invalid/i);
  });

  test('take the secret of the hosts with the one before it, and our public address', () => {
    const [BOOTSTRAP_SECRET, BOOTSTRAP_SECRET_PREVIOUS] = ['n'.repeat(32), 'o'.repeat(32)];
    const PUBLIC_URL = 'https://lapidary.example/lapi/';
    expect(readSettings({ BOOTSTRAP_SECRET, BOOTSTRAP_SECRET_PREVIOUS, PUBLIC_URL })).toMatchObject({
      bootstrap: { current: BOOTSTRAP_SECRET, previous: BOOTSTRAP_SECRET_PREVIOUS },
      publicUrl: 'https://lapidary.example/lapi',
    });
  });

  test('need no key of the engine where its host can send one', () => {
    const { UPSTREAM_URL } = upstream;
    expect(readSettings({ UPSTREAM_URL, BOOTSTRAP_SECRET: 'n'.repeat(32) }).engines[0]?.apiKey).toBeNull();
    expect(() => readSettings({ UPSTREAM_URL })).toThrow('UPSTREAM_API_KEY');
  });

  test.each([
    ['UPSTREAM_URL', { UPSTREAM_URL: 'engine:8080' }],
    ['UPSTREAM_URL', { UPSTREAM_URL: 'ftp://engine.example' }],
    ['UPSTREAM_URL', { UPSTREAM_URL: 'http://user:hidden@engine.example' }],
    ['UPSTREAM_API_KEY', { UPSTREAM_API_KEY: '' }],
    ['UPSTREAM_API_KEY', { UPSTREAM_API_KEY: 'hidden key' }],
    ['UPSTREAM_HEADERS', { UPSTREAM_HEADERS: 'hidden' }],
    ['UPSTREAM_HEADERS', { UPSTREAM_HEADERS: '["hidden"]' }],
    ['UPSTREAM_HEADERS', { UPSTREAM_HEADERS: '{"a":"hidden\\nb"}' }],
    ['UPSTREAM_ALLOWLISTS', { UPSTREAM_ALLOWLISTS: 'hidden' }],
    ['UPSTREAM_ALLOWLISTS', { UPSTREAM_ALLOWLISTS: '{"machine":"lapidary"}' }],
    ['UPSTREAM_ALLOWLISTS, password', { UPSTREAM_ALLOWLISTS: '{"machine":"a","password":"hidden\\n"}' }],
    ['UPSTREAM_ALLOWLISTS', { UPSTREAM_ALLOWLISTS: '{"machine":"a","password":"b","c":"hidden"}' }],
    ['SCOPES', { SCOPES: 'ip,,range' }],
    ['UPSTREAM_TIMEOUT_SECONDS', { UPSTREAM_TIMEOUT_SECONDS: '0' }],
    ['SYNC_INTERVAL_SECONDS', { SYNC_INTERVAL_SECONDS: '10s' }],
    ['RESYNC_INTERVAL_SECONDS', { RESYNC_INTERVAL_SECONDS: '-1' }],
    ['TAIL_INTERVAL_SECONDS', { TAIL_INTERVAL_SECONDS: '1e9' }],
    ['TOMBSTONE_DAYS', { TOMBSTONE_DAYS: '365' }],
    ['AUDIT_RETENTION_DAYS', { AUDIT_RETENTION_DAYS: '89' }],
    ['OPERATOR_TOKEN', { OPERATOR_TOKEN: 'hidden' }],
    ['CLIENT_ADDRESS_HEADER', { CLIENT_ADDRESS_HEADER: 'x forwarded for' }],
    ['BOOTSTRAP_SECRET', { BOOTSTRAP_SECRET: 'hidden' }],
    ['BOOTSTRAP_SECRET_PREVIOUS', { BOOTSTRAP_SECRET_PREVIOUS: 'hidden' }],
    ['HOST_ISSUERS', { HOST_ISSUERS: 'hidden' }],
    ['PUBLIC_URL', { PUBLIC_URL: 'lapidary.example' }],
    ['PUBLIC_URL', { PUBLIC_URL: 'https://user:hidden@lapidary.example' }],
    ['PUBLIC_URL', { PUBLIC_URL: 'https://lapidary.example/?hidden' }],
    ['FEED_LOCATION', { FEED_LOCATION: 'hidden' }],
    ['MACHINE_ROUTES', { MACHINE_ROUTES: 'hidden' }],
    ['MACHINE_ALLOW', { MACHINE_ALLOW: '192.0.2.0/24,hidden' }],
    ['PATH_PREFIX', { PATH_PREFIX: 'lapi/' }],
  ])('%s: %j is refused by its name', (name, bad) => {
    const read = () => readSettings({ ...upstream, ...bad });
    expect(read).toThrow(name);
    expect(read).not.toThrow(/hidden|invalid/i);
  });

  test('are all listed for those who pass an environment on', () => {
    const asked = new Set<string>();
    const env = new Proxy(upstream as Record<string, string>, {
      get(target, name: string) {
        asked.add(name);
        return target[name];
      },
    });
    readSettings(env);
    expect([...asked].sort()).toEqual([...settingNames].sort());
  });
});
