// Challenges for hosts to sign. A nonce is not stored when it is made; it carries its own expiry and an HMAC. It is good for
// two minutes on this clock, and is burnt when it is used (hosts.sql.ts). The host's clock has no part in it: many hosts have
// no right time when they boot.

import type { Nonce } from './hosts.sql.ts';
import type { BootstrapSecrets } from '../config/settings.ts';
import { derivedKey } from '../crypto/derived-keys.ts';
import { fromBase64, toBase64 } from '../formats/bytes.ts';
import { fail, succeed, type Result } from '../http/failure.ts';

export const nonceLifeMs = 120_000;

/** base64url of the expiry (8 bytes, ms) and 16 random bytes, a dot, base64url of their HMAC-SHA-256. */
export async function makeNonce({ current }: BootstrapSecrets, nowMs: number): Promise<string> {
  const bytes = crypto.getRandomValues(new Uint8Array(24));
  new DataView(bytes.buffer).setBigUint64(0, BigInt(nowMs + nonceLifeMs));
  const mac = await crypto.subtle.sign('HMAC', await derivedKey(current, 'challenge'), bytes);
  return `${toBase64(bytes, 'base64url')}.${toBase64(new Uint8Array(mac), 'base64url')}`;
}

/** `bad-nonce`: not made with either of the secrets. `stale-nonce`: it has expired. */
export async function readNonce(
  { current, previous }: BootstrapSecrets,
  nonce: string,
  nowMs: number,
): Promise<Result<Nonce>> {
  const [, text = '', mac = ''] = /^([\w-]{32})\.([\w-]{43})$/.exec(nonce) ?? [];
  const bytes = fromBase64(text, 'base64url');
  const macBytes = fromBase64(mac, 'base64url');
  if (bytes?.length !== 24 || !macBytes) return fail({ kind: 'bad-nonce' });
  for (const secret of previous === null ? [current] : [current, previous]) {
    const key = await derivedKey(secret, 'challenge');
    if (!(await crypto.subtle.verify('HMAC', key, macBytes, bytes))) continue;
    const expiresMs = Number(new DataView(bytes.buffer).getBigUint64(0));
    return nowMs < expiresMs ? succeed({ text, expiresMs }) : fail({ kind: 'stale-nonce' });
  }
  return fail({ kind: 'bad-nonce' });
}
