// Challenges for hosts to sign: made without a trace, good for two minutes on our clock, burnt at their use (hosts/hosts.sql.ts).
// No clock of a host has a part in it: many have none when they boot.

import type { Nonce } from './hosts.sql.ts';
import { fail, succeed, type Result } from '../http/failure.ts';
import type { BootstrapSecrets } from '../config/settings.ts';
import { derivedKey } from '../crypto/derived-keys.ts';
import { fromBase64, toBase64 } from '../formats/bytes.ts';

export const nonceLifeMs = 120_000;

/** base64url of when it ends (8 bytes, ms) and 16 random bytes; a dot; base64url of their HMAC-SHA-256. */
export async function makeNonce({ current }: BootstrapSecrets, nowMs: number): Promise<string> {
  const bytes = crypto.getRandomValues(new Uint8Array(24));
  new DataView(bytes.buffer).setBigUint64(0, BigInt(nowMs + nonceLifeMs));
  const mac = await crypto.subtle.sign('HMAC', await derivedKey(current, 'challenge'), bytes);
  return `${toBase64(bytes, 'base64url')}.${toBase64(new Uint8Array(mac), 'base64url')}`;
}

/** `bad-nonce`: not one of ours; `stale-nonce`: it was. */
export async function readNonce(
  { current, previous }: BootstrapSecrets,
  nonce: string,
  nowMs: number,
): Promise<Result<Nonce>> {
  const [, text = '', mac = ''] = /^([\w-]{32})\.([\w-]{43})$/.exec(nonce) ?? [];
  const bytes = fromBase64(text, 'base64url');
  const macBytes = fromBase64(mac, 'base64url');
  if (bytes?.length !== 24 || !macBytes) return fail({ kind: 'bad-nonce' });
  for (const secret of [current, ...(previous === null ? [] : [previous])]) {
    if (!(await crypto.subtle.verify('HMAC', await derivedKey(secret, 'challenge'), macBytes, bytes)))
      continue;
    const expiresMs = Number(new DataView(bytes.buffer).getBigUint64(0));
    return nowMs < expiresMs ? succeed({ text, expiresMs }) : fail({ kind: 'stale-nonce' });
  }
  return fail({ kind: 'bad-nonce' });
}
