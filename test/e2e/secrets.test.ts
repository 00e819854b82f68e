// That keys and tokens are looked for where none may be, and found: by `npm test` in all that a run prints, by the
// lab in what a Lapidary keeps. Each secret here is planted, and no outer run gets to see it.
import { describe, expect, test } from 'vitest';
import { mintSecret } from '../../src/crypto/mint.ts';
import { startLapidary } from '../lab/lapidary.ts';
import { runNpmTest } from '../lab/runner.ts';

describe('npm test', () => {
  test('passes what speaks of keys, and what only looks like one', async () => {
    const secret = mintSecret('csb_');
    const swapped = secret.slice(0, -1) + (secret.endsWith('0') ? '1' : '0');
    const { status, output } = await runNpmTest(`console.log('csb_… ${swapped} cso_${'x'.repeat(49)}')`);
    expect([status, output]).toEqual([0, expect.stringContaining('2 passed, 0 failed, 0 skipped')]);
    expect(output).toContain(swapped);
  });

  test.each([
    ['csb_', 'console.log', 'stdout of the real suites, line 1: the key is "csb_…"'],
    ['cse_', 'console.error', 'stderr of the real suites, line 1: the key is "cse_…"'],
  ] as const)('fails when a %s key is printed with %s', async (prefix, print, where) => {
    const { status, output } = await runNpmTest(`${print}('the key is "${mintSecret(prefix)}"')`);
    expect([status, output]).toEqual([1, expect.stringContaining(`a key or token is in ${where}`)]);
  });

  test('fails when a process of the lab logs a token', async () => {
    const log = `console.error("started with ${mintSecret('cso_')}")`;
    const { status, output } = await runNpmTest(`await startChild(process.execPath, ['-e', '${log}']).exit`);
    expect([status, output]).toEqual([
      1,
      expect.stringMatching(/in the log node-\d+-stderr\.log of the lab, line 1: started with cso_…/),
    ]);
  });
});

describe('a Lapidary of the lab', () => {
  test('is searched when it is closed: logs, rows of D1, rows of the object', async () => {
    const lapidary = await startLapidary();
    const key = await lapidary.addBouncer('fw');
    await lapidary.ban('192.0.2.1');
    expect(await lapidary.leaks()).toEqual([]);

    const headers = { 'x-api-key': key };
    const body = JSON.stringify({ remediation_components: [{ name: mintSecret('csb_') }] });
    await fetch(`${lapidary.url}/v1/usage-metrics`, { method: 'POST', headers, body });
    expect(await lapidary.leaks()).toEqual([expect.stringMatching(/^d1\/.*sqlite/)]);
    const scenario = `by ${mintSecret('cso_')}`;
    await lapidary.operator('POST', '/decisions', { value: '192.0.2.2', duration: '1h', scenario });
    const leaks = await lapidary.leaks();
    expect(new Set(leaks.map((path) => path.split('/')[0]))).toEqual(new Set(['d1', 'feed']));
    await expect(lapidary.close()).rejects.toThrow(/left a key or token in d1\/.*feed\//);
  });
});
