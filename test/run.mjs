// `npm test`: every suite that this machine can run, each in its own vitest, and one line that counts them all.
// With CI set, a suite that could not run is a failure (.ci/run).

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const folder = mkdtempSync(join(tmpdir(), 'lapidary-results-'));
const totals = { passed: 0, failed: 0, skipped: 0 };
let broken = false;

for (const suite of ['workerd', 'real']) {
  const output = join(folder, `${suite}.json`);
  const status = await run('vitest', [
    'run',
    '--config',
    `test/${suite}.config.ts`,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${output}`,
    ...process.argv.slice(2),
  ]);
  if (status !== 0) broken = true;
  try {
    const { numPassedTests, numFailedTests, numPendingTests } = JSON.parse(readFileSync(output, 'utf8'));
    totals.passed += numPassedTests;
    totals.failed += numFailedTests;
    totals.skipped += numPendingTests;
  } catch {
    broken = true;
    console.error(`the ${suite} suites ended without a result`);
  }
}
rmSync(folder, { recursive: true, force: true });

const skipsMatter = process.env.CI === 'true' && totals.skipped > 0;
if (skipsMatter) console.error('suites were skipped that this machine should have run: see "skipped:" above');
console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
process.exit(broken || totals.failed > 0 || totals.passed === 0 || skipsMatter ? 1 : 0);

/** Runs a command of this project's to its end. */
function run(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: 'inherit' });
    child.on('error', () => resolve(1));
    child.on('exit', (code) => resolve(code ?? 1));
  });
}
