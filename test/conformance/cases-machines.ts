// Requests of machines: without a token, with one in a place where none is taken here, and log-ins in many a body.
import { gzipSync } from 'node:zlib';
import { type Case, listPath, type Shows, silent } from './case.ts';

const login = '{"machine_id":"nobody","password":"wrong","scenarios":[]}';

/** A log-in whose body comes in a coding; the engine knows nobody of that name. */
function coded(coding: string, body: string | Uint8Array, shows: Case['shows']): Case {
  const headers: Case['headers'] = [['Content-Encoding', coding]];
  return {
    name: `machine: log in, ${coding}`,
    method: 'POST',
    path: '/v1/watchers/login',
    headers,
    body,
    shows,
  };
}

const unread: Shows = {
  'content-encoding': [
    'status 401 against 415',
    'www-authenticate JWT realm=Crowdsec API local against none',
    'body: only LAPI has code',
    'message * against "content-encoding: not gzip"',
  ],
};

const bodyCases: Case[] = [
  coded('br', login, unread),
  coded('gzip, br', gzipSync(login), (engine) =>
    engine.since('1.7.0')
      ? { 'error-bodies': [silent, 'body nothing against message "content-encoding: not gzip"'] }
      : unread,
  ),
  coded('gzip', gzipSync(login), (engine) =>
    engine.since('1.7.0') ? {} : { 'content-encoding': ['message "missing: * against "*not found"'] },
  ),
  {
    name: 'machine: log in, more than 2 MiB',
    method: 'POST',
    path: '/v1/watchers/login',
    body: login.replace('wrong', 'x'.repeat(2 * 1024 * 1024)),
    shows: { 'login-size': ['message * against "missing: http: request body too large"'] },
  },
];

const requestCases: Case[] = [
  { name: 'machine: DELETE a decision', method: 'DELETE', path: `${listPath}/1` },
  { name: 'machine: DELETE decisions', method: 'DELETE', path: `${listPath}?ip=192.0.2.1` },
  { name: 'machine: POST alerts', method: 'POST', path: '/v1/alerts', body: '[]' },
  {
    name: 'machine: log in',
    method: 'POST',
    path: '/v1/watchers/login',
    body: login,
  },
  {
    name: 'machine: GET one decision',
    path: `${listPath}/1`,
    shows: {
      'error-bodies': [silent, 'body nothing against message "use DELETE"'],
      allow: ['allow none against DELETE'],
    },
  },
  { name: 'machine: DELETE alerts', method: 'DELETE', path: '/v1/alerts' },
  {
    name: 'machine: register',
    method: 'POST',
    path: '/v1/watchers',
    body: '[]',
    shows: {
      'machine-trust': [
        'status 400 against 403',
        'message * against "access forbidden: register only from *"',
      ],
    },
  },
  {
    name: 'machine: a token in the query',
    path: '/v1/heartbeat?token=a.b.c',
    shows: {
      'token-places': [
        'status 401 against 400',
        'www-authenticate JWT realm=Crowdsec API local against none',
        'body: only LAPI has code',
        'message * against "token: send it as *"',
      ],
    },
  },
  {
    name: 'machine: a token in a cookie',
    path: '/v1/heartbeat',
    headers: [['Cookie', 'jwt=a.b.c']],
    shows: { 'token-places': ['message * against "cookie token is empty"'] },
  },
];

export const machineCases: Case[] = [...requestCases, ...bodyCases];
