// Keys, methods, paths, headers, the text of answers, and usage metrics.
import { cached, type Case, fractions, listPath, refused, type Shows, streamPath, silent } from './case.ts';
import { ownKey } from './pair.ts';

const oneRow = `${listPath}?value=192.0.2.1`;

/** A key sent in some other way than the client's plain header. */
function keyed(name: string, headers: Case['headers'], shows?: Shows): Case {
  return { name: `key: ${name}`, path: oneRow, key: 'none', headers, ...(shows && { shows }) };
}

const accepted = ['status 403 against 200', 'body message "access forbidden" against a list'];

const keyCases: Case[] = [
  { name: 'key: none, stream', path: streamPath, key: 'none', layout: true },
  keyed('none, list', []),
  keyed('empty', [['X-Api-Key', '']]),
  keyed('unknown', [['X-Api-Key', 'wrong']]),
  keyed('header in another case', [['x-API-key', ownKey]]),
  keyed('bad, then good', [
    ['X-Api-Key', 'wrong'],
    ['X-Api-Key', ownKey],
  ]),
  keyed('good, then bad', [
    ['X-Api-Key', ownKey],
    ['X-Api-Key', 'wrong'],
  ]),
  keyed('good and bad in one header', [['X-Api-Key', `${ownKey}, wrong`]], { 'joined-keys': accepted }),
  keyed('in Authorization', [['Authorization', `Bearer ${ownKey}`]]),
  keyed('in the apikey header of vyos', [['apikey', ownKey]], { 'vyos-key': accepted }),
  { name: 'key: in the query', path: `${oneRow}&api_key=${ownKey}&x-api-key=${ownKey}`, key: 'none' },
  {
    name: 'key: none, HEAD',
    method: 'HEAD',
    path: streamPath,
    key: 'none',
    layout: true,
    shows: { framing: ['framing length against none'] },
  },
];

const headCases: Case[] = [
  { name: 'HEAD: list', method: 'HEAD', path: listPath, layout: true },
  { name: 'HEAD: list, one address', method: 'HEAD', path: `${listPath}?ip=192.0.2.1` },
  {
    name: 'HEAD: list, an invalid ip',
    method: 'HEAD',
    path: `${listPath}?ip=zz`,
    shows: { 'bad-input': ['status 500 against 400'] },
  },
  {
    name: 'HEAD: stream',
    method: 'HEAD',
    path: streamPath,
    shows: { 'head-keeps-cursor': ['type application/json against text/plain'] },
  },
];

/** A path that neither has. */
function unknown(name: string, path: string): Case {
  const shows = { 'error-bodies': [silent, 'body nothing against message "this path not found"'] };
  return { name: `route: ${name}`, path, shows };
}

/** A method that a path does not have, on either side. */
function wrongMethod(method: string, path: string, allow: string, rest: Partial<Case> = {}): Case {
  const body =
    method === 'HEAD' ? [] : [`body nothing against message "use ${allow.replaceAll(', ', ' or ')}"`];
  return {
    name: `route: ${method} ${path}${rest.key ? ', without a key' : ''}`,
    method,
    path,
    ...rest,
    shows: { 'error-bodies': [silent, ...body], allow: [`allow none against ${allow}`] },
  };
}

