// Keys and tokens: made, hashed, compared. A secret leaves this file only in the answer that shows it once.

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

/**
 * A new secret: prefix, 43 base62 characters (256 bits), and the CRC32 of all that as 6 base62 characters,
 * so that a scanner can tell a real key from a look-alike without asking anybody.
 */
export function mintSecret(prefix: 'csb_' | 'cse_' | 'cso_'): string {
  let body = '';
  while (body.length < 43) {
    // 248 is the largest multiple of 62 in a byte: the rest is thrown away to keep the draw even.
    for (const byte of crypto.getRandomValues(new Uint8Array(64))) {
      if (byte < 248 && body.length < 43) body += alphabet[byte % 62];
    }
  }
  return prefix + body + checksum(prefix + body);
}

function checksum(text: string): string {
  let crc = 0xffffffff;
  for (const byte of new TextEncoder().encode(text)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  let rest = (crc ^ 0xffffffff) >>> 0;
  let digits = '';
  for (let place = 0; place < 6; place++) {
    digits = alphabet[rest % 62] + digits;
    rest = Math.trunc(rest / 62);
  }
  return digits;
}

/** Lower-case hex SHA-512: what LAPI keeps in `bouncers.api_key`, so existing bouncers keep their keys. */
export async function digestOf(key: string): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-512', new TextEncoder().encode(key));
  return new Uint8Array(digest).toHex();
}

/** Lower-case hex SHA-256, for what is compared and is no secret. */
export async function sha256Hex(text: string): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))).toHex();
}

/** Whether two secrets are equal, in a time that tells neither their content nor their length. */
export async function sameSecret(a: string, b: string): Promise<boolean> {
  const encode = new TextEncoder();
  const [left, right] = await Promise.all([
    crypto.subtle.digest('SHA-256', encode.encode(a)),
    crypto.subtle.digest('SHA-256', encode.encode(b)),
  ]);
  return crypto.subtle.timingSafeEqual(left, right);
}
