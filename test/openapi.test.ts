// What /openapi.json lists is what there is: every operator and host route, and no other.
import { expect, test } from 'vitest';
import { routes } from '../src/app.ts';
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

test('the page names every operation, and runs no script', async () => {
  const response = await call('/reference');
  expect(response.headers.get('content-security-policy')).toContain("default-src 'none'");
  const page = await response.text();
  for (const route of mounted()) expect(page).toContain(`<h3>${route}</h3>`);
  expect(page).not.toMatch(/<script|https?:\/\//);
});
