// Keys for one purpose each, derived from `BOOTSTRAP_SECRET` with HKDF (RFC 5869). None of them reveals another, or
// the secret.

const purposes = {
  challenge: {
    info: 'lapidary challenge v1',
    algorithm: { name: 'HMAC', hash: 'SHA-256', length: 256 },
    usages: ['sign', 'verify'],
  },
  'engine-key': {
    info: 'lapidary engine key v1',
    algorithm: { name: 'AES-GCM', length: 256 },
    usages: ['encrypt', 'decrypt'],
  },
  'webhook-secret': {
    info: 'lapidary webhook secret v1',
    algorithm: { name: 'AES-GCM', length: 256 },
    usages: ['encrypt', 'decrypt'],
  },
};

export type Purpose = keyof typeof purposes;

/** By purpose and secret. An isolate has one secret, or two while the secret is being changed. */
const derived = new Map<string, Promise<CryptoKey>>();

export function derivedKey(secret: string, purpose: Purpose): Promise<CryptoKey> {
  const name = `${purpose} ${secret}`;
  const known = derived.get(name);
  if (known) return known;
  if (derived.size > 8) derived.clear();
  const { info, algorithm, usages } = purposes[purpose];
  const key = importSecret(secret).then((from) =>
    crypto.subtle.deriveKey(hkdfParams(info), from, algorithm, false, usages),
  );
  derived.set(name, key);
  return key;
}

/** Eight hex digits that name a secret: of the SHA-256 of a key that is derived for nothing else. */
export async function secretId(secret: string): Promise<string> {
  const bits = await crypto.subtle.deriveBits(
    hkdfParams('lapidary secret id v1'),
    await importSecret(secret),
    256,
  );
  return new Uint8Array(await crypto.subtle.digest('SHA-256', bits)).toHex().slice(0, 8);
}

function importSecret(secret: string): Promise<CryptoKey> {
  const bytes = new TextEncoder().encode(secret);
  return crypto.subtle.importKey('raw', bytes, 'HKDF', false, ['deriveKey', 'deriveBits']);
}

function hkdfParams(info: string) {
  return { name: 'HKDF', hash: 'SHA-256', salt: new Uint8Array(), info: new TextEncoder().encode(info) };
}
