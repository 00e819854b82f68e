// Bytes: joined from parts, and as base64.

import { Buffer } from 'node:buffer';

/** The parts behind each other, as a copy. */
export function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** `base64` is padded, `base64url` is not. */
type Alphabet = 'base64' | 'base64url';

export function toBase64(bytes: Uint8Array, alphabet: Alphabet = 'base64'): string {
  return Buffer.from(bytes).toString(alphabet);
}

/** Null unless `text` is exactly what `toBase64` writes: no white space, no spare bits, so one text for the same bytes. */
export function fromBase64(text: string, alphabet: Alphabet = 'base64'): Uint8Array<ArrayBuffer> | null {
  const bytes = Buffer.from(text, alphabet);
  return bytes.toString(alphabet) === text ? new Uint8Array(bytes) : null;
}
