// The one secret that Lapidary must be able to read again: the key under which it pulls from an engine, as a host sent it.
// Sealed with AES-256-GCM under a key of `BOOTSTRAP_SECRET`; who has the database alone has nothing.

import type { BootstrapSecrets } from '../settings.ts';
import { sha256Hex } from '../secret.ts';
import { derivedKey } from './derived-keys.ts';
import { fromBase64Url, toBase64Url } from './ssh-wire.ts';

/** Bound to what it is for, so that no other ciphertext of ours can stand in its place. */
const additionalData = new TextEncoder().encode('lapidary engine key');

/** Names a secret, and gives nothing away of it: `BOOTSTRAP_SECRET` is too long to be guessed. */
async function idOf(secret: string): Promise<string> {
  return (await sha256Hex(`lapidary secret id v1\n${secret}`)).slice(0, 8);
}

/** `v1.<id of the secret>.<base64url of iv>.<base64url of ciphertext>` */
export async function seal({ current }: BootstrapSecrets, key: string): Promise<string> {
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const how = { name: 'AES-GCM', iv, additionalData };
  const text = new TextEncoder().encode(key);
  const sealed = await crypto.subtle.encrypt(how, await derivedKey(current, 'engine-key'), text);
  return ['v1', await idOf(current), toBase64Url(iv), toBase64Url(new Uint8Array(sealed))].join('.');
}

/**
 * The key in `sealed`; null when neither secret opens it, or it was changed. `resealed`: the same under the secret of
 * now, when it was sealed under the one before; to be kept in place of `sealed`.
 */
export async function unseal(
  secrets: BootstrapSecrets,
  sealed: string,
): Promise<{ readonly key: string; readonly resealed: string | null } | null> {
  const [version, id, iv = '', text = ''] = sealed.split('.');
  const bytes = fromBase64Url(text);
  const ivBytes = fromBase64Url(iv);
  if (version !== 'v1' || !bytes || ivBytes?.length !== 12) return null;
  for (const secret of [secrets.current, secrets.previous]) {
    if (secret === null || (await idOf(secret)) !== id) continue;
    try {
      const how = { name: 'AES-GCM', iv: ivBytes, additionalData };
      const opened = await crypto.subtle.decrypt(how, await derivedKey(secret, 'engine-key'), bytes);
      const key = new TextDecoder().decode(opened);
      return { key, resealed: secret === secrets.current ? null : await seal(secrets, key) };
    } catch {
      return null;
    }
  }
  return null;
}
