// A host as the broker meets it, with the ssh-keygen of this machine: its key, and signed requests over fresh challenges.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { atProcessEnd } from './child.ts';

export type BootstrapPath = 'keys' | 'engine-key' | 'machine';

export interface SshHost {
  /** A line of authorized_keys. */
  readonly publicKey: string;
  /** The body of a request to `/bootstrap/v1/<path>`; `fields` go over what every request has. */
  request(url: string, path: BootstrapPath, fields: object): Promise<{ payload: string; signature: string }>;
  close(): void;
}

export function createSshHost(name: string, options: readonly string[] = ['-t', 'ed25519']): SshHost {
  const folder = mkdtempSync(join(tmpdir(), 'lapidary-ssh-host-'));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  const forget = atProcessEnd(remove);
  const file = join(folder, 'key');
  execFileSync('ssh-keygen', ['-q', '-N', '', '-C', name, ...options, '-f', file]);
  return {
    publicKey: readFileSync(`${file}.pub`, 'utf8').trim(),
    async request(url, path, fields) {
      const { nonce } = (await (await fetch(`${url}/bootstrap/v1/challenge`)).json()) as { nonce: string };
      const aud = `${url}/bootstrap/v1/${path}`;
      const input = JSON.stringify({ v: 1, aud, host: name, nonce, generation: 0, ...fields });
      const signature = execFileSync(
        'ssh-keygen',
        ['-Y', 'sign', '-q', '-n', 'bootstrap-v1@lapidary', '-f', file],
        {
          input,
          encoding: 'utf8',
        },
      );
      return { payload: Buffer.from(input).toString('base64'), signature };
    },
    close() {
      remove();
      forget();
    },
  };
}
