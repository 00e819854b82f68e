// Signatures of `ssh-keygen -Y sign` (OpenSSH's PROTOCOL.sshsig), verified with WebCrypto, and the public keys that may
// make them (ssh-key.ts). What is accepted here is believed to be a host. Nothing may be remembered by a signature:
// of one there are others that are as good (ECDSA's `(r, n-s)`).

import { concat } from '../formats/bytes.ts';
import { badInput, fail, succeed, type Result } from '../http/failure.ts';
import { createReader, fromBase64, type Reader } from './ssh-wire.ts';
import { importKey, type KeyType, type PublicKey } from './ssh-key.ts';

/** ECDSA's numbers are this many bytes long in WebCrypto's form. */
const ecdsa: Readonly<Record<string, { readonly hash: string; readonly bytes: number }>> = {
  'ecdsa-sha2-nistp256': { hash: 'SHA-256', bytes: 32 },
  'ecdsa-sha2-nistp384': { hash: 'SHA-384', bytes: 48 },
  'ecdsa-sha2-nistp521': { hash: 'SHA-512', bytes: 66 },
};

const hashes: Readonly<Record<string, string>> = { sha256: 'SHA-256', sha512: 'SHA-512' };
const rsaHashes: Readonly<Record<string, string>> = { 'rsa-sha2-256': 'SHA-256', 'rsa-sha2-512': 'SHA-512' };

const magic = new TextEncoder().encode('SSHSIG');

/** A signature as its parts; which key it claims to be of, nobody has checked. */
export interface Signature {
  /** The public key in it, as SSH writes it. */
  readonly key: Uint8Array;
  readonly namespace: string;
  readonly hash: string;
  readonly algorithm: string;
  readonly bytes: Uint8Array;
}

/** An armoured signature; `bad-input` when it is not one. CRLF at the ends of lines is as good as LF. */
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
  // Nothing is defined for `reserved`, and it is not signed.
  if (!key || namespace === null || reserved?.length !== 0 || hash === null || !inner || !reader.atEnd())
    return null;
  const parts = createReader(inner);
  const algorithm = parts.text();
  const bytes = parts.string();
  if (algorithm === null || !bytes || !parts.atEnd()) return null;
  return { key, namespace, hash, algorithm, bytes };
}

/** The type of the key that it claims to be of. */
export function claimedType({ key }: Signature): string {
  return createReader(key).text() ?? '';
}

/** Whether `signature` is this key's over exactly these bytes, in this namespace. `forbidden`, without a reason. */
export async function verifySignature(
  signature: Signature,
  key: PublicKey,
  namespace: string,
  message: Uint8Array,
): Promise<Result<'good'>> {
  const hash = Object.hasOwn(hashes, signature.hash) ? hashes[signature.hash] : undefined;
  const scheme = schemeOf(signature, key.type);
  if (
    !hash ||
    !scheme ||
    signature.namespace !== namespace ||
    !sameBytes(signature.key, key.blob) ||
    // WebCrypto throws at an Ed25519 signature of another length.
    (key.type === 'ssh-ed25519' && signature.bytes.length !== 64)
  ) {
    return fail({ kind: 'forbidden' });
  }
  const bytes = webCryptoForm(signature.bytes, key);
  if (!bytes) return fail({ kind: 'forbidden' });
  const digest = new Uint8Array(await crypto.subtle.digest(hash, message));
  const signed = concat([
    magic,
    wire(new TextEncoder().encode(namespace)),
    wire(new Uint8Array()),
    wire(new TextEncoder().encode(signature.hash)),
    wire(digest),
  ]);
  const imported = await importKey(key, scheme.hash);
  if (!imported) return fail({ kind: 'forbidden' });
  const good = await crypto.subtle.verify(scheme, imported, bytes, signed);
  return good ? succeed('good') : fail({ kind: 'forbidden' });
}

interface Scheme {
  readonly name: string;
  readonly hash: string;
}

/** The algorithm of a signature, if it is one for keys of this type. SHA-1 (`ssh-rsa`) is none. */
function schemeOf({ algorithm }: Signature, type: KeyType): Scheme | undefined {
  if (type === 'ssh-rsa') {
    const hash = Object.hasOwn(rsaHashes, algorithm) ? rsaHashes[algorithm] : undefined;
    return hash === undefined ? undefined : { name: 'RSASSA-PKCS1-v1_5', hash };
  }
  if (algorithm !== type) return undefined;
  const curve = ecdsa[type];
  return curve ? { name: 'ECDSA', hash: curve.hash } : { name: 'Ed25519', hash: 'SHA-512' };
}

/** A signature's own bytes as WebCrypto takes them. */
function webCryptoForm(bytes: Uint8Array, key: PublicKey): Uint8Array | null {
  const curve = ecdsa[key.type];
  if (curve) {
    const reader = createReader(bytes);
    const r = reader.positive();
    const s = reader.positive();
    if (!r || !s || !reader.atEnd() || r.length > curve.bytes || s.length > curve.bytes) return null;
    return concat([leftPad(r, curve.bytes), leftPad(s, curve.bytes)]);
  }
  if (key.type === 'ssh-rsa') {
    const length = Math.ceil(key.bits / 8);
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

/** For what is public: the time it takes tells where the two differ. */
function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}
