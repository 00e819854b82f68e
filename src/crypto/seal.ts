// Seals the secrets that Lapidary must be able to read again, the keys for engines and the secrets of webhooks: AES-256-GCM
// under keys that are derived from `BOOTSTRAP_SECRET`. The database alone does not reveal them. The Worker seals them, the
// feed's object opens them.

import { derivedKey, secretId } from './derived-keys.ts';
import type { BootstrapSecrets } from '../config/settings.ts';

/** What is sealed: each kind has a derived key of its own. */
type Kind = 'engine-key' | 'webhook-secret';

const labels: Readonly<Record<Kind, string>> = {
  'engine-key': 'lapidary engine key of',
  'webhook-secret': 'lapidary webhook secret of',
};

/** The owner's name is authenticated with the secret, so one owner's can't be put in another's place. */
function aesGcmParams(iv: Uint8Array, kind: Kind, owner: string) {
  return { name: 'AES-GCM', iv, additionalData: new TextEncoder().encode(`${labels[kind]} ${owner}`) };
}

/** Padded and strict: there is one text for the same bytes. */
const base64Url = { alphabet: 'base64url', lastChunkHandling: 'strict' } as const;

/** `v1.<id of the secret, 8 hex>.<nonce, base64url>.<ciphertext, base64url>`, under the current secret. */
export async function seal(
  { current }: BootstrapSecrets,
  owner: string,
  secret: string,
  kind: Kind = 'engine-key',
): Promise<string> {
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const text = new TextEncoder().encode(secret);
  const sealed = await crypto.subtle.encrypt(
    aesGcmParams(iv, kind, owner),
    await derivedKey(current, kind),
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

/** Null when it was sealed under neither of the secrets, or as another's, or was changed. */
export async function open(
  secrets: BootstrapSecrets,
  owner: string,
  sealed: string,
  kind: Kind = 'engine-key',
): Promise<Opened | null> {
  const { current, previous } = secrets;
  const [, id, iv = '', text = ''] = /^v1\.([0-9a-f]{8})\.([\w-]{16})\.([\w-]+={0,2})$/.exec(sealed) ?? [];
  if (id === undefined) return null;
  for (const secret of [current, ...(previous === null ? [] : [previous])]) {
    if ((await secretId(secret)) !== id) continue;
    const key = await decrypt(secret, kind, owner, iv, text);
    if (key !== null) {
      return { key, resealed: secret === current ? null : await seal(secrets, owner, key, kind) };
    }
  }
  return null;
}

async function decrypt(
  secret: string,
  kind: Kind,
  owner: string,
  iv: string,
  text: string,
): Promise<string | null> {
  try {
    const [nonce, bytes] = [Uint8Array.fromBase64(iv, base64Url), Uint8Array.fromBase64(text, base64Url)];
    const opened = await crypto.subtle.decrypt(
      aesGcmParams(nonce, kind, owner),
      await derivedKey(secret, kind),
      bytes,
    );
    return new TextDecoder().decode(opened);
  } catch {
    return null;
  }
}
