// Whoever looks for something finds it where the documents say: each file that they name is there.
import { existsSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

const documents = ['CONTRIBUTING.md', 'SECURITY.md', 'docs/architecture.md'];

test.each(documents)('every file that %s names is there', (document) => {
  const text = readFileSync(document, 'utf8');
  const named = [...text.matchAll(/`((?:src|test|scripts|nix|migrations|types|\.ci)\/[\w./-]*)`/g)].map(
    ([, file]) => file!,
  );
  expect(named.length).toBeGreaterThan(0);
  expect(named.filter((file) => !existsSync(file))).toEqual([]);
});
