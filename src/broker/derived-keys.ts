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
  const encode = new TextEncoder();
  const from = await crypto.subtle.importKey('raw', encode.encode(secret), 'HKDF', false, ['deriveKey']);
  const { info, algorithm } = purposes[purpose];
  const how = { name: 'HKDF', hash: 'SHA-256', salt: new Uint8Array(), info: encode.encode(info) };
  return crypto.subtle.deriveKey(how, from, algorithm, false, usages[purpose]);
}
