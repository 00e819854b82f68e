// `wrangler dev` in a clone that was just made: the commands of docs/deploy.md, one after the other, as they stand there.
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { processes } from '../../scripts/processes.mjs';
import { describeWith } from '../lab/ability.ts';
import { type Checkout, copyCheckout } from '../lab/checkout.ts';
import { type Child, atProcessEnd, startChild } from '../lab/child.ts';
import { isRunning } from '../lab/lapidary.ts';
import { freePort } from '../lab/ports.ts';
import { until } from '../lab/wait.ts';

const document = readFileSync(new URL('../../docs/deploy.md', import.meta.url), 'utf8');
const [, chapter = ''] = document.split('## Try it on your machine\n');
/** What is typed into each terminal. */
const [first = [], second = []] = [...chapter.matchAll(/^```sh\n([^`]*)^```/gm)].map(([, block = '']) =>
  block.split('\n').filter(Boolean),
);

describeWith('the commands to try it', ['hostTools'], () => {
  let checkout: Checkout;
  let port: number;
  let dev: Child | undefined;
  beforeEach(async () => {
    checkout = await copyCheckout();
    port = await freePort();
  });
  afterEach(async () => {
    await endWrangler();
    await dev?.end();
    await checkout.remove();
  });

  /** npx ends without it. What it has started ends with it. */
  const wranglers = (): number[] =>
    processes()
      .filter(({ args }) => args.includes('dev') && args.includes(String(port)))
      .map(({ pid }) => pid);
  const forget = atProcessEnd(() => wranglers().forEach((pid) => process.kill(pid)));
  async function endWrangler(): Promise<void> {
    const pids = wranglers();
    for (const pid of pids) if (isRunning(pid)) process.kill(pid);
    await until('wrangler has ended', () => !pids.some(isRunning));
    forget();
  }

  /** Everything else in them is what the document says. */
  const atOurPort = (line: string): string =>
    line
      .replace(/^npx wrangler dev$/, `exec npx wrangler dev --port ${port} --inspector-port 0`)
      .replaceAll('127.0.0.1:8787', `127.0.0.1:${port}`);
  const options = () => ({
    cwd: checkout.dir,
    // HOME: wrangler keeps its log there.
    env: { PATH: process.env['PATH'] ?? '', HOME: checkout.dir, WRANGLER_SEND_METRICS: 'false' },
  });
  const type = async (lines: readonly string[]): Promise<string> => {
    const script = ['set -eu', ...lines.map(atOurPort)].join('\n');
    return (await promisify(execFile)('sh', ['-c', script], options())).stdout;
  };

  test('make it serve a ban to a bouncer', async () => {
    // Whoever runs this has installed the packages.
    expect(first[0]).toBe('npm ci');
    await type(first.slice(1, -1));
    dev = startChild('sh', ['-c', atOurPort(first.at(-1) ?? '')], options());
    await until('it is ready', (saw) => {
      saw(dev?.log());
      return dev?.log().includes('Ready on') ?? false;
    });
    const answers = await type(second.flatMap((line) => (line.includes('curl') ? [line, 'echo'] : [line])));
    const [health, bouncer, decision] = answers
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(health).toMatchObject({ status: 'up' });
    expect(decision).toMatchObject({ decision: { value: '192.0.2.1' } });
    const pulled = await fetch(`http://127.0.0.1:${port}/v1/decisions/stream?startup=true`, {
      headers: { 'X-Api-Key': bouncer.key },
    });
    expect(await pulled.json()).toMatchObject({ new: [{ value: '192.0.2.1' }], deleted: [] });
  });
});
