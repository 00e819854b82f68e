// Hashes and compares keys and tokens. What is stored or logged is a digest, never the secret.

import { sha512 } from '@noble/hashes/sha2.js';

const encoder = new TextEncoder();
/** Before its first byte; and one that is used again and again: to make one takes as long as to hash a key. */
const fresh = sha512.create();
const hasher = sha512.create();

/**
 * Lower-case hex SHA-512: what LAPI keeps in `bouncers.api_key`, so existing bouncers keep their keys. Every poll needs it:
 * WebCrypto's has to be waited for, and Node's in workerd takes twice as long. `digest` clears what it read.
 */
export function digestOf(key: string): string {
  return fresh._cloneInto(hasher).update(encoder.encode(key)).digest().toHex();
}

/** Lower-case hex SHA-256, for values that are not secret. */
export async function sha256Hex(text: string): Promise<string> {
  return new Uint8Array(await sha256(text)).toHex();
}

/** Whether two secrets are equal. The time that it takes reveals neither their content nor their length. */
export async function sameSecret(a: string, b: string): Promise<boolean> {
  return crypto.subtle.timingSafeEqual(await sha256(a), await sha256(b));
}

function sha256(text: string): Promise<ArrayBuffer> {
  return crypto.subtle.digest('SHA-256', encoder.encode(text));
}