const routeCases: Case[] = [
  unknown('unknown', '/v1/nothing'),
  {
    name: 'route: a Host with a slash in it',
    path: oneRow,
    headers: [['Host', 'a/b']],
    shows: {
      'error-bodies': [
        'type text/plain against application/json',
        'body text 400 Bad Request: malformed Host header against message "host: no name of a host"',
      ],
    },
  },
  ...['[', 'x:99999'].map((host): Case => {
    return {
      name: `route: ${host} as Host`,
      path: oneRow,
      headers: [['Host', host]],
      shows: {
        host: ['status 200 against 400', 'body a list against message "host: no name of a host"'],
      },
    };
  }),
  {
    name: 'route: CONNECT',
    path: listPath,
    method: 'CONNECT',
    shows: (engine) => ({
      connect: [
        'status 405 against 500',
        'body nothing against text Internal Server Error',
        ...(engine.since('1.6.6') ? ['allow GET, HEAD, DELETE against none'] : []),
      ],
    }),
  },
  { ...unknown('unknown, without a key', '/nothing'), key: 'none' },
  unknown('upper case', '/V1/decisions/stream'),
  {
    name: 'route: slash at the end of the list',
    path: `${listPath}/?value=192.0.2.1`,
    shows: {
      slashes: [
        'status 301 against 200',
        'location /v1/decisions?value=192.0.2.1 against none',
        'type text/html against application/json',
        'body text <a href=* against a list',
      ],
    },
  },
  {
    name: 'route: slash at the end of the stream',
    path: `${streamPath}/?startup=true&value=192.0.2.1`,
    shows: {
      slashes: [
        'status 301 against 200',
        'location /v1/decisions/stream?startup=true&value=192.0.2.1 against none',
        'type text/html against application/json',
        'body text <a href=* against a stream answer',
      ],
    },
  },
  {
    name: 'route: slash at the end, without a key',
    path: `${streamPath}/`,
    key: 'none',
    shows: {
      slashes: [
        'status 301 against 403',
        'location /v1/decisions/stream against none',
        'type text/html against application/json',
        'body text <a href=* against message "access forbidden"',
      ],
    },
  },
  {
    name: 'route: slash at the end, HEAD',
    method: 'HEAD',
    path: `${streamPath}/`,
    shows: {
      slashes: [
        'status 307 against 200',
        'location /v1/decisions/stream against none',
        'type text/html against text/plain',
      ],
    },
  },
  {
    name: 'route: two slashes',
    path: `/${oneRow}`,
    shows: {
      slashes: [
        'status 404 against 200',
        'type none against application/json',
        'body nothing against a list',
      ],
    },
  },
  {
    name: 'route: an escaped slash',
    path: '/v1/decisions%2Fstream?startup=true&value=192.0.2.1',
    shows: (engine) =>
      engine.since('1.6.8')
        ? { 'error-bodies': [silent, 'body nothing against message "this path not found"'] }
        : {
            'escaped-slash': [
              'status 200 against 404',
              'body a stream answer against message "this path not found"',
            ],
          },
  },
  wrongMethod('POST', streamPath, 'GET, HEAD, DELETE', { body: '{}' }),
  wrongMethod('POST', streamPath, 'GET, HEAD, DELETE', { key: 'none' }),
  wrongMethod('PUT', listPath, 'GET, HEAD, DELETE', { body: '{}' }),
  wrongMethod('OPTIONS', streamPath, 'GET, HEAD, DELETE', { headers: [['Origin', 'https://example.net']] }),
  wrongMethod('HEAD', '/health', 'GET', { key: 'none' }),
  wrongMethod('POST', '/health', 'GET', { key: 'none' }),
  wrongMethod('PUT', '/v1/alerts', 'GET, POST, HEAD, DELETE', { key: 'none' }),
  wrongMethod('PUT', '/v1/alerts/1', 'GET, HEAD, DELETE', { key: 'none' }),
];

const health = ['feed', 'age_seconds', 'full_age_seconds'].map((field) => `body: only Lapidary has ${field}`);

const healthCases: Case[] = [
  { name: 'health: is up', path: '/health', key: 'none', shows: { health } },
  {
    name: 'health: headers',
    path: '/health',
    key: 'none',
    layout: true,
    shows: (engine) => ({
      health: [
        ...health,
        'header content-type: application/json; charset=utf-8 against application/json',
        'text {"status":"up"} against {"status":"up","feed":"fresh","age_seconds":*,"full_age_seconds":*}',
        // Between 1.4.6 and 1.6.3; no bouncer reads it.
        ...(engine.since('1.6.0') ? ['header expires: Thu, 01 Jan 1970 00:00:00 GMT against -1'] : []),
      ],
    }),
  },
];

const headerCases: Case[] = [
  {
    name: 'header: Accept, If-None-Match, Origin and X-Forwarded-For',
    path: oneRow,
    headers: [
      ['Accept', 'text/html'],
      ['If-None-Match', '*'],
      ['Origin', 'https://example.net'],
      ['X-Forwarded-For', '198.51.100.1'],
    ],
  },
  { name: 'header: a body with GET', path: oneRow, body: '{"value":"192.0.2.2"}' },
  {
    name: 'header: Accept-Encoding on a small answer',
    path: `${streamPath}?startup=true`,
    headers: [['Accept-Encoding', 'gzip, br']],
  },
  {
    name: 'header: Accept-Encoding on a lookup',
    path: `${listPath}?ip=192.0.2.130`,
    headers: [['Accept-Encoding', 'gzip']],
  },
];

const charset = 'header content-type: application/json; charset=utf-8 against application/json';
const chunked: Shows = { framing: ['framing chunked against length'] };

