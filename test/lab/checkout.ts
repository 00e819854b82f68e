// This checkout once more, as a clone has it that was just made: what is tracked, the packages, and nothing that was built
// or set.
import { rmSync, symlinkSync } from 'node:fs';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { atProcessEnd } from './child.ts';

const root = resolve(import.meta.dirname, '../..');
/** What runs it and what brings it to Cloudflare. */
const names = ['package.json', 'tsconfig.json', 'wrangler.toml', 'migrations', 'scripts', 'src'];

export interface Checkout {
  dir: string;
  remove(): Promise<void>;
}

export async function copyCheckout(): Promise<Checkout> {
  const dir = await mkdtemp(join(tmpdir(), 'lapidary-checkout-'));
  const forget = atProcessEnd(() => rmSync(dir, { recursive: true, force: true }));
  for (const name of names) await cp(join(root, name), join(dir, name), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(dir, 'node_modules'));
  return {
    dir,
    async remove() {
      await rm(dir, { recursive: true, force: true });
      forget();
    },
  };
}
