// docs/api.md says what the operations are.
import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { apiPage } from '../../scripts/api-docs.mjs';

test('docs/api.md is what `npm run docs` makes of the operations', async () => {
  const hint = 'docs/api.md is older than the operations; run npm run docs';
  expect(await readFile('docs/api.md', 'utf8'), hint).toBe(await apiPage());
});
