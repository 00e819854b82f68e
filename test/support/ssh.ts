// SSH keys and signatures as ssh-keygen makes them, made with WebCrypto: for what must be made inside workerd.
import { createReader } from '../../src/crypto/ssh-wire.ts';
import { toBase64 } from '../../src/formats/bytes.ts';

const encode = (text: string) => new TextEncoder().encode(text);

export function wire(...parts: (string | Uint8Array)[]): Uint8Array<ArrayBuffer> {
  const bytes = parts.flatMap((part) => {
    const own = typeof part === 'string' ? encode(part) : part;
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, own.length);
    return [length, own];
  });
  return join(...bytes);
}

export function join(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** A number as SSH writes it. */
export function mpint(bytes: Uint8Array): Uint8Array {
  const start = bytes.findIndex((byte) => byte !== 0);
  const short = bytes.slice(start);
  return (short[0] as number) >= 0x80 ? join(new Uint8Array(1), short) : short;
}

export function armour(blob: Uint8Array, lineEnd = '\n'): string {
  const lines = toBase64(blob).match(/.{1,70}/g) ?? [];
  return ['-----BEGIN SSH SIGNATURE-----', ...lines, '-----END SSH SIGNATURE-----', ''].join(lineEnd);
}

/** The bytes between the lines of an armour. */
export function unarmour(armoured: string): Uint8Array {
  const base64 = armoured.replace(/-----.*-----/g, '').replace(/\s/g, '');
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

export interface SshKey {
  /** A line of authorized_keys. */
  readonly publicKey: string;
  /** The armoured signature; `namespace` and `twin` make it another's, or ECDSA's other one of the same text. */
  sign(message: Uint8Array, how?: { namespace?: string; twin?: boolean }): Promise<string>;
}

const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;

export async function makeSshKey(type: 'ed25519' | 'p256' = 'ed25519'): Promise<SshKey> {
  const algorithm =
    type === 'p256' ? { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } : { name: 'Ed25519' };
  const pair = (await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as CryptoKeyPair;
  const raw = new Uint8Array((await crypto.subtle.exportKey('raw', pair.publicKey)) as ArrayBuffer);
  const name = type === 'p256' ? 'ecdsa-sha2-nistp256' : 'ssh-ed25519';
  const blob = type === 'p256' ? wire(name, 'nistp256', raw) : wire(name, raw);
  return {
    publicKey: `${name} ${toBase64(blob)} of a test`,
    async sign(message, { namespace = 'bootstrap-v1@lapidary', twin = false } = {}) {
      const digest = new Uint8Array(await crypto.subtle.digest('SHA-512', message));
      const signed = join(encode('SSHSIG'), wire(namespace, '', 'sha512', digest));
      let bytes = new Uint8Array(await crypto.subtle.sign(algorithm, pair.privateKey, signed));
      if (type === 'p256') {
        const s = twin ? minus(bytes.slice(32)) : bytes.slice(32);
        bytes = wire(mpint(bytes.slice(0, 32)), mpint(s));
      }
      const version = Uint8Array.of(0, 0, 0, 1);
      return armour(join(encode('SSHSIG'), version, wire(blob, namespace, '', 'sha512', wire(name, bytes))));
    },
  };
}

/** `n - s` */
function minus(s: Uint8Array): Uint8Array {
  let left = order - [...s].reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  const bytes = new Uint8Array(32);
  for (let at = 31; at >= 0; at--, left >>= 8n) bytes[at] = Number(left & 0xffn);
  return bytes;
}

/** The strings of a public key's blob. */
export function partsOf(publicKey: string): Uint8Array[] {
  const reader = createReader(unarmour(publicKey.split(' ')[1] as string));
  const parts: Uint8Array[] = [];
  while (!reader.atEnd()) parts.push(reader.string() as Uint8Array);
  return parts;
}
