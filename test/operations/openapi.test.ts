// What /openapi.json lists is what there is: every operator and host route, and no other.
import { createExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test } from 'vitest';
import { routes, serve } from '../../src/app.ts';
import { call, operator, operatorToken } from '../support/http.ts';

/** Every route of ours by method and path; those for all methods are authenticators and refusals. */
function mounted(): string[] {
  const ours = routes.routes.filter(
    ({ method, path }) => method !== 'ALL' && /^\/(api\/|bootstrap\/|metrics$)/.test(path),
  );
  return [...new Set(ours.map(({ method, path }) => `${method} ${path.replace(/:(\w+)/g, '{$1}')}`))].sort();
}

test('every operator and host route is in the document, and nothing else', async () => {
  const document = (await (await call('/openapi.json')).json()) as { paths: Record<string, object> };
  const listed = Object.entries(document.paths).flatMap(([path, methods]) => {
    return Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`);
  });
  expect(listed.length).toBeGreaterThan(15);
  expect(listed.sort()).toEqual(mounted());
});

test('the document is that of the path that it is asked at', async () => {
  for (const prefix of ['', '/lapi', '']) {
    const request = new Request(`http://edge.example${prefix}/openapi.json`);
    const response = await serve(request, { ...env, PATH_PREFIX: prefix }, createExecutionContext());
    expect(await response.json()).toMatchObject({ servers: [{ url: prefix || '/' }] });
  }
});

test('a body is marked required exactly where an empty one is refused', async () => {
  const document: any = await (await call('/openapi.json')).json();
  const required = Object.entries<any>(document.paths).flatMap(([path, methods]) =>
    Object.entries<any>(methods)
      .filter(([, { requestBody }]) => requestBody?.required)
      .map(([method]) => `${method.toUpperCase()} ${path}`),
  );
  expect(required.sort()).toEqual([
    'PATCH /api/v1/allowlist/{id}',
    'PATCH /api/v1/bouncers/{name}',
    'POST /api/v1/allowlist',
    'POST /api/v1/bouncers',
    'POST /api/v1/bouncers/import',
    'POST /api/v1/decisions',
    'POST /api/v1/enrolments',
    'POST /api/v1/operator-tokens',
    'POST /api/v1/rotations',
    'POST /api/v1/webhooks',
    'POST /bootstrap/v1/engine-key',
    'POST /bootstrap/v1/keys',
    'POST /bootstrap/v1/machine',
    'PUT /api/v1/hosts/{name}',
    'PUT /api/v1/public-url',
  ]);
  for (const route of required) {
    const [method = '', path = ''] = route.split(' ');
    if (!path.startsWith('/api/v1') || method === 'PATCH') continue;
    expect([route, (await operator(method, path.slice(7).replace('{name}', 'a'))).status]).toEqual([
      route,
      400,
    ]);
  }
});

test.each([
  '/bouncers?after=',
  '/bouncers?after=%20',
  '/bouncers?after=0x1',
  '/bouncers?after=1e1',
  '/bouncers?after=-1',
  '/bouncers?after=1.5',
  '/bouncers?after=99999999999999999999',
  '/bouncers?limit=',
  '/bouncers?limit=0',
  '/bouncers?limit=1001',
  '/hosts?after=',
  '/audit?before=',
])('%s is a 400 that names the parameter', async (path) => {
  const { status, body } = await operator('GET', path);
  expect([status, body.errors?.[0].field]).toEqual([400, /[?](\w+)/.exec(path)?.[1]]);
});

test('a page is asked for by whole numbers, as the document says', async () => {
  const document: any = await (await call('/openapi.json')).json();
  const [after, limit] = document.paths['/api/v1/bouncers'].get.parameters;
  expect(after).toMatchObject({ name: 'after', schema: { type: 'integer', minimum: 0, default: 0 } });
  expect(limit).toMatchObject({ name: 'limit', schema: { type: 'integer', minimum: 1, maximum: 1000 } });
  expect([after.schema.pattern, limit.schema.pattern]).toEqual([undefined, undefined]);
  for (const path of ['/bouncers?after=0&limit=1', '/bouncers?after=007', '/audit?before=1']) {
    expect((await operator('GET', path)).status).toBe(200);
  }
});

describe('what the document says of a field is what is checked', () => {
  let document: any;
  const bodyOf = (path: string, method: string) =>
    document.paths[`/api/v1${path}`][method].requestBody.content['application/json'].schema;
  beforeEach(async () => {
    document = await (await call('/openapi.json')).json();
  });

  test('whole numbers in a query are taken up to their bounds, and not beyond', async () => {
    const numbers = Object.entries<any>(document.paths).flatMap(([path, { get }]) =>
      (get?.parameters ?? [])
        .filter(({ schema }: any) => schema.type === 'integer')
        .map(({ name, schema }: any) => ({ path: path.slice(7), name, ...schema })),
    );
    expect(numbers.length).toBeGreaterThan(10);
    for (const { path, name, minimum, maximum } of numbers) {
      // It needs a value to ask about.
      const besides = path === '/decisions/sent' ? '&value=192.0.2.1' : '';
      const status = async (number: number) =>
        (await operator('GET', `${path}?${name}=${number}${besides}`)).status;
      const answers = await Promise.all([minimum - 1, minimum, maximum, maximum + 1].map(status));
      // A row that is not there is a fault of the log, not of the question.
      const taken = path === '/audit/verify' ? 409 : 200;
      expect([path, name, ...answers]).toEqual([path, name, 400, 200, taken, 400]);
    }
  });

  test('a duration', async () => {
    const { pattern } = bodyOf('/bouncers', 'post').properties.expires_in;
    const durations = [
      ...['4h', '1d', '1d4h', '1h30m', '1.5h', '.5h', '1.h', '+4h', '600000ms', '1d0', '1m1m'],
      ...['', 'd', '4', '4 h', ' 4h', '4h\n', '.h', '1.2.3h', '4hd', '1d2d', '123456d', '½h', '4H'],
    ];
    for (const [at, duration] of durations.entries()) {
      const { status } = await operator('POST', '/bouncers', { name: `b-${at}`, expires_in: duration });
      expect([duration, status]).toEqual([duration, new RegExp(pattern, 'u').test(duration) ? 201 : 400]);
    }
  });

  test('If-Match', async () => {
    await operator('POST', '/bouncers', { name: 'a' });
    for (const method of ['patch', 'delete']) {
      const { parameters } = document.paths['/api/v1/bouncers/{name}'][method];
      const { schema } = parameters.find(({ name }: any) => name === 'If-Match');
      for (const etag of ['"3"', 'W/"3"', '3', '"x"', '""', '"3" ,"4"', '"1234567890123456"', '*']) {
        const { status } = await call('/api/v1/bouncers/a', {
          method: method.toUpperCase(),
          headers: { authorization: `Bearer ${operatorToken}`, 'if-match': etag },
          body: method === 'patch' ? '{"view":null}' : '{}',
        });
        expect([etag, status !== 400]).toEqual([etag, new RegExp(schema.pattern, 'u').test(etag)]);
      }
    }
  });

  test('an object that needs one of its fields', () => {
    expect(bodyOf('/bouncers/{name}', 'patch').minProperties).toBe(1);
    expect(bodyOf('/rotations', 'post').properties.selector.minProperties).toBe(1);
  });

  test("a ban's scope and scenario", async () => {
    const texts = {
      scope: ['Site', 'ip', 'my-scope_2', '', '2nd', 'two words', 'x'.repeat(32), 'x'.repeat(33)],
      scenario: ['a', 'é', '😀', '\u2028', '\ud800', '', '\0', '\n', '\u007f', '\u0085', 'x'.repeat(201)],
    };
    for (const [field, each] of Object.entries(texts)) {
      const { pattern } = bodyOf('/decisions', 'post').properties[field];
      for (const text of each) {
        const body = { value: '192.0.2.1', duration: '4h', [field]: text };
        const { status } = await operator('POST', '/decisions', body);
        expect([text, status]).toEqual([text, new RegExp(pattern, 'u').test(text) ? 201 : 400]);
      }
    }
  });

  test('no pattern is one that only some readers can read', () => {
    expect(JSON.stringify(document)).not.toContain('\\\\p{');
  });

  test('of a row of LAPI it asks for no more than is needed', async () => {
    const { properties } = bodyOf('/bouncers/import', 'post').properties.bouncers.anyOf[0].items;
    for (const name of ['type', 'version', 'ip_address', 'last_pull']) {
      expect([name, properties[name].type]).toEqual([name, undefined]);
    }
    const row = { name: 'a', api_key: 'ab'.repeat(64), type: 1, version: [], ip_address: {}, last_pull: 5 };
    expect((await operator('POST', '/bouncers/import', { bouncers: [row] })).status).toBe(200);
  });
});
