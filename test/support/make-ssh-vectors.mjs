// Makes test/support/ssh-vectors.json with the real ssh-keygen: `node test/support/make-ssh-vectors.mjs`. The private
// keys are thrown away.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const kinds = [
  ['ed25519', ['-t', 'ed25519']],
  ...[256, 384, 521].map((bits) => [`p${bits}`, ['-t', 'ecdsa', '-b', String(bits)]]),
  ...[2048, 3072, 4096].map((bits) => [`rsa${bits}`, ['-t', 'rsa', '-b', String(bits)]]),
];
const namespace = 'bootstrap-v1@lapidary';
const message = '{"v":1,"host":"web-1","ü":"not ASCII"}';
const folder = mkdtempSync(join(tmpdir(), 'ssh-vectors-'));
const keygen = (args, input) => execFileSync('ssh-keygen', args, { input, encoding: 'utf8' });

const vectors = kinds.map(([name, options]) => {
  const file = join(folder, name);
  keygen(['-q', '-N', '', '-C', 'a comment', ...options, '-f', file]);
  const sign = (hash) =>
    keygen(['-Y', 'sign', '-q', '-n', namespace, '-O', `hashalg=${hash}`, '-f', file], message);
  return {
    name,
    publicKey: readFileSync(`${file}.pub`, 'utf8').trim(),
    fingerprint: keygen(['-l', '-f', `${file}.pub`]).split(' ')[1],
    signatures: { sha256: sign('sha256'), sha512: sign('sha512') },
  };
});
const refused = [
  ['dsa', ['-t', 'dsa']],
  ['rsa1024', ['-t', 'rsa', '-b', '1024']],
].map(([name, options]) => {
  keygen(['-q', '-N', '', '-C', '', ...options, '-f', join(folder, name)]);
  return { name, publicKey: readFileSync(join(folder, `${name}.pub`), 'utf8').trim() };
});
rmSync(folder, { recursive: true });
writeFileSync(
  new URL('ssh-vectors.json', import.meta.url),
  `${JSON.stringify({ namespace, message, vectors, refused }, null, 2)}\n`,
);
