// Keys for one purpose each, made of `BOOTSTRAP_SECRET` (HKDF, RFC 5869): what one of them gives away tells nothing of
// another, and none of them is the secret.

const purposes = {
  challenge: { info: 'lapidary challenge v1', algorithm: { name: 'HMAC', hash: 'SHA-256', length: 256 } },
  'engine-key': { info: 'lapidary engine key v1', algorithm: { name: 'AES-GCM', length: 256 } },
} as const;

const usages = {
  challenge: ['sign', 'verify'],
  'engine-key': ['encrypt', 'decrypt'],
};

export type Purpose = keyof typeof purposes;

/** An isolate has one secret, and while that is being changed two. */
const made = new Map<string, Promise<CryptoKey>>();

export function derivedKey(secret: string, purpose: Purpose): Promise<CryptoKey> {
  const name = `${purpose} ${secret}`;
  const known = made.get(name);
  if (known) return known;
  if (made.size > 8) made.clear();
  const key = derive(secret, purpose);
  made.set(name, key);
  return key;
}

async function derive(secret: string, purpose: Purpose): Promise<CryptoKey> {
  const { info, algorithm } = purposes[purpose];
  return crypto.subtle.deriveKey(howFor(info), await material(secret), algorithm, false, usages[purpose]);
}

/** Eight hex digits that name a secret: of the SHA-256 of a key of it that is used for nothing else. */
export async function secretId(secret: string): Promise<string> {
  const bits = await crypto.subtle.deriveBits(howFor('lapidary secret id v1'), await material(secret), 256);
  return new Uint8Array(await crypto.subtle.digest('SHA-256', bits)).toHex().slice(0, 8);
}

function material(secret: string): Promise<CryptoKey> {
  const bytes = new TextEncoder().encode(secret);
  return crypto.subtle.importKey('raw', bytes, 'HKDF', false, ['deriveKey', 'deriveBits']);
}

function howFor(info: string) {
  return { name: 'HKDF', hash: 'SHA-256', salt: new Uint8Array(), info: new TextEncoder().encode(info) };
}
