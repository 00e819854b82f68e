// Patterns of the names of bouncers, against regular expressions.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { fits, translate } from '../../src/mirror/patterns.ts';
import { everything } from '../support/bouncer.ts';

test('a name fits a pattern as its expression says', () => {
  const text = (letters: string[]) => fc.string({ unit: fc.constantFrom(...letters), maxLength: 8 });
  fc.assert(
    fc.property(text(['a', 'b', '.', '*']), text(['a', 'b', '.']), (pattern, name) => {
      const parts = pattern.split('*').map((part) => part.replaceAll('.', '\\.'));
      expect(fits(pattern, name)).toBe(new RegExp(`^${parts.join('.*')}$`).test(name));
    }),
    { numRuns: 5_000 },
  );
});

test('a view has the patterns that its bouncer fits, and is the same one where there is none', () => {
  const patterns = ['*-1', 'vpn-*', 'web-1'];
  const view = { ...everything, bouncer: 'web-1' };
  expect(translate(view, new Map(), patterns).patterns).toEqual(['*-1', 'web-1']);
  for (const [of, by] of [
    [{ ...view, bouncer: 'db-2' }, patterns],
    [everything, patterns],
    [view, []],
  ] as const) {
    expect(translate(of, new Map(), by)).toBe(of);
  }
});
