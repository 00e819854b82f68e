// Seals the key under which Lapidary pulls from an engine, the one secret that it must be able to read again: AES-256-GCM
// under a key that is derived from `BOOTSTRAP_SECRET`. The database alone does not reveal the key. The Worker seals it,
// the feed's object opens it.

import { derivedKey, secretId } from './derived-keys.ts';
import type { BootstrapSecrets } from '../config/settings.ts';

/** The host's name is authenticated with the key, so one host's sealed key can't be put in another's place. */
function aesGcmParams(iv: Uint8Array, host: string) {
  return { name: 'AES-GCM', iv, additionalData: new TextEncoder().encode(`lapidary engine key of ${host}`) };
}

/** Padded and strict: there is one text for the same bytes. */
const base64Url = { alphabet: 'base64url', lastChunkHandling: 'strict' } as const;

/** `v1.<id of the secret, 8 hex>.<nonce, base64url>.<ciphertext, base64url>`, under the current secret. */
export async function seal({ current }: BootstrapSecrets, host: string, key: string): Promise<string> {
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const text = new TextEncoder().encode(key);
  const sealed = await crypto.subtle.encrypt(
    aesGcmParams(iv, host),
    await derivedKey(current, 'engine-key'),
    text,
  );
  const parts = [iv, new Uint8Array(sealed)].map((bytes) => bytes.toBase64(base64Url));
  return ['v1', await secretId(current), ...parts].join('.');
}

export interface Opened {
  readonly key: string;
  /** The key sealed anew under the current secret, to replace what was opened; null when that is not needed. */
  readonly resealed: string | null;
}

/** Null when it was sealed under neither of the secrets, or for another host, or was changed. */
export async function open(secrets: BootstrapSecrets, host: string, sealed: string): Promise<Opened | null> {
  const { current, previous } = secrets;
  const [, id, iv = '', text = ''] = /^v1\.([0-9a-f]{8})\.([\w-]{16})\.([\w-]+={0,2})$/.exec(sealed) ?? [];
  if (id === undefined) return null;
  for (const secret of [current, ...(previous === null ? [] : [previous])]) {
    if ((await secretId(secret)) !== id) continue;
    const key = await decrypt(secret, host, iv, text);
    if (key !== null) return { key, resealed: secret === current ? null : await seal(secrets, host, key) };
  }
  return null;
}

async function decrypt(secret: string, host: string, iv: string, text: string): Promise<string | null> {
  try {
    const [nonce, bytes] = [Uint8Array.fromBase64(iv, base64Url), Uint8Array.fromBase64(text, base64Url)];
    const opened = await crypto.subtle.decrypt(
      aesGcmParams(nonce, host),
      await derivedKey(secret, 'engine-key'),
      bytes,
    );
    return new TextDecoder().decode(opened);
  } catch {
    return null;
  }
}
