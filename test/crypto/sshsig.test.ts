// SSH signatures and keys: those of the real ssh-keygen are taken, and nothing that was changed, copied from elsewhere or
// made to open to everybody.
import { describe, expect, test } from 'vitest';
import {
  fingerprintOf,
  formatKey,
  parsePublicKey,
  storedKey,
  type PublicKey,
} from '../../src/crypto/ssh-key.ts';
import { toBase64 } from '../../src/formats/bytes.ts';
import { parseSignature, verifySignature } from '../../src/crypto/sshsig.ts';
import { armour, join, makeSshKey, partsOf, unarmour, wire } from '../support/ssh.ts';
import made from '../support/ssh-vectors.json';

const message = new TextEncoder().encode(made.message);
const byName = Object.fromEntries(made.vectors.map((vector) => [vector.name, vector]));
const each = made.vectors.flatMap(({ name }) => [
  [name, 'sha256'],
  [name, 'sha512'],
]) as [string, 'sha256' | 'sha512'][];

async function keyOf(line: string): Promise<PublicKey> {
  const key = await parsePublicKey(line);
  if (!key.ok) throw new Error(JSON.stringify(key.failure));
  return key.value;
}

async function accepts(
  armoured: string,
  line: string,
  { namespace = made.namespace, text = message } = {},
): Promise<boolean> {
  const signature = parseSignature(armoured);
  return signature.ok && (await verifySignature(signature.value, await keyOf(line), namespace, text));
}

/** Why a public key is refused; null when it is not. */
async function refusal(line: string): Promise<string | null> {
  const key = await parsePublicKey(line);
  if (key.ok) return null;
  expect(key.failure).toMatchObject({ kind: 'bad-input', field: 'public_key' });
  return (key.failure as { problem: string }).problem;
}

describe('a signature of ssh-keygen', () => {
  test.each(each)('with %s and %s is good, for this text, namespace and key only', async (name, hash) => {
    const { publicKey, signatures } = byName[name];
    const signature = signatures[hash];
    const others = made.vectors.filter((vector) => vector.name !== name);
    expect(await accepts(signature, publicKey)).toBe(true);
    expect(await accepts(signature, publicKey, { text: message.slice(1) })).toBe(false);
    expect(await accepts(signature, publicKey, { namespace: 'git' })).toBe(false);
    for (const other of others) expect(await accepts(signature, other.publicKey)).toBe(false);
  });

  test.each(each)('with %s and %s is refused with any one byte changed, or one more', async (name, hash) => {
    const { publicKey, signatures } = byName[name];
    const blob = unarmour(signatures[hash]);
    const key = await keyOf(publicKey);
    const accepted: number[] = [];
    for (let at = 0; at < blob.length; at++) {
      const changed = Uint8Array.from(blob, (byte, index) => (index === at ? byte ^ (1 << (at % 8)) : byte));
      const signature = parseSignature(armour(changed));
      if (signature.ok && (await verifySignature(signature.value, key, made.namespace, message)))
        accepted.push(at);
    }
    expect(accepted).toEqual([]);
    for (const other of [join(blob, Uint8Array.of(0)), blob.slice(0, -1), new Uint8Array()]) {
      expect(await accepts(armour(other), publicKey)).toBe(false);
    }
  });

  test('keeps its worth with CRLF at the ends of its lines, and none without its armour', async () => {
    const { publicKey, signatures } = byName['ed25519'];
    const crlf = signatures.sha512.replaceAll('\n', '\r\n');
    expect(await accepts(crlf, publicKey)).toBe(true);
    expect(await accepts(toBase64(unarmour(signatures.sha512)), publicKey)).toBe(false);
    expect(await accepts(`${signatures.sha512}${signatures.sha512}`, publicKey)).toBe(false);
    expect(await accepts(`x${signatures.sha512}`, publicKey)).toBe(false);
  });

  test('of version 2, or with something in `reserved`, is refused', async () => {
    const { publicKey, signatures } = byName['ed25519'];
    const blob = unarmour(signatures.sha512);
    const second = Uint8Array.from(blob);
    second[9] = 2;
    expect(await accepts(armour(second), publicKey)).toBe(false);
    const start = 10 + wire(unarmour(publicKey.split(' ')[1]), made.namespace).length;
    const reserved = join(blob.slice(0, start), wire('x'), blob.slice(start + 4));
    expect(await accepts(armour(reserved), publicKey)).toBe(false);
  });

  test('of RSA with SHA-1 is refused', async () => {
    const { publicKey, signatures } = byName['rsa2048'];
    const text = String.fromCharCode(...unarmour(signatures.sha256));
    const renamed = text.replace(/\0\0\0\x0crsa-sha2-(256|512)/, '\0\0\0\x07ssh-rsa');
    expect(renamed).not.toBe(text);
    expect(await accepts(armour(Uint8Array.from(renamed, (each) => each.charCodeAt(0))), publicKey)).toBe(
      false,
    );
  });

  test('1,000 fresh ones of P-256 are good, the twins (r, n-s) as well, and none of another text', async () => {
    const key = await makeSshKey('p256');
    const parsed = await keyOf(key.publicKey);
    const good = { plain: 0, twin: 0, other: 0 };
    const verify = async (armoured: string, text: Uint8Array): Promise<number> => {
      const signature = parseSignature(armoured);
      return signature.ok && (await verifySignature(signature.value, parsed, made.namespace, text)) ? 1 : 0;
    };
    for (let number = 0; number < 1000; number++) {
      const text = new TextEncoder().encode(`request ${number}`);
      const armoured = await key.sign(text);
      good.plain += await verify(armoured, text);
      good.twin += await verify(await key.sign(text, { twin: true }), text);
      good.other += await verify(armoured, message);
    }
    expect(good).toEqual({ plain: 1000, twin: 1000, other: 0 });
  });
});

