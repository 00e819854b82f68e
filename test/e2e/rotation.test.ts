// A real bouncer through the life of its key: create, rotate, restart with the new key, the old one's grace over.
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { enforcers, untilEnforced } from '../lab/enforcers.ts';
import { startEngine, type Engine } from '../lab/engine.ts';
import { startLapidary, type Lapidary } from '../lab/lapidary.ts';
import { until } from '../lab/wait.ts';

const lab = inject('lab');

describe.skipIf(!lab.ok)('the custom bouncer', () => {
  let engine: Engine;
  let lapidary: Lapidary;
  beforeAll(async () => {
    engine = await startEngine();
    lapidary = await startLapidary({ upstream: { url: engine.url, key: await engine.addBouncer('edge') } });
  });
  afterAll(async () => {
    await lapidary?.close();
    await engine?.close();
  });

  test('is never refused, and misses no decision, through a rotation', async () => {
    const first = await lapidary.addBouncer('web');
    const status = async (key: string): Promise<number> => {
      return (await fetch(`${lapidary.url}/v1/decisions`, { headers: { 'x-api-key': key }, method: 'HEAD' }))
        .status;
    };
    const before = await enforcers['custom bouncer']({ url: lapidary.url, key: first });
    await engine.ban('192.0.2.1');
    await untilEnforced(before, { banned: ['192.0.2.1'] });

    const { body } = await lapidary.operator('POST', '/bouncers/web/rotate', { grace: '3s' });
    await engine.ban('192.0.2.2');
    await untilEnforced(before, { banned: ['192.0.2.1', '192.0.2.2'] });
    expect(before.failedPulls()).toBe(0);
    await before.close();
    await engine.ban('192.0.2.3');

    const after = await enforcers['custom bouncer']({ url: lapidary.url, key: body.key });
    await untilEnforced(after, { banned: ['192.0.2.1', '192.0.2.2', '192.0.2.3'] });
    await until('the grace of the old key is over', async () => (await status(first)) === 403);
    await engine.ban('192.0.2.4');
    await engine.unban('192.0.2.1');
    await untilEnforced(after, { banned: ['192.0.2.2', '192.0.2.3', '192.0.2.4'], free: ['192.0.2.1'] });
    expect(after.failedPulls()).toBe(0);
    await after.close();

    const { key_versions: versions } = (await lapidary.operator('GET', '/bouncers/web')).body;
    expect(versions.at(-1)).toMatchObject({ number: 2, state: 'current' });
    expect((await lapidary.operator('GET', '/audit/verify')).body.ok).toBe(true);
    for (const secret of [first, body.key]) expect(lapidary.log()).not.toContain(secret);
  });
});
