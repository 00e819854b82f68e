// Hashes and compares keys and tokens. What is stored or logged is a digest, never the secret.

/** Lower-case hex SHA-512: what LAPI keeps in `bouncers.api_key`, so existing bouncers keep their keys. */
export async function digestOf(key: string): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-512', new TextEncoder().encode(key));
  return new Uint8Array(digest).toHex();
}

/** Lower-case hex SHA-256, for values that are not secret. */
export async function sha256Hex(text: string): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))).toHex();
}

/** Whether two secrets are equal. The time that it takes reveals neither their content nor their length. */
export async function sameSecret(a: string, b: string): Promise<boolean> {
  const encode = new TextEncoder();
  const [left, right] = await Promise.all([
    crypto.subtle.digest('SHA-256', encode.encode(a)),
    crypto.subtle.digest('SHA-256', encode.encode(b)),
  ]);
  return crypto.subtle.timingSafeEqual(left, right);
}
