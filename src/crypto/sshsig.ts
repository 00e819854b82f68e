// Signatures of `ssh-keygen -Y sign` (OpenSSH's PROTOCOL.sshsig), verified with WebCrypto. A signature that is accepted
// here authenticates a host. A signature does not identify a request: from one, anybody can make another valid one
// (ECDSA's `(r, n-s)`), so a replay is recognised by the nonce alone.

import { concat, fromBase64 } from '../formats/bytes.ts';
import { badInput, succeed, type Result } from '../http/failure.ts';
import { createReader, type Reader } from './ssh-wire.ts';
import { curves, importKey, type KeyType, type PublicKey } from './ssh-key.ts';

const hashes = new Map(Object.entries({ sha256: 'SHA-256', sha512: 'SHA-512' }));
const rsaHashes = new Map(Object.entries({ 'rsa-sha2-256': 'SHA-256', 'rsa-sha2-512': 'SHA-512' }));

const encoder = new TextEncoder();
const magic = encoder.encode('SSHSIG');

/** A signature as its parts. None of them is verified. */
export interface Signature {
  /** The public key that it claims to be made with, as SSH writes it. */
  readonly key: Uint8Array;
  readonly namespace: string;
  readonly hash: string;
  readonly algorithm: string;
  readonly bytes: Uint8Array;
}

/** Reads an armoured signature. Its lines may end in LF or CRLF. `bad-input` names `signature`. */
export function parseSignature(armoured: string): Result<Signature> {
  const base64 =
    /^-----BEGIN SSH SIGNATURE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END SSH SIGNATURE-----\s*$/.exec(
      armoured,
    )?.[1];
  const blob = base64 === undefined ? null : fromBase64(base64.replace(/[\r\n]/g, ''));
  const signature = blob && readSignature(createReader(blob));
  return signature ? succeed(signature) : badInput('signature', 'must be what ssh-keygen -Y sign writes');
}

function readSignature(reader: Reader): Signature | null {
  const preamble = reader.bytes(magic.length);
  if (!preamble || !sameBytes(preamble, magic) || reader.number() !== 1) return null;
  const key = reader.string();
  const namespace = reader.text();
  const reserved = reader.string();
  const hash = reader.text();
  const inner = reader.string();
  // `reserved` has no meaning yet, and is not signed: it must be empty.
  if (!key || namespace === null || reserved?.length !== 0 || hash === null || !inner || !reader.atEnd())
    return null;
  const parts = createReader(inner);
  const algorithm = parts.text();
  const bytes = parts.string();
  if (algorithm === null || !bytes || !parts.atEnd()) return null;
  return { key, namespace, hash, algorithm, bytes };
}

/** The type of the key that it claims to be made with. */
export function claimedType({ key }: Signature): string {
  return createReader(key).text() ?? '';
}

/** Whether `signature` was made with this key, for this namespace, over exactly these bytes. */
export async function verifySignature(
  signature: Signature,
  key: PublicKey,
  namespace: string,
  message: Uint8Array,
): Promise<boolean> {
  const hash = hashes.get(signature.hash);
  const scheme = schemeOf(signature, key.type);
  if (
    !hash ||
    !scheme ||
    signature.namespace !== namespace ||
    !sameBytes(signature.key, key.blob) ||
    // WebCrypto throws at an Ed25519 signature of another length.
    (key.type === 'ssh-ed25519' && signature.bytes.length !== 64)
  ) {
    return false;
  }
  const bytes = webCryptoForm(signature.bytes, key);
  const imported = await importKey(key, scheme.hash);
  if (!bytes || !imported) return false;
  const digest = new Uint8Array(await crypto.subtle.digest(hash, message));
  // The namespace, `reserved`, the name of the hash, the hash of the message.
  const fields = [...[namespace, '', signature.hash].map((text) => encoder.encode(text)), digest];
  const signed = concat([magic, ...fields.map(wire)]);
  return crypto.subtle.verify(scheme, imported, bytes, signed);
}

/** How to verify a signature's algorithm with a key of this type; undefined when they don't belong together. No SHA-1. */
function schemeOf({ algorithm }: Signature, type: KeyType) {
  if (type === 'ssh-rsa') {
    const hash = rsaHashes.get(algorithm);
    return hash === undefined ? undefined : { name: 'RSASSA-PKCS1-v1_5', hash };
  }
  if (algorithm !== type) return undefined;
  const curve = curves.get(type);
  return curve ? { name: 'ECDSA', hash: curve.hash } : { name: 'Ed25519', hash: 'SHA-512' };
}

/** A signature's own bytes as WebCrypto takes them; null when they can't be a signature of this key. */
function webCryptoForm(bytes: Uint8Array, key: PublicKey): Uint8Array | null {
  const length = Math.ceil(key.bits / 8);
  if (curves.has(key.type)) {
    const reader = createReader(bytes);
    const r = reader.positive();
    const s = reader.positive();
    if (!r || !s || !reader.atEnd() || r.length > length || s.length > length) return null;
    return concat([leftPad(r, length), leftPad(s, length)]);
  }
  if (key.type === 'ssh-rsa') {
    return bytes.length === 0 || bytes.length > length ? null : leftPad(bytes, length);
  }
  return bytes;
}

function leftPad(bytes: Uint8Array, length: number): Uint8Array {
  const padded = new Uint8Array(length);
  padded.set(bytes, length - bytes.length);
  return padded;
}

function wire(bytes: Uint8Array): Uint8Array {
  const prefixed = new Uint8Array(4 + bytes.length);
  new DataView(prefixed.buffer).setUint32(0, bytes.length);
  prefixed.set(bytes, 4);
  return prefixed;
}

/** Not in constant time: for public values only. */
function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}
