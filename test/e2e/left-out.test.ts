// What `npm test` says of the suites that a machine can't run. CI runs it where most can't, as well: .ci/newcomer.
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
