// Hashes and compares keys and tokens. What is stored or logged is a digest, never the secret.

import { sha512 } from '@noble/hashes/sha2.js';

const encoder = new TextEncoder();
/** Before its first byte; and one that is used again and again: to make one takes as long as to hash a key. */
const fresh = sha512.create();
const hasher = sha512.create();
/** For the bytes of one key: memory of its own would be as much work again. */
const room = new Uint8Array(512);

/**
 * Lower-case hex SHA-512: what LAPI keeps in `bouncers.api_key`, so existing bouncers keep their keys. Every poll needs it:
 * WebCrypto's has to be waited for, and Node's in workerd takes as long. No byte of the key is left in memory of ours.
 */
export function digestOf(key: string): string {
  fresh._cloneInto(hasher);
  if (key.length > room.length / 3) return hasher.update(encoder.encode(key)).digest().toHex();
  const { written } = encoder.encodeInto(key, room);
  hasher.update(room.subarray(0, written));
  room.fill(0, 0, written);
  return hasher.digest().toHex();
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
