// Debian's Chromium without a screen, unpacked like the other programs, and pages in it that axe-core has looked at.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, join } from 'node:path';
import { chromium, type Browser, type Page } from 'playwright-core';
import type { Ability } from './ability.ts';
import { run } from './child.ts';
import { aptGet, libraryFolders, unpacked } from './debian.ts';

/** The browser, and the libraries that this machine lacks. */
async function program(): Promise<{ executablePath: string; env: Record<string, string> }> {
  const root = await unpacked('chromium', async () => {
    const wanted = ['chromium-headless-shell', 'chromium-common'];
    const plan = await aptGet(['--simulate', 'install', '--no-install-recommends', wanted[0]!]);
    const missing = [...plan.matchAll(/^Inst ((?:lib|fonts-)\S+) \(/gm)].map((match) => match[1]!);
    return [...wanted, ...missing];
  });
  const folders = (await libraryFolders(root)).flatMap((folder) => [folder, join(folder, 'pulseaudio')]);
  const env = { LD_LIBRARY_PATH: folders.join(delimiter) };
  return { executablePath: join(root, 'usr/lib/chromium/chromium-headless-shell'), env };
}

/** Whether it can run here; fetches it the first time. */
export async function canRunChromium(): Promise<Ability> {
  try {
    const { executablePath, env } = await program();
    await run('env', [`LD_LIBRARY_PATH=${env['LD_LIBRARY_PATH']}`, executablePath, '--version']);
    return { ok: true };
  } catch (error) {
    const why = error instanceof Error ? error.message.split('\n', 1)[0] : String(error);
    return { ok: false, why: `Debian's Chromium can not be fetched: ${why}` };
  }
}

export async function startChromium(): Promise<Browser> {
  const { executablePath, env } = await program();
  // Its sandbox is not for root, and its pages are our own.
  return chromium.launch({ executablePath, env, args: ['--no-sandbox'] });
}

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** What axe-core finds wrong on a page as it stands. */
export async function faultsOf(page: Page): Promise<string[]> {
  // Not as a script of the page: its policy lets none in.
  await page.evaluate(axe);
  const violations = await page.evaluate(async () => {
    const found = await (globalThis as any).axe.run();
    return found.violations.map(
      ({ id, nodes }: any) => `${id}: ${nodes.map(({ html }: any) => html).join(' ')}`,
    );
  });
  return violations as string[];
}
