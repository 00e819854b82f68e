// The signature check against the ssh-keygen of this machine: fresh keys of every kind, and numbers of every length.
import { execFile, execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { parsePublicKey } from '../../src/crypto/ssh-key.ts';
import { parseSignature, verifySignature } from '../../src/crypto/sshsig.ts';

const namespace = 'bootstrap-v1@lapidary';
describeWith('a signature of ssh-keygen', ['hostTools'], () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'lapidary-sshsig-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  function makeKey(name: string, options: readonly string[]): string {
    const file = join(folder, name);
    execFileSync('ssh-keygen', ['-q', '-N', '', '-C', '', ...options, '-f', file]);
    return file;
  }

  function sign(file: string, text: string, hash: string): Promise<string> {
    const options = ['-Y', 'sign', '-q', '-n', namespace, '-O', `hashalg=${hash}`, '-f', file];
    return new Promise((resolve, reject) => {
      const child = execFile('ssh-keygen', options, (error, stdout) => {
        if (error) reject(error);
        else resolve(stdout);
      });
      child.stdin?.end(text);
    });
  }

  async function accepts(file: string, armoured: string, text: string): Promise<boolean> {
    const key = await parsePublicKey(await readFile(`${file}.pub`, 'utf8'));
    const signature = parseSignature(armoured);
    if (!key.ok || !signature.ok) return false;
    return verifySignature(signature.value, key.value, namespace, new TextEncoder().encode(text));
  }

  test.each([
    ['ed25519', ['-t', 'ed25519']],
    ['p256', ['-t', 'ecdsa', '-b', '256']],
    ['p384', ['-t', 'ecdsa', '-b', '384']],
    ['p521', ['-t', 'ecdsa', '-b', '521']],
    ['rsa2048', ['-t', 'rsa', '-b', '2048']],
    ['rsa3072', ['-t', 'rsa', '-b', '3072']],
    ['rsa4096', ['-t', 'rsa', '-b', '4096']],
  ])('a fresh %s key signs with either hash', async (name, options) => {
    const file = makeKey(name, options);
    for (const hash of ['sha256', 'sha512']) {
      const armoured = await sign(file, `for ${name}`, hash);
      expect(await accepts(file, armoured, `for ${name}`)).toBe(true);
      expect(await accepts(file, armoured, `for ${name}!`)).toBe(false);
    }
  });

  test('1,000 signatures of one P-256 key are good, the short ones too', async () => {
    const file = makeKey('many', ['-t', 'ecdsa', '-b', '256']);
    const lengths = new Set<number>();
    for (let round = 0; round < 100; round++) {
      const texts = Array.from({ length: 10 }, (_, index) => `request ${round} ${index}`);
      const signed = await Promise.all(texts.map((text) => sign(file, text, 'sha512')));
      for (const [index, armoured] of signed.entries()) {
        lengths.add(armoured.length);
        expect(await accepts(file, armoured, texts[index])).toBe(true);
      }
    }
    // A number is written in 31, 32 or 33 bytes.
    expect(lengths.size).toBeGreaterThan(1);
  });
});
