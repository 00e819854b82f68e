// What /openapi.json lists is what there is: every operator and host route, and no other.
import { createExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { expect, test } from 'vitest';
import { routes, serve } from '../src/app.ts';
import { call, operator } from './support/http.ts';

/** Every route of ours by method and path; those for all methods are authenticators and refusals. */
function mounted(): string[] {
  const ours = routes.routes.filter(
    ({ method, path }) => method !== 'ALL' && /^\/(api|bootstrap)\//.test(path),
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

test('the document and the page are those of the path that they are asked at', async () => {
  for (const prefix of ['', '/lapi', '']) {
    const ask = async (path: string) => {
      const request = new Request(`http://edge.example${prefix}${path}`);
      return serve(request, { ...env, PATH_PREFIX: prefix }, createExecutionContext());
    };
    const document = await (await ask('/openapi.json')).json();
    expect(document).toMatchObject({ servers: [{ url: prefix || '/' }] });
    expect(await (await ask('/reference')).text()).toContain(`href="${prefix}/openapi.json"`);
  }
});

test('the page names every operation, and runs no script', async () => {
  const response = await call('/reference');
  expect(response.headers.get('content-security-policy')).toContain("default-src 'none'");
  const page = await response.text();
  for (const route of mounted()) expect(page).toContain(`<h3>${route}</h3>`);
  expect(page).not.toMatch(/<script|https?:\/\//);
});

test('a body is marked required exactly where an empty one is refused', async () => {
  const document: any = await (await call('/openapi.json')).json();
  const required = Object.entries<any>(document.paths).flatMap(([path, methods]) =>
    Object.entries<any>(methods)
      .filter(([, { requestBody }]) => requestBody?.required)
      .map(([method]) => `${method.toUpperCase()} ${path}`),
  );
  expect(required.sort()).toEqual([
    'PATCH /api/v1/bouncers/{name}',
    'POST /api/v1/bouncers',
    'POST /api/v1/bouncers/import',
    'POST /api/v1/decisions',
    'POST /api/v1/enrolments',
    'POST /api/v1/operator-tokens',
    'POST /api/v1/rotations',
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
