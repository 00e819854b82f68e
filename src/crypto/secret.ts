// Hashes and compares keys and tokens. What is stored or logged is a digest, never the secret.

import { createHash } from 'node:crypto';

/**
 * Lower-case hex SHA-512: what LAPI keeps in `bouncers.api_key`, so existing bouncers keep their keys. At once: a poll that
 * changes nothing waits for nothing.
 */
export function digestOf(key: string): string {
  return createHash('sha512').update(key).digest('hex');
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
  return crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
}