/** Before 1.7.8 the engine's text is another; from then on it is ours, sent in chunks. */
function streamLayout(text: string, rows: Shows = {}): Case['shows'] {
  return (engine) => ({
    ...cached,
    ...rows,
    ...(engine.since('1.7.8') ? chunked : { layout: [charset, text] }),
  });
}

const row =
  '[{"duration":"#","id":#,"origin":"crowdsec","scenario":"Odd/100%_\\u003cb\\u003e\\u0026\\"quoted\\"\\\\\\u2028 Émile"' +
  ',"scope":"Ip","type":"ban","value":"203.0.113.3"}]';

const layoutCases: Case[] = [
  {
    name: 'layout: one decision',
    path: `${streamPath}?startup=true&value=203.0.113.3`,
    layout: true,
    shows: streamLayout(
      `text {"deleted":null,"new":${row}} against {"new": ${row}, "deleted": []}`,
      fractions,
    ),
  },
  {
    name: 'layout: nothing',
    path: `${streamPath}?startup=true&value=nothing`,
    layout: true,
    shows: streamLayout('text {"deleted":null,"new":null} against {"new": [], "deleted": []}'),
  },
  {
    name: 'layout: several decisions',
    path: `${streamPath}?startup=true&scopes=ip,range,country,as,username`,
    layout: true,
    shows: streamLayout('text {"deleted":[*]} against {"new": [*], "deleted": [*]}', {
      ...fractions,
      ...chunked,
      order: ['new: in another order'],
    }),
  },
  { name: 'layout: an error', path: `${listPath}?ip=zz`, shows: refused('ip') },
];

const metricsPath = '/v1/usage-metrics';
const component = {
  version: 'v1',
  type: 'conformance',
  utc_startup_timestamp: 1_700_000_000,
  metrics: [{ meta: { window_size_seconds: 900, utc_now_timestamp: 1_700_000_900 }, items: [] }],
};
const report = (...components: unknown[]) => JSON.stringify({ remediation_components: components });

/** `status` and `message` are Lapidary's; from 1.6.3 on the engine's are `shows`. */
function metrics(
  name: string,
  request: Pick<Case, 'body' | 'key'>,
  answer: { status: number; message?: string },
  shows: Shows,
): Case {
  const { status, message } = answer;
  const body = message === undefined ? [] : [silent, `body nothing against message "${message}"`];
  return {
    name: `usage-metrics: ${name}`,
    method: 'POST',
    path: metricsPath,
    ...request,
    shows: (engine) =>
      engine.since('1.6.3') ? shows : { 'metrics-early': [`status 404 against ${status}`, ...body] },
  };
}

const none = 'remediation_components: Missing remediation component data';
const many = 'remediation_components: Payload has more than one remediation component';

const metricsCases: Case[] = [
  metrics('a report', { body: report(component) }, { status: 201 }, {}),
  metrics(
    'no key',
    { body: report(component), key: 'none' },
    { status: 403, message: 'access forbidden' },
    {},
  ),
  metrics(
    'not JSON',
    { body: 'zz' },
    { status: 400, message: 'body: not JSON' },
    { 'bad-input': ['message * against "body: not JSON"'] },
  ),
  metrics(
    'no component',
    { body: report() },
    { status: 400, message: none },
    { 'bad-input': [`message * against "${none}"`] },
  ),
  metrics(
    'two components',
    { body: report(component, component) },
    { status: 400, message: many },
    { 'bad-input': [`message * against "${many}"`] },
  ),
  metrics(
    'no start-up time',
    { body: report({ version: 'v1' }) },
    { status: 201 },
    {
      'metrics-lenient': [
        'status 422 against 201',
        'type application/json against none',
        'body message "validation failure list:*" against nothing',
      ],
    },
  ),
  {
    name: 'usage-metrics: GET',
    path: metricsPath,
    shows: (engine) =>
      engine.since('1.6.3')
        ? {
            'error-bodies': [silent, 'body nothing against message "use POST"'],
            allow: ['allow none against POST'],
          }
        : {
            'metrics-early': [
              'status 404 against 405',
              silent,
              'allow none against POST',
              'body nothing against message "use POST"',
            ],
          },
  },
];

export const routesCases: Case[] = [
  ...keyCases,
  ...headCases,
  ...routeCases,
  ...healthCases,
  ...headerCases,
  ...layoutCases,
  ...metricsCases,
];
