// test/run.mjs over suites that pass, and do some work besides: what it makes of that.
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '../..');

/** `work` is done once, by the second of the two suites. It has `startChild`, `appendFileSync`, and its `report` to write once more. */
export async function runNpmTest(
  work: string,
  settings: Record<string, string> = {},
): Promise<{ status: number; output: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'lapidary-runner-'));
  const suites = `#!${process.execPath}
    import { appendFileSync, writeFileSync } from 'node:fs';
    import { startChild } from '${root}/test/lab/child.ts';
    const report = process.argv.find((argument) => argument.startsWith('--outputFile.json=')).slice(18);
    const passed = { numPassedTests: 1, numFailedTests: 0, numPendingTests: 0, testResults: [] };
    writeFileSync(report, JSON.stringify(passed));
    if (process.argv.includes('test/real.config.ts')) { ${work} }`;
  // Node takes a script without an ending for a module when it looks like one.
  await writeFile(join(folder, 'vitest'), suites, { mode: 0o755 });
  const env = { PATH: `${folder}:${process.env['PATH']}`, ...settings };
  const ran = await new Promise<{ status: number; output: string }>((done) => {
    execFile(process.execPath, ['test/run.mjs'], { cwd: root, env }, (error, stdout, stderr) => {
      done({ status: error ? Number(error.code) : 0, output: stdout + stderr });
    });
  });
  await rm(folder, { recursive: true, force: true });
  return ran;
}
