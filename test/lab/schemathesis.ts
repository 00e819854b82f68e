// Schemathesis, which makes requests of an OpenAPI document and judges the answers. A Python program: it is installed
// into .cache/python of the checkout, and nowhere else.
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Ability } from './ability.ts';
import { run, startChild } from './child.ts';

export interface Fuzzed {
  /** Whether every answer was as the document says. */
  ok: boolean;
  /** How many requests were made of the document. */
  cases: number;
  /** What it found, with a command to repeat each. */
  output: string;
}

const folder = resolve(import.meta.dirname, 'schemathesis');
const cache = resolve(import.meta.dirname, '../../.cache/python');
/** Of each step of the installation, on a machine that does much else. */
const timeoutMs = 300_000;

let installed: Promise<string> | undefined;

/** Whether it can run here; installs it the first time. */
export async function canRunSchemathesis(): Promise<Ability> {
  try {
    await run('python3', ['--version']);
  } catch {
    return { ok: false, why: 'python3 is not here (Debian: python3-venv)', optional: true };
  }
  try {
    await python();
    return { ok: true };
  } catch (error) {
    const why = error instanceof Error ? error.message.split('\n', 1)[0] : String(error);
    return { ok: false, why: `Schemathesis can not be installed: ${why}` };
  }
}

/** The Python that has it. */
function python(): Promise<string> {
  installed ??= install();
  return installed;
}

/** The folder appears by a rename once it is complete. What is in it may be moved, but its scripts: `python -m` runs all. */
async function install(): Promise<string> {
  const requirements = join(folder, 'requirements.txt');
  const version = await run('python3', ['--version']);
  const digest = createHash('sha256')
    .update(version)
    .update(await readFile(requirements));
  const target = join(cache, `schemathesis-${digest.digest('hex').slice(0, 12)}-${process.arch}`);
  if (!existsSync(target)) {
    const temporary = `${target}-${process.pid}`;
    await mkdir(cache, { recursive: true });
    try {
      await run('python3', ['-m', 'venv', temporary], { timeoutMs });
      const pip = ['-m', 'pip', '--disable-pip-version-check', '--no-input', 'install', '--quiet'];
      await run(join(temporary, 'bin/python'), [...pip, '--retries=1', '-r', requirements], { timeoutMs });
      await rename(temporary, target).catch((error: unknown) => {
        if (!existsSync(target)) throw error;
      });
    } finally {
      await rm(temporary, { recursive: true, force: true });
    }
  }
  return join(target, 'bin/python');
}

/** Requests of the document at `url`, `examples` of each operation and those that are made of its bounds. */
export async function fuzz(url: string, operatorToken: string, examples: number): Promise<Fuzzed> {
  const reports = await mkdtemp(join(tmpdir(), 'lapidary-schemathesis-'));
  const report = join(reports, 'report.json');
  const args = [
    ...['-m', 'schemathesis.cli', '--config-file', join(folder, 'schemathesis.toml')],
    ...['run', `${url}/openapi.json`, '--no-color', `--max-examples=${examples}`],
    `--report-json-path=${report}`,
  ];
  // Its environment has the token, which its arguments would show to everybody, and no proxy of this machine's.
  const env = {
    PATH: process.env['PATH'] ?? '',
    SCHEMATHESIS_HOOKS: join(folder, 'hooks.py'),
    LAPIDARY_OPERATOR_TOKEN: operatorToken,
    PYTHONDONTWRITEBYTECODE: '1',
  };
  // It leaves files where it runs.
  const child = startChild(await python(), args, { cwd: reports, env });
  try {
    const status = await child.exit;
    const cases = existsSync(report) ? JSON.parse(await readFile(report, 'utf8')).test_cases.generated : 0;
    return { ok: status === 0, cases, output: child.log() };
  } finally {
    await child.end('SIGKILL');
    await rm(reports, { recursive: true, force: true });
  }
}
