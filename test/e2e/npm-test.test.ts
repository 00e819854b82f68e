// What `npm test` says at its end: of the suites that a machine can't run, and of what failed. CI runs it where most
// can't, as well: .ci/newcomer.
import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import { runNpmTest } from '../lab/runner.ts';

const leavesOut = [
  ['moving from LAPI', 'apt-get is not here'],
  ['a host, booted', 'only root may boot a container'],
  ['two engines', 'apt-get is not here'],
  ['two engines', 'apt-get is not here'],
].map(
  ([name, why]) => `appendFileSync(process.env.LAPIDARY_LEFT_OUT, '${JSON.stringify({ name, why })}\\n');`,
);

test('it ends well, and names them with the reason, once each, before the line that counts', async () => {
  const { status, output } = await runNpmTest(leavesOut.join(''));
  expect(output).toContain(`left out: moving from LAPI; two engines
  because apt-get is not here
left out: a host, booted
  because only root may boot a container
2 passed, 0 failed, 0 skipped
`);
  expect(status).toBe(0);
});

test('it says nothing of the kind where all ran', async () => {
  expect((await runNpmTest('')).output).not.toContain('left out');
});

test('it ends with what failed, and why: a CI may keep the last lines only', async () => {
  const reason = `AssertionError: expected 1 to be 2\n${'    at here\n'.repeat(50)}`;
  const testResults = [
    {
      name: resolve('test/feed/feed.test.ts'),
      status: 'failed',
      message: '',
      assertionResults: [
        { status: 'passed', fullName: 'the feed is good', failureMessages: [] },
        { status: 'failed', fullName: 'the feed is better', failureMessages: [reason] },
      ],
    },
    {
      name: resolve('test/feed/other.test.ts'),
      status: 'failed',
      message: 'SyntaxError: here',
      assertionResults: [],
    },
  ];
  const results = { numPassedTests: 1, numFailedTests: 1, numPendingTests: 0, testResults };
  const { status, output } = await runNpmTest(
    `writeFileSync(report, ${JSON.stringify(JSON.stringify(results))}); process.exitCode = 1;`,
  );
  expect(output).toContain(`failed: test/feed/feed.test.ts: the feed is better
  AssertionError: expected 1 to be 2
      at here
`);
  expect(output.match(/at here/g)).toHaveLength(9);
  expect(output.split('\n').slice(-4)).toEqual([
    'failed: test/feed/other.test.ts',
    '  SyntaxError: here',
    '2 passed, 1 failed, 0 skipped',
    '',
  ]);
  expect(status).toBe(1);
});
