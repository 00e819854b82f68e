// What /openapi.json lists is what there is: every operator and host route, and no other.
import { createExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { expect, test } from 'vitest';
import { routes, serve } from '../src/app.ts';
import { call } from './support/http.ts';

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
