// What the address of a request says: which route, behind which prefix, and which engine.
import { describe, expect, test } from 'vitest';
import { readAddress } from '../../src/http/address.ts';
import { readSettings } from '../../src/config/settings.ts';

function read(url: string, pathPrefix = '') {
  const settings = readSettings({
    PATH_PREFIX: pathPrefix,
    UPSTREAM_URL: 'http://engine.example',
    UPSTREAM_API_KEY: 'key',
    UPSTREAMS: JSON.stringify([
      { name: 'paris', url: 'http://paris.example', key: 'key', hosts: ['Paris.lapi.example', 'p.example'] },
      { name: 'v1', url: 'http://v1.example', key: 'key' },
    ]),
  });
  const { path, engine } = readAddress(url, settings);
  return [path, engine?.name ?? null];
}

describe('an address', () => {
  test.each([
    ['names no engine', 'http://edge.example/v1/alerts?limit=1', ['/v1/alerts', null]],
    ['names one by path', 'http://edge.example/engines/paris/v1/alerts', ['/v1/alerts', 'paris']],
    ['names one by host', 'https://paris.lapi.example/v1/alerts', ['/v1/alerts', 'paris']],
    [
      'by host, port and letter case aside',
      'http://PARIS.lapi.example:8787/v1/alerts',
      ['/v1/alerts', 'paris'],
    ],
    ['by either of its hosts', 'http://p.example/v1/heartbeat', ['/v1/heartbeat', 'paris']],
    [
      'by path, whatever the host says',
      'http://p.example/engines/default/v1/alerts',
      ['/v1/alerts', 'default'],
    ],
    ['that is called like a route', 'http://edge.example/engines/v1/v1/alerts', ['/v1/alerts', 'v1']],
    ['names one that there is not', 'http://edge.example/engines/rome/v1/alerts', ['/nowhere', null]],
    ['spells a name as none is', 'http://edge.example/engines/Paris/v1/alerts', ['/nowhere', null]],
    [
      'names one for what is not LAPI’s',
      'http://edge.example/engines/paris/api/v1/feed',
      ['/engines/paris/api/v1/feed', null],
    ],
    ['has two slashes', 'http://edge.example//engines/paris//v1/alerts', ['/v1/alerts', 'paris']],
    ['has a slash at its end', 'http://edge.example/engines/paris/v1/alerts/', ['/v1/alerts', 'paris']],
    ['of a host alike', 'http://evil-p.example/v1/alerts', ['/v1/alerts', null]],
  ])('%s', (_, url, expected) => {
    expect(read(url)).toEqual(expected);
  });

  test('keeps the name that no engine has, to tell whoever asks there', () => {
    const settings = readSettings({ UPSTREAM_URL: 'http://engine.example', UPSTREAM_API_KEY: 'key' });
    const { unknownEngine } = readAddress('http://edge.example/engines/rome/v1/alerts', settings);
    expect(unknownEngine).toBe('rome');
  });

  test.each([
    ['behind it', 'http://edge.example/lapi/v1/alerts', ['/v1/alerts', null]],
    [
      'behind it, with an engine',
      'http://edge.example/lapi/engines/paris/v1/alerts',
      ['/v1/alerts', 'paris'],
    ],
    ['not behind it', 'http://edge.example/v1/alerts', ['/nowhere', null]],
    ['behind one like it', 'http://edge.example/lapis/v1/alerts', ['/nowhere', null]],
  ])('with a prefix: %s', (_, url, expected) => {
    expect(read(url, '/lapi')).toEqual(expected);
  });
});
