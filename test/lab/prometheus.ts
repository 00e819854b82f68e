// Debian's Prometheus: promtool, which judges a scrape and rules, and the server, on loopback with a folder of its own.
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Ability } from './ability.ts';
import { run, startChild } from './child.ts';
import { unpacked } from './debian.ts';
import { freePort } from './ports.ts';
import { until } from './wait.ts';

async function programs(): Promise<{ promtool: string; prometheus: string }> {
  const bin = join(await unpacked('prometheus', async () => ['prometheus']), 'usr/bin');
  return { promtool: join(bin, 'promtool'), prometheus: join(bin, 'prometheus') };
}

/** Whether it can run here; fetches it the first time. */
export async function canRunPrometheus(): Promise<Ability> {
  try {
    await run((await programs()).promtool, ['--version']);
    return { ok: true };
  } catch (error) {
    const why = error instanceof Error ? error.message.split('\n', 1)[0] : String(error);
    return { ok: false, why: `Debian's prometheus can not be fetched: ${why}` };
  }
}

/** What promtool has to say, and its status. `input`: what it reads. */
export async function promtool(args: string[], input = ''): Promise<{ status: number | null; said: string }> {
  const child = spawn((await programs()).promtool, args, { stdio: 'pipe' });
  const chunks: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => chunks.push(chunk));
  }
  child.stdin.end(input);
  const status = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { status, said: chunks.join('') };
}

export interface Prometheus {
  /** What an expression is now: labels and value of each series. */
  query(expression: string): Promise<{ labels: Record<string, string>; value: string }[]>;
  close(): Promise<void>;
}

/** Prometheus that scrapes `url` every second with a token. `rules`: a file of rules. */
export async function startPrometheus(url: string, token: string, rules: string): Promise<Prometheus> {
  const folder = await mkdtemp(join(tmpdir(), 'prometheus-'));
  const port = await freePort();
  const address = `127.0.0.1:${port}`;
  await writeFile(join(folder, 'token'), token, { mode: 0o600 });
  await writeFile(
    join(folder, 'prometheus.yml'),
    JSON.stringify({
      global: { scrape_interval: '1s', evaluation_interval: '1s' },
      rule_files: [rules],
      scrape_configs: [
        {
          job_name: 'lapidary',
          authorization: { credentials_file: join(folder, 'token') },
          static_configs: [{ targets: [new URL(url).host] }],
        },
      ],
    }),
  );
  const child = startChild((await programs()).prometheus, [
    `--config.file=${join(folder, 'prometheus.yml')}`,
    `--storage.tsdb.path=${join(folder, 'data')}`,
    `--web.listen-address=${address}`,
  ]);
  await until('prometheus is ready', async (saw) => {
    saw(child.log().slice(-500));
    return (await fetch(`http://${address}/-/ready`).catch(() => null))?.status === 200;
  });
  return {
    async query(expression) {
      const asked = `http://${address}/api/v1/query?query=${encodeURIComponent(expression)}`;
      const { data } = (await (await fetch(asked)).json()) as any;
      return data.result.map(({ metric, value }: any) => ({ labels: metric, value: value[1] }));
    },
    async close() {
      await child.end();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
