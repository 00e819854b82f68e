// What is stored of a key. Bouncers of an engine keep theirs, so it must be what the engine stores.
import { expect, test } from 'vitest';
import { digestOf } from '../../src/crypto/secret.ts';

test.each([
  ['of no letter', ''],
  ['of a key', '0123456789abcdef0123456789abcdef'],
  ['longer than a block', 'x'.repeat(300)],
  ['of any letters', 'clé 🔑 \u0000'],
  ['with half a letter', 'a\ud800b'],
])('the digest %s is SHA-512 in lower-case hex', async (_, key) => {
  const hash = await crypto.subtle.digest('SHA-512', new TextEncoder().encode(key));
  expect(digestOf(key)).toBe(new Uint8Array(hash).toHex());
});
