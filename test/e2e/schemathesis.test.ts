// Schemathesis over /openapi.json: whatever is made of the document, or is against it, no answer is a 5xx, and each has a
// status, a type and a body that it lists; what it says is no good is refused. Nothing is left out but what it does not
// describe: LAPI's routes below /v1, which test/conformance compares with an engine's. OPERATOR_TOKEN is no token of the
// table, so no request takes away what the next one needs.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { startEngine, type Engine } from '../lab/engine.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { fuzz } from '../lab/schemathesis.ts';

/** Of each operation: what is made of bounds and examples comes on top. 260 are 10,000 in all. */
const examples = Number(process.env['SCHEMATHESIS_EXAMPLES'] ?? 25);

describeWith('requests that are made of the document', ['lab', 'schemathesis'], () => {
  let engine: Engine;
  let lapidary: Lapidary;
  beforeAll(async () => {
    engine = await startEngine();
    lapidary = await startLapidary({
      upstream: { url: engine.url, key: await engine.addBouncer('lapidary') },
      // Limits count by address: each request says another one (schemathesis/hooks.py).
      settings: { CLIENT_ADDRESS_HEADER: 'x-client' },
    });
    await engine.ban('192.0.2.1');
  });
  afterAll(async () => {
    await lapidary?.close();
    await engine?.close();
  });

  test('are answered as it says', async () => {
    const token = (await readFile(join(lapidary.stateDir, 'operator-token'), 'utf8')).trim();
    const { ok, cases, output } = await fuzz(lapidary.url, token, examples);
    expect(ok, output).toBe(true);
    // The document has more operations than that.
    expect(cases).toBeGreaterThan(30 * examples);
  }, 1_800_000);
});
