// `npm test`: every suite that this machine can run, each in its own vitest. It ends with what was left out and why
// (lab/ability.ts), and with one line that counts all tests.
// With CI set, a suite that could not run is a failure (.ci/run). So is a key or token of ours in anything that the
// run printed: vitest itself, its reports, and each process that the lab started.

import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { stripVTControlCharacters } from 'node:util';

const folder = mkdtempSync(join(tmpdir(), 'lapidary-results-'));
const logs = join(folder, 'logs');
mkdirSync(logs);
const leftOut = join(folder, 'left-out');
writeFileSync(leftOut, '');
const totals = { passed: 0, failed: 0, skipped: 0 };
/** What is looked through for secrets: where it came from, and the text. */
const printed = [];
let broken = false;
/** The suites in which something failed that is no test. */
const outside = [];
/** What failed, each as a few lines: where, and why. */
const failures = [];

for (const suite of ['workerd', 'real']) {
  const output = join(folder, `${suite}.json`);
  const status = await run(suite, 'vitest', [
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
    const report = readFileSync(output, 'utf8');
    printed.push({ where: `the report of the ${suite} suites`, text: report });
    const { numPassedTests, numFailedTests, numPendingTests, testResults } = JSON.parse(report);
    failures.push(...testResults.flatMap(failuresOf));
    totals.passed += numPassedTests;
    totals.failed += numFailedTests;
    totals.skipped += numPendingTests;
    if (status !== 0 && numFailedTests === 0) outside.push(suite);
  } catch {
    broken = true;
    console.error(`the ${suite} suites ended without a result`);
  }
}
for (const name of readdirSync(logs)) {
  printed.push({ where: `the log ${name} of the lab`, text: readFileSync(join(logs, name), 'utf8') });
}
const reasons = readLeftOut();
rmSync(folder, { recursive: true, force: true });

const leaks = await findLeaks();
for (const leak of leaks) console.error(`a key or token is in ${leak}`);
const skipsMatter = process.env.CI === 'true' && totals.skipped > 0;
for (const [why, names] of reasons) console.log(`left out: ${[...names].join('; ')}\n  because ${why}`);
for (const suite of outside) {
  console.error(
    `the ${suite} suites failed outside their tests: see "Unhandled Errors" in what they printed`,
  );
}
// Once more, and at the end: a CI often keeps the last lines only.
for (const failure of failures.slice(0, 20)) console.log(failure);
if (failures.length > 20) console.log(`and ${failures.length - 20} more`);
if (skipsMatter) console.error('tests were skipped that this machine should have run');
console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
const good = !broken && leaks.length === 0 && totals.failed === 0 && totals.passed > 0 && !skipsMatter;
process.exit(good ? 0 : 1);

/** Runs a command of this project's to its end; what it prints is shown as it comes, and kept. */
function run(suite, command, args) {
  const env = {
    ...process.env,
    LAPIDARY_TEST_LOGS: logs,
    LAPIDARY_LEFT_OUT: leftOut,
    // It sees no terminal, though there may be one behind us.
    ...(process.stdout.isTTY ? { FORCE_COLOR: '1' } : {}),
  };
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ['inherit', 'pipe', 'pipe'], env });
    for (const stream of ['stdout', 'stderr']) {
      const chunks = [];
      child[stream].on('data', (chunk) => {
        chunks.push(chunk);
        process[stream].write(chunk);
      });
      child[stream].on('close', () => {
        printed.push({ where: `${stream} of the ${suite} suites`, text: Buffer.concat(chunks).toString() });
      });
    }
    child.on('error', () => resolve(1));
    child.on('close', (code) => resolve(code ?? 1));
  });
}

/** The failed tests of one file in vitest's report, or the file's own failure: its name, and the start of the reason. */
function failuresOf({ name, status, message, assertionResults }) {
  const failed = assertionResults.filter((test) => test.status === 'failed');
  const file = relative(process.cwd(), name);
  if (failed.length === 0) return status === 'failed' ? [failure(file, message)] : [];
  return failed.map((test) => failure(`${file}: ${test.fullName}`, test.failureMessages.join('\n')));
}

/** The first ten lines of a reason below what failed. */
function failure(what, reason) {
  const lines = stripVTControlCharacters(reason).split('\n').slice(0, 10);
  return [`failed: ${what}`, ...lines.map((line) => `  ${line.slice(0, 2_000)}`)].join('\n');
}

/** The names of the suites that were left out, by the reason. */
function readLeftOut() {
  const reasons = new Map();
  for (const line of readFileSync(leftOut, 'utf8').split('\n').filter(Boolean)) {
    const { name, why } = JSON.parse(line);
    reasons.set(why, (reasons.get(why) ?? new Set()).add(name));
  }
  return reasons;
}

/** Where secrets were printed, each with its line, the secret itself left out. */
async function findLeaks() {
  let mintedIn;
  try {
    // The suites built it.
    ({ mintedIn } = await import('../dist/mint.js'));
  } catch {
    return ['nobody knows what: dist/mint.js was not built, so nothing was looked through'];
  }
  return printed.flatMap(({ where, text }) => {
    const lines = stripVTControlCharacters(text).split('\n');
    return lines.flatMap((line, at) => {
      const secrets = mintedIn(line);
      if (secrets.length === 0) return [];
      const start = Math.max(0, line.indexOf(secrets[0]) - 80);
      const masked = secrets.reduce(
        (rest, secret) => rest.replaceAll(secret, `${secret.slice(0, 4)}…`),
        line,
      );
      return [`${where}, line ${at + 1}: ${masked.slice(start, start + 200)}`];
    });
  });
}
