// Patterns over names: `web-*` is every name that starts with `web-`. Pure.

import * as z from 'zod';

const mustBe = 'must be a name in which * stands for any characters, like web-*';

export const glob = z
  .string(mustBe)
  .regex(/^[A-Za-z0-9._@*-]{1,64}$/, mustBe)
  .meta({ description: 'A name in which `*` stands for any characters.', example: 'web-*' });

/** Whether the whole name fits. Linear in both: no pattern makes it slow. */
export function matchesGlob(pattern: string, name: string): boolean {
  const [first = '', ...rest] = pattern.split('*');
  if (rest.length === 0) return pattern === name;
  const last = rest.pop() ?? '';
  if (!name.startsWith(first) || name.length < first.length + last.length || !name.endsWith(last))
    return false;
  const end = name.length - last.length;
  let at = first.length;
  for (const part of rest) {
    const found = name.indexOf(part, at);
    if (found < 0 || found + part.length > end) return false;
    at = found + part.length;
  }
  return true;
}
