// Hashes and compares keys and tokens. What is stored or logged is a digest, never the secret.

/** Lower-case hex SHA-512: what LAPI keeps in `bouncers.api_key`, so existing bouncers keep their keys. */
export async function digestOf(key: string): Promise<string> {
  return new Uint8Array(await hash('SHA-512', key)).toHex();
}

/** Lower-case hex SHA-256, for values that are not secret. */
export async function sha256Hex(text: string): Promise<string> {
  return new Uint8Array(await hash('SHA-256', text)).toHex();
}

/** Whether two secrets are equal. The time that it takes reveals neither their content nor their length. */
export async function sameSecret(a: string, b: string): Promise<boolean> {
  return crypto.subtle.timingSafeEqual(await hash('SHA-256', a), await hash('SHA-256', b));
}

function hash(algorithm: 'SHA-256' | 'SHA-512', text: string): Promise<ArrayBuffer> {
  return crypto.subtle.digest(algorithm, new TextEncoder().encode(text));
}