describe('a public key', () => {
  test.each(made.vectors)(
    'of $name is known by its fingerprint, with or without a comment',
    async (vector) => {
      const key = await keyOf(vector.publicKey);
      const [type, base64] = vector.publicKey.split(' ');
      expect(await fingerprintOf(key)).toBe(vector.fingerprint);
      expect(formatKey(key)).toBe(`${type} ${base64}`);
      expect(formatKey(await keyOf(`  ${type}\t${base64}\n`))).toBe(formatKey(key));
      expect(storedKey(formatKey(key)).blob).toEqual(key.blob);
    },
  );

  test.each(made.refused)('of $name is refused', async ({ publicKey }) => {
    expect(await refusal(publicKey)).toMatch(/can't be used|must have 2048/);
  });

  test('of Ed25519 that is of low order, in any form, is refused: everybody can sign for it', async () => {
    const hex = [
      '00'.repeat(32),
      `01${'00'.repeat(31)}`,
      '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
      'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
      `ec${'ff'.repeat(30)}7f`,
      `ed${'ff'.repeat(30)}7f`,
      `ee${'ff'.repeat(30)}7f`,
      'ff'.repeat(32),
    ];
    for (const digits of hex) {
      const point = Uint8Array.from(digits.match(/../g) as string[], (pair) => parseInt(pair, 16));
      for (const sign of [0, 0x80]) {
        const signed = Uint8Array.from(point, (byte, at) => (at === 31 ? byte ^ sign : byte));
        expect(await refusal(`ssh-ed25519 ${toBase64(wire('ssh-ed25519', signed))}`), digits).toContain(
          'placeholder',
        );
      }
    }
  });

  test('that is no point of its curve is refused', async () => {
    let notOnCurve = 0;
    for (let y = 2; y < 40; y++) {
      const point = Uint8Array.of(y, ...new Uint8Array(31));
      if ((await refusal(`ssh-ed25519 ${toBase64(wire('ssh-ed25519', point))}`)) !== null) notOnCurve++;
    }
    // Half of all numbers are no square.
    expect(notOnCurve).toBeGreaterThan(8);
    expect(notOnCurve).toBeLessThan(30);
    for (const name of ['p256', 'p384', 'p521']) {
      const [type, curve, point] = partsOf(byName[name].publicKey) as [Uint8Array, Uint8Array, Uint8Array];
      const text = byName[name].publicKey.split(' ')[0];
      const moved = Uint8Array.from(point, (byte, at) => (at === point.length - 1 ? byte ^ 1 : byte));
      for (const bad of [moved, Uint8Array.of(4, ...new Uint8Array(point.length - 1)), point.slice(0, -1)]) {
        expect(await refusal(`${text} ${toBase64(wire(type, curve, bad))}`)).not.toBeNull();
      }
    }
  });

  test('of RSA with an exponent of 1, an even modulus, or in a longer form is refused', async () => {
    const [type, exponent, modulus] = partsOf(byName['rsa2048'].publicKey) as [
      Uint8Array,
      Uint8Array,
      Uint8Array,
    ];
    const even = Uint8Array.from(modulus, (byte, at) => (at === modulus.length - 1 ? byte & 0xfe : byte));
    const line = (...parts: Uint8Array[]) => `ssh-rsa ${toBase64(wire(type, ...parts))}`;
    expect(await refusal(line(exponent, modulus))).toBeNull();
    expect(await refusal(line(Uint8Array.of(1), modulus))).toContain('exponent');
    expect(await refusal(line(exponent, even))).toContain('odd');
    expect(await refusal(line(exponent, join(Uint8Array.of(0), modulus)))).not.toBeNull();
    expect(await refusal(line(exponent, modulus.slice(1)))).not.toBeNull();
  });

  test('that is malformed is refused, whatever of it', async () => {
    const { publicKey } = byName['ed25519'];
    const [type, base64] = publicKey.split(' ');
    const blob = unarmour(base64);
    const bad = [
      '',
      base64,
      type,
      `${type} not-base64!`,
      `${type} ${base64.slice(0, -1)}`,
      `ssh-rsa ${base64}`,
      `ecdsa-sha2-nistp256 ${base64}`,
      `${type} ${toBase64(join(blob, Uint8Array.of(0)))}`,
      `${type} ${toBase64(blob.slice(0, -1))}`,
      `command="x" ${type} ${base64}`,
      `${publicKey}\n${publicKey}`,
      `sk-ssh-ed25519@openssh.com ${base64}`,
      `ssh-ed25519-cert-v01@openssh.com ${base64}`,
      `${type} ${toBase64(wire('__proto__', 'nistp256', new Uint8Array(65)))}`,
    ];
    for (const line of bad) expect(await refusal(line), line).not.toBeNull();
  });
});
