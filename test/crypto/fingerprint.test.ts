// What an isolate recognises a key by. The vectors are OpenSSL's:
// `openssl mac -macopt hexkey:000102…0f -macopt size:16 -in bytes SIPHASH`.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createFingerprint, fingerprintOf } from '../../src/crypto/fingerprint.ts';

const key = new Int32Array(Uint8Array.from({ length: 16 }, (_, at) => at).buffer);

/** Each two bytes as one letter. */
const letters = (bytes: number): string => {
  return Array.from({ length: bytes / 2 }, (_, at) => String.fromCharCode(2 * at + ((2 * at + 1) << 8))).join(
    '',
  );
};

const hex = (fingerprint: string): string => {
  const units = Uint16Array.from(fingerprint, (letter) => letter.charCodeAt(0));
  return new Uint8Array(units.buffer).toHex();
};

test.each([
  [0, 'a3817f04ba25a8e66df67214c7550293'],
  [2, '8177228da4a45dc7fca38bdef60affe4'],
  [4, 'f88164c12d9c8faf7d0f6e7c7bcd5579'],
  [6, '14eeca338b208613485ea0308fd7a15e'],
  [8, '3b62a9ba6258f5610f83e264f31497b4'],
  [14, '31fcefac66d7de9c7ec7485fe4494902'],
  [16, '6ee2a4ca67b054bbfd3315bf85230577'],
  [62, '5853542321f567a005d547a4f04759bd'],
])('of %d bytes it is SipHash-2-4 with 128 bits', (bytes, mac) => {
  expect(hex(createFingerprint(key)(letters(bytes)))).toBe(mac);
});

test('the same secret has the same fingerprint, and another one another', () => {
  const other = createFingerprint(new Int32Array([1, 2, 3, 4]));
  const text = fc.string({ unit: 'binary', maxLength: 70 });
  fc.assert(
    fc.property(text, text, (secret, another) => {
      expect(fingerprintOf(secret)).toHaveLength(8);
      expect(fingerprintOf(secret) === fingerprintOf(another)).toBe(secret === another);
      expect(other(secret)).not.toBe(fingerprintOf(secret));
    }),
  );
});
