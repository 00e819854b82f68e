// SSH public keys that a host may have. A key is checked once, when it is stored. WebCrypto accepts Ed25519 keys of low
// order, for which anybody can forge signatures, so the check here has to refuse them.

import { ed25519 } from '@noble/curves/ed25519.js';
import { fromBase64, toBase64 } from '../formats/bytes.ts';
import { badInput, succeed, type Result } from '../http/failure.ts';
import { createReader, type Reader } from './ssh-wire.ts';

export type KeyType =
  'ssh-ed25519' | 'ecdsa-sha2-nistp256' | 'ecdsa-sha2-nistp384' | 'ecdsa-sha2-nistp521' | 'ssh-rsa';

export interface PublicKey {
  readonly type: KeyType;
  /** The key as SSH writes it. Keys are compared by it. */
  readonly blob: Uint8Array<ArrayBuffer>;
  /** The length of an RSA key's modulus, or of the curve. */
  readonly bits: number;
  /** As WebCrypto imports it: the point of a curve, or an RSA key. */
  readonly material:
    Uint8Array<ArrayBuffer> | { readonly kty: 'RSA'; readonly n: string; readonly e: string };
}

/** ECDSA's curves, by the type of the key. `web`: WebCrypto's name. `hash`: that of signatures (RFC 5656 §6.2.1). */
export const curves = new Map([
  ['ecdsa-sha2-nistp256', { name: 'nistp256', web: 'P-256', bits: 256, hash: 'SHA-256' }],
  ['ecdsa-sha2-nistp384', { name: 'nistp384', web: 'P-384', bits: 384, hash: 'SHA-384' }],
  ['ecdsa-sha2-nistp521', { name: 'nistp521', web: 'P-521', bits: 521, hash: 'SHA-512' }],
]);

const leastRsaBits = 2048;
/** A longer key costs time at each check, and a stranger may choose the key. */
const mostRsaBits = 8192;

/** A key as it is stored: type and base64, without the comment. */
export function formatKey(key: PublicKey): string {
  return `${key.type} ${toBase64(key.blob)}`;
}

/** `SHA256:…` as `ssh-keygen -l` prints it. */
export async function fingerprintOf(key: PublicKey): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', key.blob));
  return `SHA256:${toBase64(digest).replace(/=+$/, '')}`;
}

/** Reads and checks a line of `authorized_keys` or a `.pub` file. `bad-input` names `public_key`. */
export async function parsePublicKey(line: string): Promise<Result<PublicKey>> {
  const [type, base64, comment] = line.trim().split(/[ \t]+/, 3);
  if (/[\r\n]/.test(line.trim())) return refuse('must be one line');
  if (type === undefined || base64 === undefined) return refuse('must be a type and its base64');
  if (/^(sk-|ssh-dss)/.test(type) || /-cert-v0\d@/.test(type)) {
    return refuse(`${type.slice(0, 60)} can't be used; ssh-ed25519, ecdsa-sha2-nistp* and ssh-rsa can`);
  }
  const blob = fromBase64(base64);
  if (!blob)
    return refuse(`must have base64 after its type${comment === undefined ? '' : ', then a comment'}`);
  const key = readBlob(blob);
  if (typeof key === 'string') return refuse(key);
  if (key.type !== type) return refuse('is of another type than it says');
  if (type === 'ssh-ed25519' && !isSafePoint(key)) {
    return refuse('is a placeholder, or no point that can sign: anybody could sign for it');
  }
  // For ECDSA this checks that the point is on the curve.
  if (!(await importKey(key, 'SHA-256'))) return refuse('is no valid key');
  return succeed(key);
}

function refuse(problem: string): Result<never> {
  return badInput('public_key', problem);
}

/** Reads a key that was checked when it was stored. Throws at anything else. */
export function storedKey(text: string): PublicKey {
  const blob = fromBase64(text.split(' ')[1] ?? '');
  const key = blob && readBlob(blob);
  if (!key || typeof key === 'string') throw new Error('a stored public key is not one');
  return key;
}

function readBlob(blob: Uint8Array<ArrayBuffer>): PublicKey | string {
  const reader = createReader(blob);
  const type = reader.text() ?? '';
  const key =
    type === 'ssh-rsa'
      ? readRsa(reader)
      : type === 'ssh-ed25519'
        ? readEd25519(reader)
        : readEcdsa(type, reader);
  if (typeof key === 'string') return key;
  return reader.atEnd() ? { ...key, type: type as KeyType, blob } : 'has bytes after its end';
}

type Body = Pick<PublicKey, 'bits' | 'material'>;

function readEd25519(reader: Reader): Body | string {
  const point = reader.string();
  return point?.length === 32 ? { bits: 255, material: point } : 'must have 32 bytes';
}

function readEcdsa(type: string, reader: Reader): Body | string {
  const curve = curves.get(type);
  if (!curve) return 'must be ssh-ed25519, ecdsa-sha2-nistp256/384/521 or ssh-rsa';
  const name = reader.text();
  const point = reader.string();
  const length = 1 + 2 * Math.ceil(curve.bits / 8);
  if (name !== curve.name || point?.length !== length || point[0] !== 4)
    return 'must be an uncompressed point';
  return { bits: curve.bits, material: point };
}

function readRsa(reader: Reader): Body | string {
  const exponent = reader.positive();
  const modulus = reader.positive();
  if (!exponent || !modulus) return 'must have an exponent and a modulus';
  const bits = modulus.length * 8 - Math.clz32(modulus[0] as number) + 24;
  if (bits < leastRsaBits || bits > mostRsaBits) return `must have ${leastRsaBits} to ${mostRsaBits} bits`;
  const odd = ((exponent.at(-1) as number) & (modulus.at(-1) as number) & 1) === 1;
  // With an exponent of 1, anybody can write a signature.
  if (!odd || exponent.length > 4 || (exponent.length === 1 && (exponent[0] as number) < 3)) {
    return 'must have an odd modulus and an odd exponent above 2';
  }
  const [n, e] = [toBase64(modulus, 'base64url'), toBase64(exponent, 'base64url')];
  return { bits, material: { kty: 'RSA', n, e } };
}

/** The key for WebCrypto; null when WebCrypto refuses it. `hash`: for RSA alone. */
export async function importKey({ type, material }: PublicKey, hash: string) {
  const curve = curves.get(type);
  const point = curve ? { name: 'ECDSA', namedCurve: curve.web } : { name: 'Ed25519' };
  const rsa = { name: 'RSASSA-PKCS1-v1_5', hash };
  try {
    return material instanceof Uint8Array
      ? await crypto.subtle.importKey('raw', material, point, false, ['verify'])
      : await crypto.subtle.importKey('jwk', material, rsa, false, ['verify']);
  } catch {
    return null;
  }
}

/** Whether an Ed25519 public key is a point of the curve in its one right form (RFC 8032 §5.1.3), and not of low order. */
function isSafePoint({ material }: PublicKey): boolean {
  try {
    return material instanceof Uint8Array && !ed25519.Point.fromBytes(material).isSmallOrder();
  } catch {
    return false;
  }
}
