// Patterns of the names of bouncers, by which an entry of the allow-list is for some.
import { expect, test } from 'vitest';
import { resolveNames } from '../../src/mirror/patterns.ts';
import { everything } from '../support/bouncer.ts';

test('a view has the patterns that its bouncer fits, and is the same one where there is none', () => {
  const patterns = ['*-1', 'vpn-*', 'web-1'];
  const view = { ...everything, bouncer: 'web-1' };
  expect(resolveNames(view, new Map(), patterns).patterns).toEqual(['*-1', 'web-1']);
  for (const [of, by] of [
    [{ ...view, bouncer: 'db-2' }, patterns],
    [everything, patterns],
    [view, []],
  ] as const) {
    expect(resolveNames(of, new Map(), by)).toBe(of);
  }
});
