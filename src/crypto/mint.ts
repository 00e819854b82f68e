// The form of keys and tokens: made here, and recognised where none may be. A mistake in the random draw or in the
// checksum stays in every key that was made with it.

import { crc32 } from 'node:zlib';

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

/**
 * A new secret: prefix, 43 base62 characters (256 bits), and the CRC32 of all that as 6 base62 characters,
 * so that a scanner recognises a real key without a look-up. A host makes its machine's password (`csm_`) itself.
 */
export function mintSecret(prefix: 'csb_' | 'cse_' | 'csm_' | 'cso_'): string {
  let body = '';
  while (body.length < 43) {
    // 248 is the largest multiple of 62 below 256. Larger bytes are dropped, so that each character is equally likely.
    for (const byte of crypto.getRandomValues(new Uint8Array(64))) {
      if (byte < 248 && body.length < 43) body += alphabet[byte % 62];
    }
  }
  return prefix + body + checksum(prefix + body);
}

/** A new secret of a webhook, in the form of the Standard Webhooks specification: 256 bits as base64. */
export function mintWebhookSecret(): string {
  return `whsec_${crypto.getRandomValues(new Uint8Array(32)).toBase64()}`;
}

/**
 * Every key or token in a text, by form and checksum, so that prose about `csb_…` does not count. For the tests, which
 * look for secrets where none may be.
 */
export function mintedIn(text: string): string[] {
  const alike = text.match(/cs[bemo]_[0-9A-Za-z]{49}/g) ?? [];
  return [...alike.filter(isMinted), ...(text.match(/whsec_[0-9A-Za-z+/]{43}=/g) ?? [])];
}

/** Whether a text ends in the right checksum. */
export function isMinted(secret: string): boolean {
  return checksum(secret.slice(0, -6)) === secret.slice(-6);
}

function checksum(text: string): string {
  let rest = crc32(text);
  let digits = '';
  for (let place = 0; place < 6; place++) {
    digits = alphabet[rest % 62] + digits;
    rest = Math.trunc(rest / 62);
  }
  return digits;
}
